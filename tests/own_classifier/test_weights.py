"""Weights from files: prefixes are removed, files with code are refused with a line that converts them."""

import shlex
import subprocess
import sys
import tarfile

import pytest
import torch
from own_classifier.conftest import trained
from safetensors.torch import load_file, save_file
from torch import nn

import bla
from bla.base.errors import BlaError
from bla.own_classifier.named import load_classifier, read_labels

PREFIXES = ("", "module.", "model.module.", "_orig_mod.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model"])
def test_prefixes_and_checkpoints(tmp_path, prefix, wrapped):
    state = {prefix + name: value for name, value in trained().state_dict().items()}
    torch.save(state if wrapped == "plain" else {wrapped: state, "epoch": 3}, tmp_path / "w.pth")
    model = trained()
    nn.init.zeros_(model.head.weight)
    bla.load_weights(model, bla.read_weights(tmp_path / "w.pth"), tmp_path / "w.pth")
    assert torch.equal(model.head.weight, trained().head.weight)


@pytest.mark.parametrize("name", ["whole", "it's", "$(touch PWNED)", 'a "b" `touch PWNED`'])
def test_a_file_with_code_is_refused_and_the_line_converts_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{name}.pth"
    torch.save(nn.Sequential(nn.Linear(3, 2)), path)
    with pytest.raises(BlaError, match="holds more than weights") as error:
        bla.read_weights(path)
    line = str(error.value).splitlines()[-1].strip().replace("python", sys.executable, 1)
    subprocess.run(line, shell=True, check=True)
    assert load_file(tmp_path / f"{name}.safetensors")["0.weight"].shape == (2, 3)
    assert not (tmp_path / "PWNED").exists()


def test_damaged_missing_and_misfitting_files(tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello world\n")
    for name in ("bad.pth", "bad.safetensors", "list.pth", "missing.pth", "empty.pth", "text.pth"):
        with pytest.raises(BlaError, match=name):
            bla.read_weights(tmp_path / name)
    state = trained().state_dict()
    for wrong in (
        {**state, "head.weight": torch.zeros(4, 8)},
        {**state, "more": torch.zeros(1)},
        {"a": torch.zeros(1)},
    ):
        with pytest.raises(BlaError, match="does not fit"):
            bla.load_weights(trained(), wrong, tmp_path / "w.pth")


def test_the_path_may_be_a_text(tmp_path):
    for name, save in (("w.pth", torch.save), ("w.safetensors", save_file)):
        save({"a": torch.ones(2)}, tmp_path / name)
        assert bla.read_weights(str(tmp_path / name))["a"].tolist() == [1, 1]


NEITHER = "neither safetensors nor torch.save (pickle protocol 2 or later) wrote it; name a file that one of them wrote"
OTHER_FILES = {
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JSON object": b'{"a": [1.0]}',
    "JSON list": b"[1.0]",
    "JSON of objects": b'{"a":  [{"b": 1}]}',
    "text": b"hello world\n",
    "number": b"12345\n",
    "CSV": b"a,b\n1,2\n",
    "YAML": b"a: 1\nb: 2\n",
    "HTML": b"<!DOCTYPE html>\n<html></html>\n",
    "tar": tarfile.TarInfo("w").tobuf() + bytes(1024),
    "pickle of protocol 0": b"(dp0\nVa\np1\n(lp2\nF1.0\nas.",
    "empty": b"",
}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_file_of_another_kind_gets_no_line_that_converts_it(content, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BlaError) as error:
        bla.read_weights(path)
    assert str(error.value) == f"{path}: {NEITHER}"


@pytest.mark.parametrize("name", ["w.safetensors", "w.SAFETENSORS", "w.pth", "w.bin", "w"])
@pytest.mark.parametrize("padding", range(0, 256, 8))  # a header of 128 bytes begins like a pickle
def test_safetensors_and_torch_are_told_apart_whatever_the_name(name, padding, tmp_path):
    state = {"a" * (1 + padding): torch.tensor([1.0, 2.0])}
    for save in (save_file, torch.save):
        save(state, tmp_path / name)
        if save == torch.save and name.lower().endswith(".safetensors"):
            with pytest.raises(BlaError, match=rf"{name}: was written by torch\.save; rename it to w\.pth$"):
                bla.read_weights(tmp_path / name)
            continue
        ((found, values),) = bla.read_weights(tmp_path / name).items()
        assert (found, values.tolist()) == ("a" * (1 + padding), [1, 2])


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("length", [9, 40, -1])
def test_a_cut_file_of_safetensors_is_not_readable(name, length, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "whole")
    (tmp_path / name).write_bytes((tmp_path / "whole").read_bytes()[:length])
    with pytest.raises(BlaError, match=rf"{name}: not a readable file of weights \(SafetensorError: .*; save "):
        bla.read_weights(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("options", [{}, {"pickle_protocol": 4}])
@pytest.mark.parametrize("kind", ["model", "weights"])
def test_a_file_with_code_of_an_old_version_gets_the_line_that_converts_it(kind, options, tmp_path):
    path, model = tmp_path / "old.pth", nn.Linear(3, 2)
    torch.save(model if kind == "model" else model.state_dict(), path, _use_new_zipfile_serialization=False, **options)
    assert path.read_bytes()[:1] == b"\x80"
    if kind == "weights" and not options:
        assert torch.equal(bla.read_weights(path)["weight"], model.weight)
        return
    with pytest.raises(BlaError, match=r"holds more than weights.*\n  python -c") as error:
        bla.read_weights(path)
    code = shlex.split(str(error.value).splitlines()[-1])[-1]
    exec(code, {})
    assert torch.equal(load_file(tmp_path / "old.safetensors")["weight"], model.weight)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("saved", [nn.Linear(3, 2), {"weight": torch.ones(2)}])
def test_a_file_of_the_first_pickle_protocols_gets_no_line_that_converts_it(saved, protocol, tmp_path):
    path = tmp_path / "old.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    assert path.read_bytes()[:1] == b"L"
    with pytest.raises(BlaError) as error:
        bla.read_weights(path)
    assert str(error.value) == f"{path}: {NEITHER}"


def test_classes_are_those_of_the_labels_or_of_the_weights(tmp_path):
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), tmp_path / "w.safetensors")
    own = load_classifier("test_resnet", tmp_path / "w.safetensors", size="64x96", resize="70x100")
    assert own.labels == tuple("01234")
    assert own.preparation.size == (64, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "64by96"}, "--size"),
        ({"resize": "70"}, "--resize"),
        ({"size": "64", "mean": "0.5,0.5"}, "--mean"),
        ({"size": "64", "std": "1,1,0"}, "--std"),
        ({"size": "64", "mean": "nan,0,0"}, "--mean"),
        ({"size": "64", "mean": "123.7,116.3,103.5"}, "--mean.*divide"),
        ({"scores": "logits"}, "--scores"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    model = tmp_path / "model.py"
    model.write_text("from own_classifier.conftest import TRANSFORM as transform, trained as build")
    with pytest.raises(BlaError, match=f"^{message}"):
        load_classifier(str(model), **options)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "x = 1", "must define build"),
        ("a.py", "def build(): return 3", "not a torch module"),
        ("a.py", "import nothing_of_this_name", "it fails .ModuleNotFoundError"),
        ("a.py", "import sys; sys.exit(3)", "it fails .SystemExit: 3"),
        ("a.py", None, "no such file"),
        ("torchvision/resnet19", None, "resnet19"),
        ("torchvision/raft_large", None, "no classifier raft_large"),
        ("torchvision/fcn_resnet50", None, "no classifier fcn_resnet50"),
        ("local-dir:nowhere", None, "--model local-dir:nowhere"),
        ("resnet_of_nobody", None, "resnet_of_nobody"),
    ],
)
def test_unknown_models(tmp_path, name, text, message):
    path = tmp_path / name
    if text:
        path.write_text(text)
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(BlaError, match=message):
        load_classifier(str(path) if name.endswith(".py") else name, tmp_path / "w.safetensors")


def test_a_model_file_may_import_the_files_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "beside_it.py").write_text("from own_classifier.conftest import TRANSFORM, trained")
    (tmp_path / "model.py").write_text("from beside_it import TRANSFORM as transform, trained as build")
    assert load_classifier(str(tmp_path / "model.py")).grid == (3, 5)


def test_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("cat\n\n dog \n")
    assert read_labels(path) == ["cat", "dog"]
    path.write_bytes("\ufeffcat\r\ndog\r\n".encode())  # as Windows saves it, with a byte order mark
    assert read_labels(path) == ["cat", "dog"]
    for content, message in (
        (b"", "no labels"),
        (b"a\na\n", "a is listed twice"),
        (b"\xff\xfe", "not a readable text"),
    ):
        path.write_bytes(content)
        with pytest.raises(BlaError, match=message):
            read_labels(path)
