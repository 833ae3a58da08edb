"""Cache keys: no edit leaves an outdated result in use, and undoing the edit finds the earlier result again."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bla.runtime import cache
from bla.runtime.cache import cache_key, cached, cached_table, content_hash, is_cached
from bla.runtime.imports import closure, name_of

ROOT = Path(__file__).parents[2]
EDIT = "\nEDITED = True\n"


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the code, and `keyed(stage, *methods)`: the key of the stage's work in this copy."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("src", "pipeline"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    packages = {"bla": folder / "src/bla", "pipeline": folder / "pipeline"}

    def keyed(stage, *methods):
        work = [
            folder / f"pipeline/stages/{stage}.py",
            *(packages["bla"] / f"explainers/{name}.py" for name in methods),
        ]
        return cache_key(work, {}, [], packages=packages)

    return folder, packages, keyed


def key_after_edit(copied, name, *work):
    """The key while a file has an additional line; afterwards the file is restored."""
    _, packages, keyed = copied
    package, _, rest = name.partition("/")
    path = packages[package] / rest
    text, before = path.read_text(), keyed(*work)
    path.write_text(text + EDIT)
    after = keyed(*work)
    path.write_text(text)
    assert keyed(*work) == before, "undoing the edit does not lead back to the key"
    return before, after


CACHING = ("backbone", "features", "lime", "maps", "prepare", "temperature_threshold", "unstated_choices")
"""The stages that cache parts of their work."""


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage == "features" else pytest.mark.slow) for stage in CACHING]
)
def test_an_edit_of_any_module_of_the_closure_changes_the_key(stage, copied):
    folder, packages, _ = copied
    start = folder / f"pipeline/stages/{stage}.py"
    names = [name_of(path, packages) for path in closure([start], False, packages)]
    assert len(names) > 10
    for name in names:
        before, after = key_after_edit(copied, name, stage)
        assert before != after, name


def test_indirectly_used_modules_are_in_the_keys(copied):
    for stage, names in {
        "temperature_threshold": ("adam", "streaming", "threads", "seeds", "patches", "localisation"),
        "unstated_choices": ("adam", "streaming", "threads", "seeds"),
        "maps": ("method_maps", "seeds", "randomisation", "interface"),
    }.items():
        reached = {path.stem for path in closure([ROOT / f"pipeline/stages/{stage}.py"], False)}
        assert set(names) <= reached, stage


@pytest.mark.parametrize(
    ("method", "edited", "changes"),
    [
        ("posthoc/cam", "bla/explainers/posthoc/cam.py", True),
        ("posthoc/rise", "bla/explainers/posthoc/rise.py", True),
        ("controls/edges", "bla/explainers/posthoc/rise.py", False),
        ("controls/edges", "bla/explainers/controls/centre.py", False),
        ("learned/attention", "bla/explainers/learned/attention.py", True),
        ("controls/edges", "bla/metrics/randomisation.py", True),
        ("controls/edges", "bla/metrics/curves.py", False),
        ("controls/edges", "bla/base/specs.py", False),
    ],
)
def test_the_key_of_a_method_depends_on_its_file_and_no_other_method(method, edited, changes, copied):
    before, after = key_after_edit(copied, edited, "maps", method)
    assert (before != after) == changes


def test_a_new_import_of_a_method_changes_its_key(copied):
    _, packages, keyed = copied
    method, helper = packages["bla"] / "explainers/controls/edges.py", packages["bla"] / "explainers/helper_of_edges.py"
    text = method.read_text()
    helper.write_text("x = 1\n")
    method.write_text(text + "\n\ndef late():\n    from bla.explainers import helper_of_edges\n")
    first = keyed("maps", "controls/edges")
    helper.write_text("x = 2\n")
    assert keyed("maps", "controls/edges") != first
    method.write_text(text)
    helper.unlink()


@dataclass
class Spec:
    a: float
    b: tuple[int, ...] = ()


HERE = [Path(cache.__file__)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ([1, 2], [2, 1]),
        (Spec(0.1), Spec(0.2)),
        (Spec(0.1, (1,)), Spec(0.1, (2,))),
        ([None], ["None"]),
        ([1], [1.5]),
        ([[1], [2]], [[1, 2]]),
        ("", []),
    ],
)
def test_other_settings_change_the_key(one, other):
    assert cache_key(HERE, one, []) == cache_key(HERE, one, [])
    assert cache_key(HERE, one, []) != cache_key(HERE, other, [])


def test_settings_that_are_not_json_are_an_error():
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        cache_key(HERE, {"a": object()}, [])


def test_the_order_of_named_settings_does_not_matter():
    assert cache_key(HERE, {"a": 1, "b": 2}, []) == cache_key(HERE, {"b": 2, "a": 1}, [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(3), np.ones(3)),
        (np.zeros(4), np.zeros((2, 2))),
        (np.zeros(2, np.float32), np.zeros(2, np.int32)),
        (torch.zeros(3), torch.ones(3)),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (np.array(1), np.array([1])),
    ],
)
def test_other_data_change_the_key(one, other):
    assert cache_key(HERE, {}, [one]) != cache_key(HERE, {}, [other])


def test_the_key_depends_on_the_content_of_a_file_and_not_its_time(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    first = cache_key(HERE, {}, [path])
    path.write_text("two")
    assert cache_key(HERE, {}, [path]) != first
    path.write_text("one")
    assert cache_key(HERE, {}, [path]) == first


def test_a_strided_array_has_the_hash_of_its_copy():
    values = np.arange(12).reshape(3, 4)
    assert content_hash(values.T) == content_hash(values.T.copy())
    assert content_hash(torch.from_numpy(values)) == content_hash(values)


def test_another_version_of_a_library_changes_the_key(monkeypatch):
    first = cache_key(HERE, {}, [])
    monkeypatch.setattr(cache, "version", lambda name: "0")
    assert cache_key(HERE, {}, []) != first


def test_another_number_of_threads_changes_the_key():
    first, threads = cache_key(HERE, {}, []), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert cache_key(HERE, {}, []) != first
    torch.set_num_threads(threads)
    assert cache_key(HERE, {}, []) == first


# What is stored


@pytest.fixture
def made():
    """`make()` returns arrays of all kinds; `make.calls` counts."""

    def make():
        make.calls += 1
        return {
            "floats": np.array([[0.1, np.nan], [np.inf, -0.0]]),
            "half": np.arange(3, dtype=np.float16),
            "yes": np.array([True, False]),
            "scalar": np.array(7),
            "strided": np.arange(6.0).reshape(2, 3).T,
            "empty": np.zeros((0, 4)),
        }

    make.calls = 0
    return make


def test_arrays_are_computed_once_and_restored_unchanged(made, tmp_path):
    first, again = cached(tmp_path, "a", "0" * 16, made), cached(tmp_path, "a", "0" * 16, made)
    assert made.calls == 1
    for name, values in made().items():
        for other in (first[name], again[name]):
            assert (other.dtype, other.shape) == (values.dtype, values.shape)
            np.testing.assert_array_equal(other, values)


def test_another_key_recomputes_and_removes_the_old_result_of_the_name(made, tmp_path):
    for number in range(3):
        cached(tmp_path, "a", f"{number:016x}", made)
    cached(tmp_path, "a-b", "0" * 16, made)
    assert made.calls == 4
    assert {path.name for path in tmp_path.iterdir()} == {f"a-{2:016x}.safetensors", f"a-b-{0:016x}.safetensors"}
    assert is_cached(tmp_path, "a", f"{2:016x}")
    assert not is_cached(tmp_path, "a", f"{1:016x}")


@pytest.mark.parametrize("damage", ["empty", "cut", "one bit", "another file"])
def test_a_damaged_file_is_reported_and_recomputed(damage, made, tmp_path, capsys):
    path = tmp_path / f"a-{0:016x}.safetensors"
    good = cached(tmp_path, "a", "0" * 16, made)
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage == "another file":
        from safetensors.numpy import save_file

        save_file({"floats": np.zeros(2)}, path)
    else:
        path.write_bytes(content[: 0 if damage == "empty" else -9])
    again = cached(tmp_path, "a", "0" * 16, made)
    assert made.calls == 2
    assert path.name in capsys.readouterr().out
    assert again.keys() == good.keys()
    cached(tmp_path, "a", "0" * 16, made)
    assert made.calls == 2


def test_an_error_keeps_the_result_stored_under_another_key(made, tmp_path):
    cached(tmp_path, "a", "0" * 16, made)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "a", "1" * 16, fail)
    assert [path.name for path in tmp_path.iterdir()] == [f"a-{0:016x}.safetensors"]


@given(
    floats=st.lists(st.floats(width=64), min_size=1, max_size=5),
    texts=st.lists(st.text(), min_size=5, max_size=5),
)
def test_a_table_is_restored_to_the_last_bit(floats, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    table = pd.DataFrame({"z": floats, "a": range(len(floats)), "text, with comma": texts[: len(floats)]})
    table["yes"] = table["a"] > 1
    for _ in range(2):
        again = cached_table(folder, "t", "0" * 16, lambda: table)
        pd.testing.assert_frame_equal(again, table, check_exact=True, check_dtype=False)
        assert again["z"].to_numpy().tobytes() == table["z"].to_numpy().tobytes()
