"""`make photos` from the download to the front page, on small archives in the official layout, served on loopback."""

import hashlib
import io
import re
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import run
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BREEDS = ("Abyssinian", "american_bulldog", "Bengal")
COUNTS = {"train": 24, "test": 18}
SERVED = """
from bla.base.download import Source
from bla.datasets import oxford_pet

oxford_pet.SOURCES = tuple(Source(*source) for source in {sources})
oxford_pet.COUNTS = {counts}
"""
"""Appended to the module that reads params.yaml: the archives are those on loopback."""


def archives() -> dict[str, dict[str, bytes]]:
    """Photographs of squares on noise, one colour per breed, with trimaps (1 is the animal) and lists."""
    rng, images, annotations, lists = np.random.default_rng(0), {}, {}, {"train": [], "test": []}
    for split, count in COUNTS.items():
        for number in range(count):
            breed = number % len(BREEDS)
            name = f"{BREEDS[breed]}_{number + 100 * (split == 'test')}"
            pixels, trimap = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8), np.full((60, 80), 2, np.uint8)
            pixels[20:45, 30:60] = np.eye(3)[breed] * 255
            trimap[20:45, 30:60] = 1
            images[f"images/{name}.jpg"] = encoded(pixels, "JPEG")
            annotations[f"annotations/trimaps/{name}.png"] = encoded(trimap, "PNG")
            lists[split].append(f"{name} {breed + 1} {1 + (breed == 1)} 1")
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        annotations[f"annotations/{file}"] = "\n".join(lists[split]).encode()
    return {"images.tar.gz": images, "annotations.tar.gz": annotations}


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of a server of the archives, and their names, sizes and hashes as arguments of `Source`."""
    folder, sources = tmp_path_factory.mktemp("site"), []
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, members in archives().items():
        with tarfile.open(folder / name, "w:gz") as archive:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        content = (folder / name).read_bytes()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        sources.append((name, (url,), len(content), f"sha256:{hashlib.sha256(content).hexdigest()}"))
    yield sources
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def project(site, tmp_path_factory, make_project, save_random_weights):
    """A small project after the commands of `make photos`."""
    folder = tmp_path_factory.mktemp("photos")
    weights = save_random_weights(tmp_path_factory.mktemp("weights") / "random.safetensors")
    small = {"images.image_size": 64, "backbone.architecture": "test_resnet", "backbone.weights": str(weights)}
    small |= {"backbone.output_stride": 16, "training.epochs": 1}
    make_project(folder, copy=True, changes={f"dataset.oxford_pet.{name}": value for name, value in small.items()})
    path = folder / "pipeline/run/settings.py"
    path.write_text(f"{path.read_text()}\n\n{SERVED.format(sources=site, counts=COUNTS)}")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "start")):
        run(folder, "git", *words)
    recipe = re.search(r"^photos:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    commands = [line.removeprefix("\t@.venv/bin/").replace("'", "") for line in recipe.splitlines()]
    (folder / "output").write_text("".join(run(folder, *command.split()) for command in commands))
    return folder


def test_the_plan_is_printed_before_anything_is_downloaded(project):
    output = (project / "output").read_text()
    assert output.index("oxford_pet: 42 images; download") < output.index("Running stage 'prepare@oxford_pet'")


def test_tables_pictures_and_pages_are_about_the_pets(project):
    tables = project / "reports/tables"
    for name in ("table1", "table2", "what_the_method_does"):
        assert set(pd.read_csv(tables / f"{name}.csv")["dataset"]) == {"oxford_pet"}
    scores = pd.read_csv(tables / "faithfulness.csv")
    assert {"iou", "pointing_game", "average_drop_100"} <= set(scores["metric"])  # the trimaps are masks
    assert not scores["metric"].str.contains("part").any()  # no part of a photograph can be left out
    assert (project / "reports/figures/overview_oxford_pet.png").is_file()
    page = (project / "reports/html/index.html").read_text()
    assert "oxford_pet" in page
    assert "painted" not in page


def test_the_embedded_results_come_back(project):
    run(project, "git", "checkout", "-q", ".")
    assert "painted_birds" in (project / "params.yaml").read_text()
