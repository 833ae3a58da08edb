"""Stage `baseline@DATASET`: the column BL, a head per run in models/heads/DATASET.safetensors, and the column BL+."""

from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import NoExplanation
from bla.experiments.table1.experiment import train_column
from bla.method.initialisation import initial_head
from bla.method.scores import class_count
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.evaluation import save_results
from pipeline.artifacts.features import load_features
from pipeline.artifacts.models import HEADS, save_head, save_trained
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Train the heads on average-pooled features and evaluate them; then continue training, as the column BL+."""
    settings, device = load_settings(), choose_device()
    schedule = settings.dataset[dataset].training
    train, test = load_features(dataset, "train"), load_features(dataset, "test")
    seeds, more_seeds = ([derive_seed(settings.seed, dataset, key, run) for run in range(settings.runs)] for key in ("bl", "bl_plus"))  # fmt: skip
    initial = [derive_seed(seed, "initial head") for seed in seeds]
    head = initial_head(initial, train[0].shape[3], class_count(train[1]))
    bl, bl_plus = NoExplanation(explanation="none"), settings.variant["bl_plus"]
    with tqdm(total=2 * settings.runs, desc=f"{dataset} bl", unit="run", disable=None) as bar:
        try:
            trained, result = train_column(train, test, bl, head, seeds, schedule, 0, device, bar.update)
            continued = trained.head, more_seeds, schedule, schedule.epochs
            trained_plus, result_plus = train_column(train, test, bl_plus, *continued, device, bar.update)
        except BlaError as error:
            raise BlaError(f"params.yaml: dataset.{dataset}: bl: {error}") from error
    save_head(HEADS / f"{dataset}.safetensors", trained.head)
    save_results(dataset, "bl", bl, seeds, trained, result)
    save_trained(dataset, "bl_plus", trained_plus)
    save_results(dataset, "bl_plus", bl_plus, more_seeds, trained_plus, result_plus)
