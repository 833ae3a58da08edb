"""Pictures in reports/figures/, drawn side by side."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bla.base.atomic import replacing
from bla.plotting.style import save_figure
from bla.runtime.processes import in_processes

FIGURES = Path("reports/figures")
Pictures = dict[Path, Callable[[], Figure]]


def save_picture(path: Path, figure: Figure) -> None:
    """Write a figure as the kind that its name ends in, png or svg."""
    with replacing(path) as part:
        save_figure(figure, part, path.suffix[1:])


def save_pictures(pictures: Mapping[Path, Callable[[], Figure]]) -> None:
    """Draw and write pictures, a process on each core; what draws one must be fit for `in_processes`."""
    for _ in in_processes(_save, list(pictures.items())):
        pass


def remove_others(folder: Path, current: Iterable[Path]) -> None:
    """Remove the pictures of settings that are no more."""
    for path in set(folder.iterdir()) - set(current):
        path.unlink()


def _save(picture: tuple[Path, Callable[[], Figure]]) -> None:
    path, draw = picture
    save_picture(path, draw())
