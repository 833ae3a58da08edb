"""Streaming of features: rows read, their order, and memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bla.base.specs import BoundedLogits, ConceptVector, NoExplanation, Schedule
from bla.method import streaming
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.modules import Head
from bla.method.streaming import block_order, block_rows, pools
from bla.method.training import train

CPU = torch.device("cpu")
BLA_T = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98)
NONE = NoExplanation(explanation="none")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def numbered(draws, images):
    """Features that encode draw and image."""
    return (torch.arange(draws)[:, None] * 1000 + torch.arange(images)).float().view(draws, images, 1, 1)


@given(st.integers(1, 60), st.integers(1, 50), st.integers(1, 9), st.integers(1, 7), st.integers(0, 2))
def test_a_run_sees_every_image_of_its_draw_once_and_only_the_last_batch_is_short(images, limit, batch, block, draw):
    features, labels, seen, sizes = numbered(3, images), torch.arange(images) % 7, [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "block_rows", lambda features: block)
        for pool in pools(features, labels, torch.tensor([draw]), generators(1), limit, batch, CPU):
            assert 2 * len(pool.labels) <= max(limit, 2 * batch)  # this one, and the next
            for order in pool.orders[0].split(batch):
                sizes.append(len(order))
                found = pool.features[pool.draw[0], order, 0, 0]
                assert torch.equal(pool.labels[order], labels[found.long() % 1000])
                seen += found.tolist()
    assert sorted(seen) == [1000 * draw + image for image in range(images)]
    assert sizes == [batch] * (images // batch) + [images % batch] * (images % batch > 0)


def test_without_a_limit_a_pass_is_a_permutation_of_each_run_and_nothing_is_copied():
    features, labels = numbered(2, 50), torch.arange(50)
    (pool,) = pools(features, labels, torch.tensor([0, 1]), generators(5, 6), None, 8, CPU)
    assert pool.features is features
    assert torch.equal(pool.orders, torch.stack([torch.randperm(50, generator=g) for g in generators(5, 6)]))


def test_a_block_is_about_a_megabyte():
    assert block_rows(torch.empty(1, 1, 49, 1280, dtype=torch.float16)) == 8
    assert block_rows(torch.empty(1, 1, 49, 96, dtype=torch.float16)) == 111
    assert block_rows(torch.empty(1, 1, 1000, 1280, dtype=torch.float32)) == 1


def places(images, limit, batch, passes):
    """The position of each image in each pass, `[passes, images]`, for one run."""
    found = np.empty((passes, images), int)
    generator = torch.Generator().manual_seed(0)
    features = numbered(1, images)
    for epoch in range(passes):
        order = []
        for pool in pools(features, torch.zeros(images), torch.tensor([0]), [generator], limit, batch, CPU):
            order += pool.features[0, pool.orders[0], 0, 0].int().tolist()
        found[epoch, order] = range(images)
    return found


@pytest.mark.slow
def test_the_position_of_every_image_in_a_pass_is_uniform(monkeypatch):
    """A Kolmogorov-Smirnov test per image over 400 passes: for uniform positions the p-values are uniform."""
    monkeypatch.setattr(streaming, "block_rows", lambda features: 5)
    where = places(100, 20, 4, 400) / 100
    p = [stats.kstest(where[:, image] + 0.005, "uniform").pvalue for image in range(0, 100, 7)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert abs(where.mean(axis=0) - 0.495).max() < 4 * (1 / 12 / 400) ** 0.5


@pytest.mark.parametrize("block", [1, 4, 10])
def test_pools_of_images_sorted_by_class_are_cluster_samples(block):
    """The variance of a class's share in a pool is the block size times that in a simple random sample (Kish 1965)."""
    images, pool, classes, passes = 4000, 400, 10, 300
    of = np.arange(images) * classes // images
    shares = np.concatenate(
        [
            (of[block_order(images, block, g).view(-1, pool).numpy()] == 3).mean(axis=1)
            for g in generators(*range(passes))
        ]
    )
    simple = 0.1 * 0.9 / pool * (images - pool) / (images - 1)
    assert shares.mean() == pytest.approx(0.1)
    assert shares.var() == pytest.approx(block * simple, rel=0.1)


@pytest.fixture(scope="module")
def sorted_data():
    """Images sorted by class, as files often are; the class shows in one of the cells."""
    generator, images = torch.Generator().manual_seed(3), 2400
    labels = torch.arange(images) * 6 // images
    features = torch.rand(images, 9, 6, generator=generator)
    features[torch.arange(images), torch.randint(0, 9, (images,), generator=generator), labels] += 2
    return features.half(), labels


@pytest.mark.slow
@pytest.mark.parametrize("variant", [NONE, replace(BLA_T, threshold_factor=0)], ids=["bl", "bla"])
def test_streaming_biases_training_only_if_images_are_sorted_by_class(variant, sorted_data, monkeypatch):
    """Accuracy of 20 runs trained with streaming against 20 runs trained with full permutations."""
    features, labels = sorted_data
    seeds, head, schedule = (
        list(range(20)),
        initial_head(range(20), 6, 6),
        Schedule(batch_size=16, epochs=3, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7),
    )
    stored, mixed = torch.arange(len(labels)), torch.randperm(len(labels), generator=generators(9)[0])

    def accuracy(order, limit, block):
        monkeypatch.setattr(streaming, "block_rows", lambda features: block)
        own = replace(schedule, images_in_memory=limit)
        trained = train(features[None, order], labels[order], variant, head, seeds, own)
        return evaluate(features, labels, variant, trained, seeds).correct.double().mean(dim=1).numpy()

    resident = accuracy(mixed, None, 8)
    difference = accuracy(mixed, 480, 8) - resident
    reach = stats.t.ppf(0.975, 19) * difference.std(ddof=1) / 20**0.5
    assert abs(difference.mean()) < reach < 0.05
    assert accuracy(stored, 480, 8).mean() < resident.mean() - reach
    assert accuracy(stored, 400, 400).mean() < resident.mean() - 0.15


@pytest.mark.parametrize(
    "variant",
    [NONE, BLA_T, ConceptVector(explanation="concept_vector", head="trained", temperature=0.1, activation="linear")],
    ids=["bl", "bla_t", "concept"],
)
def test_a_run_streams_the_same_rows_alone_and_with_others(variant, sorted_data):
    features, labels = (part[::3] for part in sorted_data)
    features = torch.stack([features, features * 0.9])
    schedule, head = (
        Schedule(batch_size=16, epochs=2, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7, images_in_memory=200),
        initial_head([1, 2, 3], 6, 6),
    )
    together = train(features, labels, variant, head, [1, 2, 3], schedule, group=3)
    third = Head(head.weight[2:], head.bias[2:])
    alone = train(features, labels, variant, third, [3], schedule, first_epoch=2)  # run 2 reads draw 0 first
    assert torch.equal(together.losses[2:], alone.losses)
    assert torch.equal(together.head.weight[2:], alone.head.weight)


LIMITED = """
import re, resource, sys
from pathlib import Path
import numpy as np, torch
from bla.base.specs import BoundedLogits, NoExplanation, Schedule
from bla.method.modules import Head
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.training import train

path, variant, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
variant = NoExplanation(explanation="none") if variant == "bl" else BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98)
used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
try:
    np.load(path)
    sys.exit("the limit does not hold")
except MemoryError:
    pass
features = torch.from_numpy(np.load(path, mmap_mode="r"))
labels = torch.arange(features.shape[1]) % 2
head, schedule = initial_head([0], features.shape[3], 2), Schedule(batch_size=32, epochs=1, learning_rate=0.001, dropout=0.2, adam_epsilon=1e-7, images_in_memory=1024)
trained = train(features, labels, variant, head, [0], schedule)
result = evaluate(features[0], labels, variant, trained, [0])
print(result.correct.float().mean().item())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux: its limit on data leaves out mapped files"
)
@pytest.mark.parametrize("variant", ["bl", "bla_t"])
def test_training_and_evaluation_need_less_memory_than_the_features(variant, tmp_path):
    """A process limited to 268 MB beyond its libraries trains on features of 640 MB."""
    images, cells, channels = 12800, 49, 512
    rng, path = np.random.default_rng(0), tmp_path / "features.npy"
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (1, images, cells, channels)}
        np.lib.format.write_array_header_1_0(file, header)
        part = rng.random((256, cells, channels)).astype(np.float16)
        part[1::2, :, 0] += 3  # of the second class
        for _ in range(images // len(part)):
            file.write(part.data)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, str(path), variant, str(256 * 2**20)]
    done = subprocess.run(command, cwd=root / "src", capture_output=True, text=True)
    path.unlink()
    assert done.returncode == 0, done.stderr
    assert 0.4 < float(done.stdout) <= 1
