"""Shared by the official datasets: reading of boxes, and the check that nothing is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from bla.base.errors import BlaError
from bla.datasets import Box, Listing, SplitName


class _WithoutDoctype(TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(
            "it has a document type"
        )  # document types bring entities, and entities can read external files


def object_boxes(path: Path) -> tuple[Box, ...]:
    """The boxes of all objects in a PASCAL VOC annotation; BlaError, naming the file, if it cannot be read."""
    with _naming(path):
        boxes = [
            [float(box.findtext(edge, "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for box in _root(path).iterfind("object/bndbox")
        ]
    return tuple((left, top, right, bottom) for left, top, right, bottom in boxes)


def object_names(path: Path) -> list[str]:
    """The class of each object in a PASCAL VOC annotation; BlaError, naming the file, if it cannot be read."""
    with _naming(path):
        return [each.findtext("name", "") for each in _root(path).iterfind("object")]


def _root(path: Path) -> Element:
    parser = XMLParser(target=_WithoutDoctype())
    parser.feed(path.read_bytes())
    root: Element = parser.close()
    return root


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ParseError, ValueError) as error:
        raise BlaError(
            f"{path}: not a readable annotation ({error}); delete the folder it was unpacked to and run again"
        ) from error


def complete(listing: Listing, counts: dict[SplitName, int], unpacked: Path) -> Listing:
    """The listing of official data, if nothing is missing from it.

    Raises BlaError, naming the folder `unpacked`, if the number of images in a split differs from `counts`, or if a
    listed image or mask is missing.
    """
    for split, count in counts.items():
        if len(listing.splits[split]) != count:
            problem = f"{len(listing.splits[split]):,} {split} images where the official data has {count:,}"
            raise BlaError(f"{unpacked}: {problem}; delete this folder and run again")
    names = [name for files in listing.splits.values() for file in files for name in (file.name, *file.masks) if name]
    missing = [name for name in names if not (listing.folder / name).is_file()]
    if missing:
        folders = " and ".join(sorted({str(listing.folder / name.split("/")[0]) for name in missing}))
        told = ", ".join(missing[:10]) + (", ..." if missing[10:] else "")
        raise BlaError(f"{listing.folder}: {len(missing):,} files are missing: {told}; delete {folders} and run again")
    return listing
