"""Stage `explainer@DATASET-VARIANT`: one column of Table 1, modules and heads, in models/explainers/."""

from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import L2XF
from bla.method.training import evaluate, train
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.paths import EXPLAINERS, HEADS
from pipeline.artifacts.runs import load_features, load_head, save_results, save_trained
from pipeline.run.settings import load_settings
from pipeline.run.stage import choose_device, run_stage


def main(dataset: str, variant: str) -> None:
    """Train run r of the variant from head r of the baseline, and evaluate it."""
    settings, device = load_settings(), choose_device()
    spec, schedule = settings.variant[variant], settings.dataset[dataset].training
    (features, labels), test = load_features(dataset, "train"), load_features(dataset, "test")
    if isinstance(spec, L2XF) and spec.k > features.shape[2]:
        raise BlaError(f"params.yaml: variant.{variant}.k: {spec.k} cells of a map that has {features.shape[2]}")
    head = load_head(HEADS / f"{dataset}.safetensors")
    if len(head.weight) != settings.runs:
        raise BlaError(f"{HEADS / dataset}.safetensors: not {settings.runs} heads; run dvc repro baseline@{dataset}")
    seeds = [derive_seed(settings.seed, dataset, variant, run) for run in range(settings.runs)]
    with tqdm(total=settings.runs, desc=f"{dataset} {variant}", unit="run", disable=None) as bar:
        try:
            trained = train(
                features, labels, spec, head, seeds, schedule, schedule.epochs, progress=bar.update, device=device
            )
        except BlaError as error:
            raise BlaError(f"params.yaml: dataset.{dataset}: {variant}: {error}") from error
    save_trained(EXPLAINERS / dataset / f"{variant}.safetensors", trained)
    result = evaluate(*test, spec, trained, [derive_seed(seed, "evaluation") for seed in seeds], device)
    save_results(dataset, variant, spec, seeds, trained, result)


if __name__ == "__main__":
    run_stage(main)
