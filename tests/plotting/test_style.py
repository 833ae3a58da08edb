"""Figures as files."""

import pytest
from matplotlib import pyplot

from bla.plotting.style import save_figure


def drawn():
    figure, axis = pyplot.subplots()
    axis.plot([1, 3, 2])
    axis.set_title("£ and ρ")
    return figure


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_equal_figures_have_equal_bytes_and_are_closed(kind, tmp_path):
    before = pyplot.get_fignums()
    for number in range(2):
        save_figure(drawn(), tmp_path / f"{number}.{kind}", kind)
    first, second = ((tmp_path / f"{number}.{kind}").read_bytes() for number in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert pyplot.get_fignums() == before


def test_a_figure_file_has_no_date_and_its_text_stays_text(tmp_path):
    save_figure(drawn(), tmp_path / "a.svg", "svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<dc:date>" not in text
    assert "£ and ρ" in text


def test_the_file_name_does_not_change_the_bytes(tmp_path):
    save_figure(drawn(), tmp_path / "a.svg.part", "svg")
    assert (tmp_path / "a.svg.part").read_bytes().startswith(b"<?xml")
