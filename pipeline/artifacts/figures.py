"""Pictures in reports/figures/, drawn in parallel."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from bla.base.atomic import replacing
from bla.plotting.style import save_figure
from bla.runtime.processes import in_processes

FIGURES = Path("reports/figures")
Pictures = dict[Path, Callable[[], Figure]]


def save_picture(path: Path, figure: Figure) -> None:
    """Write a figure as png or svg, by the file's ending."""
    with replacing(path) as part:
        save_figure(figure, part, path.suffix[1:])


def save_pictures(pictures: Mapping[Path, Callable[[], Figure]]) -> None:
    """Draw and write pictures in one process per core; the functions must be picklable (`in_processes`)."""
    for _ in in_processes(_save, list(pictures.items())):
        pass


def remove_others(folder: Path, current: Iterable[Path]) -> None:
    """Remove all files of `folder` that are not `current` pictures; an output of DVC, it exists also without pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in set(folder.iterdir()) - set(current):
        path.unlink()


def _save(picture: tuple[Path, Callable[[], Figure]]) -> None:
    path, draw = picture
    save_picture(path, draw())
