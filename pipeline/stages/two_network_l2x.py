"""Stage `two_network_l2x`: section 4.1, L2X with two networks on a frozen backbone, in reports/tables/ and a figure."""

from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.datasets import SPLITS, spread_over_classes
from bla.experiments.runs import means
from bla.experiments.two_network_l2x.experiment import Data, merged, train_and_evaluate
from bla.experiments.two_network_l2x.figures import picture
from bla.experiments.two_network_l2x.tables import MEASURES, RUN, SETTING, differences
from bla.networks.backbones import load_backbone
from bla.networks.folding import fold_batch_norm
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side
from pipeline.artifacts.arrays import load_tensor
from pipeline.artifacts.coverage import load_coverage
from pipeline.artifacts.features import load_features, load_grid
from pipeline.artifacts.figures import FIGURES, save_picture
from pipeline.artifacts.images import IMAGES
from pipeline.artifacts.models import BACKBONES
from pipeline.artifacts.tables import save_tables
from pipeline.run.entries import running
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings, load_settings


def main() -> None:
    """Write two_network_l2x_runs.csv, two_network_l2x.csv (means), _tests.csv and figures/two_network_l2x.png."""
    settings = load_settings()
    spec, rows, seen = settings.two_network_l2x, [], {}
    workers = torch.get_num_threads() if choose_device().type == "cpu" else 1  # on a CPU one run per thread
    for dataset in running(settings, "two_network_l2x"):
        # The same random numbers under all readings, so that pairs differ only in the reading.
        runs = [(run, derive_seed(settings.seed, dataset, "l2x", run)) for run in range(spec.runs)]
        jobs = [(name, run, seed) for name in spec.readings for run, seed in runs]
        work = partial(train_and_evaluate, _load(settings, dataset), spec.readings, spec.k, spec.training)
        try:
            results = list(tqdm(side_by_side(work, jobs, workers), f"{dataset} L2X", len(jobs), disable=None))
        except BlaError as error:
            raise BlaError(f"params.yaml: two_network_l2x: {dataset}: {error}") from error
        rows += [row | {"dataset": dataset} for row, _ in results]
        seen[dataset] = merged([part for _, part in results if part is not None])
    table = pd.DataFrame(rows, columns=RUN)
    by_dataset = means(table, ["dataset", *SETTING], MEASURES)
    save_tables("two_network_l2x", {"_runs": table, "": by_dataset, "_tests": differences(table)})
    save_picture(FIGURES / "two_network_l2x.png", picture(table, seen))
    for row in by_dataset.to_dict("records"):
        print(f"{row['dataset']} {row['reading']}: accuracy soft {row['soft_accuracy']:.3f}, hard {row['hard_accuracy']:.3f}")  # fmt: skip


def _load(settings: Settings, dataset: str) -> Data:
    spec, backbone, device = settings.two_network_l2x, settings.dataset[dataset].backbone, choose_device()
    (features, labels), (test_features, test_labels) = (load_features(dataset, split, device) for split in SPLITS)
    images, test_images = (load_tensor(IMAGES / dataset / f"{split}_images.npy") for split in SPLITS)
    splits = (labels, spec.train_images), (test_labels, spec.test_images)
    rows, chosen = (torch.from_numpy(spread_over_classes(y.cpu().numpy(), min(count, len(y)))) for y, count in splits)
    extractor = load_backbone(backbone, BACKBONES / f"{dataset}.safetensors", (images.shape[1], images.shape[2]))
    coverage = load_coverage(dataset, "test", load_grid(dataset))
    return Data(
        fold_batch_norm(extractor).to(device),
        images,
        features,
        labels,
        rows,
        (test_images[chosen], test_features[chosen.to(device)], test_labels[chosen.to(device)]),
        None if coverage is None else coverage[chosen.numpy()],
        len(images) + len(test_images) - len(rows) - len(chosen),
    )
