"""The stage `features`: clean and noisy feature maps."""

import itertools
from pathlib import Path

import numpy as np

from pipeline.artifacts.arrays import load_array

FEATURES = Path("data/features/painted_birds")


def test_draws_of_the_training_features_differ_and_test_features_are_clean(extractable, end_of, edit_params, contents):
    assert end_of("features", "painted_birds") is None
    clean = contents(FEATURES)
    rows, columns, channels = load_array(FEATURES / "test_features.npy").shape[1:]
    assert (rows, columns) == (4, 4)
    assert load_array(FEATURES / "train_features.npy").shape == (1, 40, 4, 4, channels)
    noise = {"stochastic_depth": 0.2, "draws": 5}
    edit_params(extractable, {f"dataset.painted_birds.backbone.{name}": value for name, value in noise.items()})
    assert end_of("features", "painted_birds") is None
    noisy = contents(FEATURES)
    train = load_array(FEATURES / "train_features.npy")
    assert (train.shape, train.dtype) == ((5, 40, 4, 4, channels), np.float16)
    for one, other in itertools.combinations(train, 2):
        assert (one != other).any((1, 2, 3)).sum() > 10
    changed = {name for name in clean if clean[name] != noisy[name]}
    assert (clean.keys(), changed) == (noisy.keys(), {"train_features.npy"})
    assert not list(Path(".work").glob("features-*"))
