"""The stages that train columns: data, streaming, and errors."""

import numpy as np
import pandas as pd

from bla.method import streaming


def test_non_finite_features_stop_the_training(here, save_random_features, end_of):
    save_random_features(here, scale=np.nan)
    message = end_of("baseline", "painted_birds")
    assert message.startswith("error in baseline painted_birds: params.yaml: dataset.painted_birds: bl: ")
    assert "the features of 40 of 40 training images are NaN or infinite: numbers 0, 1, 2, 3, 4 and 35 more" in message
    assert message.endswith("their file is damaged: delete it and extract the features again")
    assert not (here / "models").exists()


def test_more_cells_than_the_map_has_are_refused(here, save_random_features, edit_params, end_of, contents):
    save_random_features(here)
    assert end_of("baseline", "painted_birds") is None
    edit_params(here, {"variant.l2x_f.k": 5})
    before = contents(here / "models")
    message = end_of("train_variant", "painted_birds", "l2x_f")
    assert message.startswith("error in train_variant painted_birds l2x_f: params.yaml: variant.l2x_f.k: ")
    assert contents(here / "models") == before


def test_heads_with_another_number_of_runs_are_refused(here, save_random_features, edit_params, end_of):
    save_random_features(here)
    assert end_of("baseline", "painted_birds") is None
    edit_params(here, {"runs": 3})
    message = end_of("train_variant", "painted_birds", "bla")
    assert "models/heads/painted_birds.safetensors" in message
    assert message.endswith("run dvc repro baseline@painted_birds")
    assert not (here / "models/learned/painted_birds/bla.safetensors").exists()


def test_stages_can_train_with_only_some_features_in_memory(
    here, save_random_features, edit_params, end_of, monkeypatch
):
    """The stages stream features only if `images_in_memory` is set."""
    save_random_features(here)
    sizes, tables = [], {}
    pools = streaming.pools

    def watched(*arguments):
        for pool in pools(*arguments):
            sizes.append(len(pool.labels))
            yield pool

    monkeypatch.setattr("bla.method.group.pools", watched)  # nothing else shows how much is in memory
    section = "dataset.painted_birds.training"
    for limit in (None, 8):
        edit_params(here, {f"{section}.images_in_memory": limit, f"{section}.batch_size": 4})
        sizes.clear()
        assert end_of("baseline", "painted_birds") is None
        assert end_of("train_variant", "painted_birds", "bla_t") is None
        assert set(sizes) == {limit // 2 if limit else 40}  # while one pool is used, the next is read
        tables[limit] = pd.concat(pd.read_csv(f"data/evaluation/painted_birds/{v}.csv") for v in ("bl", "bla_t"))
    assert tables[8]["run"].tolist() == tables[None]["run"].tolist() == [0, 1, 0, 1]
    assert tables[8]["loss"].tolist() != tables[None]["loss"].tolist()  # another shuffle
