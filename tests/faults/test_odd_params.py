"""A params.yaml that PyYAML reads without an error, with a traceback, or not within minutes: one short message."""

import itertools
import os
import re
import time
from pathlib import Path

import pytest

from bla.base.errors import BlaError
from pipeline.run.settings import load_settings

TEXT = (Path(__file__).parents[2] / "params.yaml").read_text()


def message_for(text, folder):
    (folder / "params.yaml").write_text(text)
    with pytest.raises(BlaError) as error:
        load_settings(folder / "params.yaml")
    return str(error.value)


def with_seed(value):
    return TEXT.replace("\nseed: 0", f"\nseed: {value}", 1)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *[("9" * 5000, "int"), ("0x" + "f" * 5000, "int"), ("1:" * 40_000 + "1", "int"), ("1" * 4000 + ".5", "float")],
        *[("!!int 1:x", "int"), ("!!float 1:30,5", "float")],
        *[("2024-13-45", "timestamp"), ("2024-02-30", "timestamp")],
        *[(f"!!{kind} abc", kind) for kind in ("int", "float", "bool", "timestamp")],
    ],
)
def test_a_value_that_is_none_of_its_kind_is_named_with_its_line(value, kind, tmp_path):
    message = message_for(with_seed(value), tmp_path)
    line = TEXT[: TEXT.index("\nseed: 0")].count("\n") + 2
    assert f"params.yaml: not valid YAML: {value.removeprefix(f'!!{kind} ')[:50]!r} is no {kind}\n" in message
    assert f"line {line}, " in message


@pytest.mark.parametrize(
    ("value", "read"),
    [("1:30", "90"), ("-1:00", "-60"), ("1:30:00", "5400"), ("1:30.5", "90.5"), ("!!int 1:30", "90")],
)
def test_a_number_in_base_60_is_refused_with_what_yaml_reads(value, read, tmp_path):
    text = value.removeprefix("!!int ")
    message = message_for(with_seed(value), tmp_path)
    line = TEXT[: TEXT.index("\nseed: 0")].count("\n") + 2
    cause = f"params.yaml: not valid YAML: '{text}' is a number in base 60 (YAML reads {read})"
    assert f"{cause}; write {read} or '{text}' in quotes\n" in message
    assert f"line {line}, " in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (TEXT + "\nruns: 3\n", "runs"),
        (re.sub(r"^dataset:.*$", r"\g<0>\n  photos: {}", TEXT, count=1, flags=re.MULTILINE), "photos"),
        (with_seed("{a: 1, b: 2, a: 1}"), "a"),
    ],
)
def test_a_setting_that_is_set_twice_is_refused(text, key, tmp_path):
    assert f"params.yaml: not valid YAML: {key} is set twice" in message_for(text, tmp_path)


@pytest.mark.parametrize("place", ["seed", "runs", "gallery_images", "      kind"])
def test_aliases_that_stand_for_gigabytes_are_one_short_message(place, tmp_path):
    lists = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in itertools.pairwise("abcdefghijklmn"):
        lists += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    text = re.sub(rf"^{place}: \w+", f"{place}: *n", TEXT, count=1, flags=re.MULTILINE)
    message = message_for(lists + text, tmp_path)
    assert "values with all aliases are more than 100,000" in message
    assert len(message) < 200


@pytest.mark.parametrize("value", ["&a [*a]", "&a {b: *a}", "&a [1, &b [*a, *b]]"])
def test_an_alias_of_itself_is_refused(value, tmp_path):
    assert "nested too deeply" in message_for(with_seed(value), tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_something_that_is_no_file_is_refused(make, tmp_path):
    make(tmp_path / "params.yaml")
    with pytest.raises(BlaError, match=r"params\.yaml: not a file"):
        load_settings(tmp_path / "params.yaml")


@pytest.mark.parametrize("place", ["", "statistics", "explainer.x"])
def test_thousands_of_wrong_settings_are_twenty_lines_and_their_number(place, tmp_path):
    more = "".join(f"    k{number}: 1\n" for number in range(5000))
    key = {"": "dataset", "statistics": "statistics", "explainer.x": "variant"}[place]
    text = re.sub(rf"^{key}:.*\n", rf"{key}:\n", TEXT, count=1, flags=re.MULTILINE)
    indent = "  " if place else ""
    text = (
        text.replace(f"\n{key}:\n", f"\n{key}:\n{more.replace('    ', indent)}", 1)
        if place
        else TEXT + more.replace("    ", "")
    )
    started = time.monotonic()
    lines = message_for(text, tmp_path).splitlines()
    assert time.monotonic() - started < 3
    assert len(lines) == 21
    assert re.fullmatch(r".*params\.yaml: and [\d,]+ more wrong settings", lines[-1])


@pytest.mark.parametrize("name", ["2021", "007", "1e5", "nan", "null", "inf", "true"])
@pytest.mark.parametrize("section", ["dataset", "variant"])
def test_a_name_that_a_table_gives_back_as_a_number_or_a_gap_is_refused(section, name, tmp_path):
    text = re.sub(rf"^{section}:.*\n  \w+:", rf'{section}:\n  "{name}":', TEXT, count=1, flags=re.MULTILINE)
    assert f"params.yaml: {section}.{name}: tables need a name that is no number" in message_for(text, tmp_path)
