"""Fixtures that interrupt stages and record where they resume."""

import itertools
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from bla.datasets import image_files
from bla.networks import extraction

NOISY = {"dataset.painted_birds.backbone.stochastic_depth": 0.2, "dataset.painted_birds.backbone.draws": 5}


def _stopping(monkeypatch, module, name, start_of):
    """Watch a function that yields chunks: `starts` lists the start of each call; Ctrl-C after `chunks` chunks."""
    original = getattr(module, name)

    def watch(chunks):
        starts = []

        def watched(*arguments, **named):
            starts.append(start_of(*arguments, **named))
            yield from itertools.islice(original(*arguments, **named), chunks)
            if chunks is not None:
                raise KeyboardInterrupt

        monkeypatch.setattr(module, name, watched)  # nothing else shows where a stage resumes
        return starts

    return watch


@pytest.fixture
def extracting(extractable, edit_params, end_of, monkeypatch):
    """`extracting()` runs `features` with five noisy draws, one chunk each; it returns the start rows of train and test.

    `extracting(2)` is interrupted after two chunks.
    """
    edit_params(extractable, NOISY)
    watch = _stopping(monkeypatch, extraction, "extract", lambda extractor, images, device, draws, start: start)

    def run(chunks=None):
        starts = watch(chunks)
        assert end_of("features", "painted_birds") == (None if chunks is None else 130)
        return starts

    return run


@pytest.fixture
def reading(photos, end_of, monkeypatch):
    """`reading()` prepares the photographs in chunks of two; it returns the start rows and the message."""
    monkeypatch.setattr(image_files, "CHUNK", 2)
    watch = _stopping(monkeypatch, image_files, "read_images", lambda listing, split, size, resize, start: start)

    def run(chunks=None):
        starts = watch(chunks)
        return starts, end_of("prepare", "photos")

    return run


@pytest.fixture(scope="session")
def full_disk():
    """`with full_disk(1000)`: files of this process are limited to 1,000 bytes, as if the disk were full."""

    @contextmanager
    def limited(largest):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def maps_and_scores(contents):
    """`maps_and_scores()`: the files that the stages lime, maps and faithfulness have written."""

    def read():
        return {
            name: content
            for kind in ("lime", "maps", "faithfulness")
            for name, content in contents(Path("data") / kind).items()
        }

    return read
