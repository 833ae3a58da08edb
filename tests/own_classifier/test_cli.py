"""The command line does what its help says; bad input is one message and exit code 1."""

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from own_classifier.conftest import trained
from wrong_arrays import TOO_LARGE

import bla
from bla import cli

MODEL = "from own_classifier.conftest import TRANSFORM as transform, trained as build"


@pytest.fixture
def site(photos, tmp_path, monkeypatch):
    """A working directory with photographs, labels, and a Python file with the small classifier."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "labels.txt").write_text("cat\ndog\nowl\n")
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def command(capsys, monkeypatch):
    """`command("explain photo.jpg ...")` runs `bla` here: exit code, stdout, stderr."""

    def run(line, classifier="--model model.py --labels labels.txt"):
        monkeypatch.setattr(sys, "argv", ["bla", *line.split(), *classifier.split()])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_explain_a_folder(site, command):
    code, out, err = command("explain photos --methods cam,random -o out")
    assert (code, err) == (0, "")
    assert "dog/2.png: " in out
    assert "out: contact_sheet_1.png" in out
    manifest = json.loads((site / "out/manifest.json").read_text())
    assert manifest["labels"] == ["cat", "dog", "owl"]
    assert list(manifest["methods"]) == ["cam", "random"]
    assert (site / "out/contact_sheet_1.png").stat().st_size > 1000


def test_fit_then_explain_with_the_module(site, command):
    code, out, err = command("fit photos --test photos --runs 2 --epochs 1 --methods bla_ph,l_cam_fm -o modules")
    assert (code, err) == (0, "")
    assert "accuracy on 6 photographs, and number of explained cells, of 15" in out
    assert {path.name for path in (site / "modules").iterdir()} == {"bla_ph.safetensors", "l_cam_fm.safetensors"}
    code, out, _ = command("explain photos/cat/0.png --modules modules --methods bla_ph,cam -o out")
    assert code == 0
    assert np.load(site / "out/runs/bla_ph/0.png.npy").shape == (2, 3, 5)


def test_compare_and_score(site, command):
    code, out, err = command("compare photos --methods cam,random --no-curves -o compared")
    assert (code, err) == (0, "")
    assert "average drop, 50 %" in out
    scores = pd.read_csv(site / "compared/scores.csv")
    assert set(scores["method"]) == {"cam", "random"}
    code, out, err = command("score photos --maps compared/maps/cam --methods random --no-curves -o scored")
    assert (code, err) == (0, "")
    theirs = pd.read_csv(site / "scored/scores.csv")
    both = theirs.merge(scores, on=["method", "metric", "image"])
    assert len(both) == len(theirs)
    assert np.allclose(both["value_x"], both["value_y"])


def test_score_without_ours(site, command):
    command("explain photos --methods cam -o explained")
    code, out, _ = command("score photos --maps explained/maps/cam --methods= --no-curves -o scored")
    assert code == 0
    assert "contact_sheet" not in out
    assert set(pd.read_csv(site / "scored/scores.csv")["method"]) == {"cam"}


def test_plan_and_methods(site, command):
    code, out, err = command("plan photos")
    assert (code, err) == (0, "")
    assert out.startswith("6 photographs;")
    assert any(line.split()[:2] == ["lime", "1000"] for line in out.splitlines())
    code, out, _ = command("methods", "")
    assert code == 0
    assert "bla_ph  (bla fit first)" in out
    assert "Ribeiro et al. 2016" in out
    assert "settings: patterns=1000, patterns_of=dataset, presence=0.5" in out


def test_settings_of_methods_are_changed(site, command):
    code, out, err = command(
        "plan photos --methods lime,rise --set lime.patterns=170 --set rise.masks=80 --set lime.output=logit"
    )
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["lime", "170"], ["rise", "80"]]
    code, out, err = command("plan photos --set rise.masks=80")  # beside all that suit the classifier
    assert ["rise", "80"] in [line.split()[:2] for line in out.splitlines()]
    assert command("fit photos --epochs 1 --runs 1 --set bla_ph.temperature=0.3 -o modules")[0] == 0
    assert bla.load_fitted(site / "modules/bla_ph.safetensors").method.settings.temperature == 0.3
    code, _, err = command("explain photos --methods bla_ph --modules modules --set bla_ph.temperature=1 -o out")
    assert code == 1
    assert "or is fitted: then bla fit takes its settings" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lime.patterns", "--set lime.patterns: must be METHOD.SETTING=VALUE"),
        ("patterns=3", "--set patterns=3: must be METHOD.SETTING=VALUE"),
        ("rise.masks=3", "--set rise.masks=3: rise is not among --methods"),
        ("lime.pattern=100", "lime: pattern: "),
        ("lime.patterns=many", "lime: patterns: "),
        ("lime.presence=7", "lime: presence: "),
    ],
)
def test_a_wrong_setting_is_one_message(site, command, change, message):
    code, out, err = command(f"explain photos --methods lime --set {change} -o out")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert not (site / "out").exists()


WRONG = {
    "explain nothing.jpg -o out": "nothing.jpg: no such image",
    "explain photos --methods cma -o out": "no explanation method cma",
    "explain photos --methods bla_ph -o out": "bla_ph must be fitted",
    "explain photos --methods bla_ph --modules photos -o out": "run bla fit",
    "explain photos --target cow -o out": "no class cow",
    "explain photos --size 0 -o out": "--size: must be pixels",
    "explain photos --size 20000 -o out": "--size: 20000: at most 4,096 pixels a side",
    "explain photos --size 224x5000 -o out": "--size: 224x5000: at most 4,096 pixels a side",
    "explain photos --size 224 --resize 9999 -o out": "--resize: 9999: at most 4,096 pixels a side",
    "explain photos --scores hardmax -o out": "--scores: must be softmax or sigmoid",
    "explain photos --weights none.pth -o out": "none.pth: no such file",
    "explain photos -o photos": "--output photos: exists",
    "fit photos/cat -o out": "only photographs of cat; name the folder that holds a folder for each class",
    "fit photos --methods cam -o out": "cam needs no fitting",
    "fit photos --test nowhere -o out": "nowhere: no such image or folder",
    "explain photos -o labels.txt/out": "--output labels.txt/out: cannot be written",
    "fit photos -o labels.txt/a/b": "--output labels.txt/a/b: cannot be written",
    "score photos --maps photos -o out": "no map of cat/0.png",
    "explain photos --methods , -o out": "--methods: name at least one",
    "fit photos --test photos --methods , -o out": "--methods: name at least one",
    "plan nowhere": "nowhere: no such image or folder",
    "plan photos --methods cam,cma": "no explanation method cma",
}


@pytest.mark.parametrize("line", WRONG)
def test_bad_input_is_one_message_and_writes_nothing(site, command, line):
    code, out, err = command(line)
    assert code == 1
    assert err.startswith("error: ")
    assert WRONG[line] in err
    assert "Traceback" not in err + out
    assert not (site / "out").exists()


def test_the_default_methods_suit_a_classifier_without_a_linear_head(site, command):
    (site / "model.py").write_text(
        MODEL.replace("trained as build", "NormalisedNet, trained\ndef build(): return trained(NormalisedNet)")
    )
    assert command("explain photos -o out")[0] == 0
    assert command("compare photos --no-curves -o compared")[0] == 0
    assert command("explain photos --methods cam -o other")[0] == 1


def test_what_is_fitted_outlives_an_error_of_the_next_method(site, command):
    code, out, err = command("fit photos --runs 1 --epochs 1 --methods bla_ph,bla_t,xnn -o modules")
    assert (code, out) == (1, "modules/bla_ph.safetensors\nmodules/bla_t.safetensors\n")
    assert err == "error: 6 training images are too few: XNN needs 10, to hold some out\n"
    assert command("explain photos --modules modules --methods bla_ph,bla_t -o out")[0] == 0


def test_fit_checks_all_methods_before_it_trains(site, command, monkeypatch):
    (site / "model.py").write_text(
        MODEL.replace("trained as build", "NormalisedNet, trained\ndef build(): return trained(NormalisedNet)")
    )
    monkeypatch.setattr("bla.extract_features", None)
    for methods, message in (
        ("bla_ph,bla_t", "use bla_ph"),
        ("bla_ph,cam", "cam needs no"),
        ("bla_ph,cma", "no explanation"),
    ):
        code, _, err = command(f"fit photos --methods {methods} -o out")
        assert code == 1
        assert message in err


def test_a_full_disk_is_one_message(site, command, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("bla.own_classifier.record.save_text", full)
    code, _, err = command("explain photos --methods cam -o new/out")
    assert code == 1
    assert err == "error: [Errno 28] No space left on device: 'new/out/explanations.csv'\n"


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


OTHERS = {
    "GPU": raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has")),
    "C++": raising(RuntimeError("std::bad_alloc")),
    "system": raising(OSError(errno.ENOMEM, "Cannot allocate memory")),
    "loader": raising(ImportError("libtorch_cpu.so: failed to map segment from shared object")),
}
"""What cannot be made to happen here: on a GPU, in C++, at a memory map, at an import."""


@pytest.mark.parametrize("what", TOO_LARGE | OTHERS)
def test_too_little_memory_is_one_message(what, site, command, monkeypatch):
    fail = (TOO_LARGE | OTHERS)[what]
    monkeypatch.setattr(bla, "explain", lambda *_, **__: fail())
    code, out, err = command("explain photos --methods cam -o out")
    assert (code, out) == (1, "")
    assert err.startswith("error: too little memory (")
    assert err.endswith("); close other programs, or give fewer photographs, and run again\n")
    assert err.count("\n") == 1
    assert not (site / "out").exists()


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ImportError("no such name"), ValueError("memory")])
def test_a_bug_shows_its_traceback(error, site, command, monkeypatch):
    monkeypatch.setattr(bla, "explain", raising(error))
    with pytest.raises(type(error), match=str(error)):
        command("explain photos --methods cam -o out")


def test_score_checks_the_maps_before_it_explains(site, command, monkeypatch):
    monkeypatch.setattr("bla.own_classifier.scoring.explain", None)
    (site / "cam").mkdir()
    for line, message in (
        ("photos --maps photos", "no map of cat/0.png"),
        ("photos --maps cam --methods cam", "cam: we have"),
    ):
        code, _, err = command(f"score {line} -o out")
        assert code == 1
        assert message in err


def test_wrong_usage_has_exit_code_two(site, command):
    for line in ("explain photos --colour red -o out", "explain photos", "explode"):
        code, _, err = command(line)
        assert code == 2
        assert "Traceback" not in err


@pytest.mark.parametrize("setting", ["--learning-rate 1e300", "--epochs 10001", "--runs 1001"])
def test_a_setting_of_fit_above_its_bound_is_wrong_usage(setting, site, command):
    code, _, err = command(f"fit photos {setting} -o out")
    assert code == 2
    assert f"Invalid value for '{setting.split()[0]}'" in err
    assert not (site / "out").exists()


def test_random_weights_are_refused(site, command):
    code, _, err = command("explain photos -o out", "--model torchvision/resnet18")
    assert code == 1
    assert "--weights: name the file" in err


def test_labels_must_be_as_many_as_classes(site, command):
    (site / "labels.txt").write_text("cat\ndog\n")
    code, _, err = command("explain photos -o out")
    assert code == 1
    assert "labels: 2 labels for a classifier of 3 classes" in err


def test_weights_with_a_prefix(site, command):
    torch.save({"state_dict": {f"module.{name}": value for name, value in trained().state_dict().items()}}, "w.pth")
    assert command("explain photos --weights w.pth -o out")[0] == 0


@pytest.mark.parametrize("name", ["explain", "fit", "compare", "score", "plan"])
def test_the_help_has_an_example_and_explains_every_option(command, name):
    code, out, _ = command(f"{name} --help", "")
    assert code == 0
    assert "photographs" in out.lower()
    assert name == "plan" or f"bla {name} " in out.replace("\n", " ")
    assert not re.search(r"--[\w-]+( <[^>]+>)?\s+\[", out)  # no sentence between an option and its default


@pytest.mark.slow
def test_the_help_loads_no_heavy_library_and_needs_no_display(tmp_path):
    code = "import sys; sys.argv = ['bla', '--help']\nfrom bla.cli import main\ntry: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment | {"PYTHONPATH": "src"}, check=False)
    assert done.returncode == 0
