"""I-GOS, iGOS++ and SAG on two test images: batched against one by one; deletion and insertion at several mask sizes.

    python benchmarks/i_gos.py            # the ratio, appended to benchmarks/results.md
    python benchmarks/i_gos.py --sizes    # benchmarks/i_gos_mask_sizes.csv; about a quarter of an hour on two free cores

Run from the repository with src and . in PYTHONPATH if the package is not installed. Needs the outputs of the stages `prepare`, `backbone` and `baseline` of painted birds.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from results import record, seconds

from bla.explainers.interface import Explainer
from bla.explainers.occlusion import blurred
from bla.explainers.optimised.i_gos import IGos
from bla.explainers.optimised.i_gos_pp import IGosPP
from bla.explainers.structured.sag import SAG
from bla.metrics.curves import mask_scores, rank_cells
from bla.runtime.memory import keep_freed_memory
from pipeline.artifacts.explained_images import load_explained
from pipeline.run.settings import load_settings

DATASET, SIZES = "painted_birds", (7, 14, 28, 56, 224)
AREA = {224: 10}
"""Of the area where the authors name another weight for a size."""
TABLE = Path(__file__).with_name("i_gos_mask_sizes.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description="Mask sizes of I-GOS and iGOS++, and the gain of batches.")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--images", type=int, default=2)
    arguments = parser.parse_args()
    settings = load_settings()
    explained = load_explained(DATASET, settings)
    model = explained.classifier_of(settings.faithfulness.run)
    count = len(explained.images)
    rows = [(2 * place + 1) * count // (2 * arguments.images) for place in range(arguments.images)]
    images, numbers = explained.images[rows], explained.numbers[rows]
    with torch.no_grad():
        targets = model(images)[0].argmax(dim=1)
    seeds = torch.arange(len(images))
    if arguments.sizes:
        table: list[dict[str, object]] = []
        for size in SIZES:
            for kind in (IGos, IGosPP):
                before = model.forwards, model.backwards
                method = kind(model, kind.Settings(size=size, area=AREA.get(size, 1)))
                maps = method.explain(images, targets, seeds)
                forwards, backwards = model.forwards - before[0], model.backwards - before[1]
                ranks = rank_cells(maps.flatten(1).double().cpu().numpy(), seeds.tolist(), settings.faithfulness.orders)
                both = {
                    legacy: mask_scores(model, images, blurred(images), targets, ranks, legacy)
                    for legacy in (False, True)
                }
                for image, number in enumerate(numbers):
                    row = {"method": kind.title, "size": size, "image": number, "deletion": both[False][0, image]}
                    row |= {"insertion": both[False][1, image], "deletion_legacy": both[True][0, image]}
                    row |= {"insertion_legacy": both[True][1, image], "mean_map": maps[image].mean().item()}
                    table.append(row | {"forwards": forwards / len(images), "backwards": backwards / len(images)})
                pd.DataFrame(table).to_csv(TABLE, index=False, float_format="%.4f")
        return
    lines = []
    keep_freed_memory()
    few = [(kind(model, kind.Settings(iterations=2)), 10) for kind in (IGos, IGosPP)]
    for method, times in (*few, (SAG(model, SAG.Settings()), 1)):
        method.explain(images[:1], targets[:1], seeds[:1])

        def one_by_one(method: Explainer = method) -> None:
            for one in zip(images.split(1), targets.split(1), seeds.split(1), strict=True):
                method.explain(*one)

        alone = min(seconds(one_by_one, model.device) for _ in range(3))
        batched = min(seconds(lambda m=method: m.explain(images, targets, seeds), model.device) for _ in range(3))  # type: ignore[misc]
        lines.append(f"| {method.title} | {alone / batched:.2f} | {batched / len(images) * times:.1f} |")
    record(
        [
            f"{len(images)} images; I-GOS, iGOS++: 2 iterations",
            "one by one / batched (time)",
            "s an image; I-GOS, iGOS++: 20 iterations",
        ],
        lines,
        model.device,
    )


if __name__ == "__main__":
    main()
