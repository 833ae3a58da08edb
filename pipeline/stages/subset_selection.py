"""Stage `subset_selection`: BLA-T and L2X select the relevant features of synthetic samples, in reports/."""

from itertools import product

import pandas as pd
import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import L2XF, BoundedLogits
from bla.experiments.subset_selection.data import SETS, generate
from bla.experiments.subset_selection.experiment import evaluate, train
from bla.experiments.subset_selection.figures import picture
from bla.experiments.subset_selection.tables import METHODS, RUN, by_feature, differences, summary
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side
from pipeline.artifacts.figures import FIGURES, save_picture
from pipeline.artifacts.tables import save_tables
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings


def main() -> None:
    """Write subset_selection_runs.csv, subset_selection.csv (means), _tests.csv, _features.csv and a figure."""
    settings, device = load_settings(), choose_device()
    spec, seed = settings.subset_selection, settings.seed
    bla_t = BoundedLogits(explanation="bounded_logits", head="trained", **spec.module.model_dump())

    def work(job: tuple[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        data, method = job
        k = SETS[data].k
        l2x = L2XF(explanation="l2x_f", head="trained", temperature=spec.l2x_temperature, k=k)
        variant = bla_t if method == "bla_t" else l2x
        # The same samples and random numbers for both methods, so that pairs differ only in the method.
        seeds = [derive_seed(seed, "subset_selection", data, run) for run in range(spec.runs)]
        generator = torch.Generator().manual_seed(derive_seed(seed, "subset_selection", data, "test"))
        test = generate(data, spec.test_samples, generator)
        networks = train(data, variant, spec.train_samples, seeds, spec.training, device)
        table, features = evaluate(data, variant, networks, test, derive_seed(seed, "subset_selection", data, "ties"))
        table = table.assign(k=k, seed=seeds, n_train_samples=spec.train_samples)
        return table.assign(method=method), features.assign(method=method)

    jobs = list(product(SETS, METHODS))
    workers = torch.get_num_threads() if device.type == "cpu" else 1  # on a CPU one job per thread
    try:
        results = list(tqdm(side_by_side(work, jobs, workers), "subset_selection", len(jobs), disable=None))
    except BlaError as error:
        raise BlaError(f"params.yaml: subset_selection: {error}") from error
    runs, features = (
        pd.concat([table for table, _ in results])[RUN],
        by_feature(pd.concat([part for _, part in results])),
    )
    means = summary(runs)
    tables = {"_runs": runs, "": means, "_tests": differences(runs), "_features": features}
    save_tables("subset_selection", tables)
    save_picture(FIGURES / "subset_selection.png", picture(runs, features))
    for row in means.to_dict("records"):
        print(f"{row['data']} {row['method']}: median rank {row['median_rank']:.3f} (ideal {row['ideal_median_rank']}), size {row['explanation_size']:.2f}")  # fmt: skip
