"""Stage `structure`: SAG's minimal sufficient sets, their graphs, and BLA's hard explanations beside them."""

import json
from functools import partial
from pathlib import Path

import pandas as pd

from bla.base.atomic import save_text
from bla.base.paper import COLUMNS
from bla.experiments.related_methods.structure.figures import chart, drawn_graph
from bla.experiments.related_methods.structure.measures import COVER
from bla.experiments.related_methods.structure.tables import HARD, IMAGES, PARTS, corrected_by_method, of_images
from bla.explainers.structured.sag import SAG
from bla.report.graph_page import GraphOfImage, graph_page
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.tables import save_tables
from pipeline.maps.image_names import drawable
from pipeline.maps.structure import METHOD, decisive_parts, explanations, hard_beside_minimal, node_masks
from pipeline.run.methods import method_settings
from pipeline.run.settings import load_settings

PAGES = Path("reports/structure")
RELATIONS = ["dataset", "method", "title", "set", "n", *COVER]


def main() -> None:
    """Write reports/structure/DATASET.html and .json, the tables structure_*.csv, a graph per image, and structure.png."""
    settings, pictures, names = load_settings(), Pictures(), set[str]()
    most = method_settings(settings, METHOD, SAG.Settings).sets
    images, hard, relations, parts = (list[pd.DataFrame]() for _ in range(4))
    for dataset in settings.datasets:
        found, grid = explanations(dataset, settings), load_grid(dataset)
        if found is None:
            print(f"{dataset}: SAG explained no image (see `explainers` and `faithfulness.left_out`)")
            continue
        images.append(found.table().assign(dataset=dataset, most_sets=most))
        beside, related, of_run = hard_beside_minimal(dataset, settings, found)
        titles = {"sag": "SAG, smallest set", "sag_all": "SAG, all sets"} | {name: COLUMNS.get(name, name) for name in of_run}  # fmt: skip
        hard.append(beside)
        relations.append(related)
        parts.append(decisive_parts(dataset, settings, found, of_run, titles))
        graphs = found.of_images()
        save_text(PAGES / f"{dataset}.html", graph_page(dataset, graphs, grid))
        save_text(PAGES / f"{dataset}.json", json.dumps(found.as_json()))
        names |= {f"{dataset}.html", f"{dataset}.json"}
        pictures |= _pictures(dataset, graphs, grid)
        verified = sum(of.verdicts.count("minimal") for of in found.sets)
        print(f"{dataset}: {sum(len(of.sets) for of in found.sets)} sets of {len(graphs)} images, {verified} verified")
    every, cells = _joined(images, IMAGES), max(load_grid(name)[0] * load_grid(name)[1] for name in settings.datasets)
    tables = of_images(every, cells) | {"_hard": corrected_by_method(_joined(hard, HARD))}
    tables |= {"_relations": _joined(relations, RELATIONS), "_parts": _joined(parts, PARTS)}
    save_tables("structure", tables)
    save_pictures(pictures | {FIGURES / "structure.png": partial(chart, tables["_hard"], tables["_relations"])})
    for folder, current in ((FIGURES / "structure", list(pictures)), (PAGES, [PAGES / name for name in names])):
        folder.mkdir(parents=True, exist_ok=True)
        remove_others(folder, current)


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables)[columns] if any(map(len, tables)) else pd.DataFrame(columns=columns)


def _pictures(dataset: str, graphs: list[GraphOfImage], grid: tuple[int, int]) -> Pictures:
    """A drawn graph for each image."""
    pictures = Pictures()
    for of in graphs:
        masks, name = node_masks(of.graph.nodes, grid, of.pixels.shape[:2]), drawable(of.class_name, f"image {of.number}")  # fmt: skip
        title = f"{name}, probability {of.probability:.2f}" + ("" if of.black is None else "; the black image suffices")
        pictures[FIGURES / "structure" / f"{dataset}_{of.number}.png"] = partial(drawn_graph, of.pixels, masks, of.graph, title)  # fmt: skip
    return pictures
