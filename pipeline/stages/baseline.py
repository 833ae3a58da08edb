"""Stage `baseline@DATASET`: the columns BL, one head a run, in models/heads/DATASET.safetensors, and BL+."""

from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import NoExplanation
from bla.method.training import evaluate, initial_head, train
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.paths import HEADS
from pipeline.artifacts.runs import load_features, save_head, save_results
from pipeline.run.settings import load_settings
from pipeline.run.stage import choose_device, run_stage
from pipeline.stages import train_variant as explainer


def main(dataset: str) -> None:
    """Train the heads on average-pooled features and evaluate them; then train them on, as a column."""
    settings, device = load_settings(), choose_device()
    (features, labels), test = load_features(dataset, "train"), load_features(dataset, "test")
    seeds = [derive_seed(settings.seed, dataset, "bl", run) for run in range(settings.runs)]
    variant = NoExplanation("none")
    initial = [derive_seed(seed, "initial head") for seed in seeds]
    head = initial_head(initial, features.shape[3], int(labels.max()) + 1)
    schedule = settings.dataset[dataset].training
    with tqdm(total=settings.runs, desc=f"{dataset} bl", unit="run", disable=None) as bar:
        try:
            trained = train(features, labels, variant, head, seeds, schedule, progress=bar.update, device=device)
        except BlaError as error:
            raise BlaError(f"params.yaml: dataset.{dataset}: bl: {error}") from error
    save_head(HEADS / f"{dataset}.safetensors", trained.head)
    save_results(dataset, "bl", variant, seeds, trained, evaluate(*test, variant, trained, seeds, device))
    explainer.main(dataset, "bl_plus")


if __name__ == "__main__":
    run_stage(main)
