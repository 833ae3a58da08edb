"""The structured attention graph of an image: minimal sufficient sets, and what each patch taken away costs.

Roots are a few sets that share little. An edge takes one patch away; a set that several edges reach is one node. Shitole
et al. 2021; constants of their code. Their drawing repeats a set that is reached twice; ours does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bla.explainers.sufficient_sets import Cells, Search, Verdict, diverse

ROOTS = 3
"""Roots of a graph, at most."""
OVERLAP = 1
"""Patches that two roots may share."""
EXPANDED = 0.4
"""Nodes with less than this share of the full confidence have no children."""
CHILDREN = 3
"""Children of a node, at most: without its first, second and third patch."""
MOST_SHOWN = 10
"""The largest share of the full confidence that is written as a number; a tiny full confidence gives millions of percent."""
STARS: dict[Verdict, str] = {"minimal": "★ ", "no_patch_can_go": "★ ", "part_suffices": "☆ ", "not_sufficient": ""}
"""The mark of a root: it suffices, and not without any one patch (★), or a part of it suffices too (☆)."""


@dataclass(frozen=True)
class Graph:
    """Nodes are sorted lists of cells, large ones first, with confidences relative to the whole image.

    Edges are (parent, child, cell taken away); `roots` and edges hold numbers of nodes. `verdicts` are those on the roots.
    """

    nodes: list[list[int]]
    confidences: list[float]
    edges: list[tuple[int, int, int]]
    roots: list[int]
    verdicts: list[Verdict]

    def star(self, node: int) -> str:
        """The mark of a node (`STARS`), empty for one that is no root."""
        return STARS[self.verdicts[self.roots.index(node)]] if node in self.roots else ""


def attention_graph(sets: Sequence[Sequence[int]], verdicts: Sequence[Verdict]) -> Search[Graph]:
    """The graph of an image's sets, the best one first, with the verdict on each.

    Roots are chosen among the sets that suffice, or among all if none does.
    """
    enough = [number for number, verdict in enumerate(verdicts) if verdict != "not_sufficient"] or range(len(sets))
    numbers = [enough[place] for place in diverse([sets[number] for number in enough], OVERLAP)[:ROOTS]]
    roots = [Cells(sets[number]) for number in numbers]
    known: dict[Cells, float] = {}
    edges: list[tuple[Cells, Cells, int]] = []
    level = roots
    while level:
        missing = [cells for cells in dict.fromkeys(level) if cells not in known]
        known.update(zip(missing, (yield missing) if missing else [], strict=True))
        level = []
        for cells in missing:
            if known[cells] > EXPANDED and len(cells) > 1:
                for cell in sorted(cells)[:CHILDREN]:
                    edges.append((cells, cells - {cell}, cell))
                    level.append(cells - {cell})
    order = sorted(known, key=lambda cells: (-len(cells), sorted(cells)))
    places = {cells: place for place, cells in enumerate(order)}
    return Graph(
        [sorted(cells) for cells in order],
        [known[cells] for cells in order],
        sorted((places[parent], places[child], cell) for parent, child, cell in edges),
        [places[cells] for cells in roots],
        [verdicts[number] for number in numbers],
    )
