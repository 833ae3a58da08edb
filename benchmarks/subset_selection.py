"""Choose the settings of subset_selection by the predictor's accuracy on validation samples.

    python benchmarks/subset_selection.py

The rule is in docs/subset_selection.md, where it was written before this ran. Median ranks and recovered subsets are
not looked at. Results are written to benchmarks/subset_selection.csv, accuracies by method and set.
"""

import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd
import torch

import pipeline  # noqa: F401  puts src on the path
from bla.base.specs import L2XF, BoundedLogits, Optimiser, ThresholdRule
from bla.experiments.subset_selection.data import SETS, generate
from bla.experiments.subset_selection.experiment import evaluate, train
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side

RUNS, VALIDATION_SAMPLES, SEED = 5, 1000, 1
SCHEDULES = [(10000, 3, 100), (30000, 1, 100), (3000, 10, 100), (10000, 3, 50)]
"""Training samples, epochs and batch size of about equal training time: 20 runs take at most a minute on two cores."""
LEARNING_RATES = (0.001, 0.003, 0.01)
TEMPERATURES = (0.1, 1, 10)
RULES: tuple[ThresholdRule, ...] = ("subtract", "renormalise")
Setting = tuple[int, int, int, float, float, ThresholdRule]
"""Training samples, epochs, batch size, learning rate; BLA-T's temperature and threshold rule."""


def accuracy(job: tuple[Setting, str, str]) -> float:
    """The predictor's mean accuracy over runs, from hard explanations."""
    (samples, epochs, batch_size, rate, temperature, rule), method, name = job
    schedule = Optimiser(batch_size=batch_size, epochs=epochs, learning_rate=rate, adam_epsilon=1e-7)
    variant = (
        L2XF(explanation="l2x_f", head="trained", temperature=10, k=SETS[name].k)
        if method == "l2x"
        else BoundedLogits(
            explanation="bounded_logits",
            head="trained",
            temperature=temperature,
            threshold_factor=0.98,
            threshold_rule=rule,
        )
    )
    seeds = [derive_seed(SEED, "subset_selection", name, run) for run in range(RUNS)]
    test = generate(name, VALIDATION_SAMPLES, torch.Generator().manual_seed(derive_seed(SEED, "test", name)))
    networks = train(name, variant, samples, seeds, schedule, torch.device("cpu"))
    table, _ = evaluate(name, variant, networks, test, SEED)
    return float(table["accuracy"].mean())


def measured(settings: list[Setting], methods: tuple[str, ...]) -> pd.DataFrame:
    """A row per setting: its accuracies by method and set, and their mean."""
    pairs = list(product(methods, SETS))
    found = iter(side_by_side(accuracy, [(s, *pair) for s in settings for pair in pairs], 2))
    rows = []
    for setting in settings:
        row = dict(zip(("train_samples", "epochs", "batch_size", "learning_rate", "temperature", "threshold_rule"), setting, strict=True))  # fmt: skip
        values = {f"{method} {name}": next(found) for method, name in pairs}
        rows.append(row | values | {"mean": sum(values.values()) / len(values)})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """First the schedule of both methods, then BLA-T's temperature and rule with this schedule."""
    schedules = measured([(*s, rate, 0.1, "subtract") for s, rate in product(SCHEDULES, LEARNING_RATES)], ("l2x", "bla_t"))  # fmt: skip
    best = schedules.loc[schedules["mean"].idxmax()]
    schedule = int(best["train_samples"]), int(best["epochs"]), int(best["batch_size"]), float(best["learning_rate"])
    modules = measured([(*schedule, *module) for module in product(TEMPERATURES, RULES)], ("bla_t",))
    table = pd.concat([schedules.assign(step=1), modules.assign(step=2)])
    table.to_csv("benchmarks/subset_selection.csv", index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
