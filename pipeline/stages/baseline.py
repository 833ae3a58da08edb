"""Stage `baseline@DATASET`: the column BL, a head per run in models/heads/DATASET.safetensors, and the column BL+.

With `classifier: own` BL is the classifier of the checkpoint: one head that is not trained. BL+ then has no runs.
"""

from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import NoExplanation
from bla.experiments.table1.experiment import train_column
from bla.experiments.table1.own_head import exchanged, own_columns
from bla.method.initialisation import initial_head
from bla.method.scores import class_count
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.evaluation import save_results
from pipeline.artifacts.features import load_features
from pipeline.artifacts.models import HEADS, save_head, save_trained
from pipeline.artifacts.tables import load_classes
from pipeline.run.checkpoint_head import checkpoint_head
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings, load_settings


def main(dataset: str) -> None:
    """Train the heads on average-pooled features and evaluate them; then continue training, as the column BL+."""
    settings, device = load_settings(), choose_device()
    if settings.dataset[dataset].has_own_head:
        _evaluate_own(dataset, settings)
        return
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


def _evaluate_own(dataset: str, settings: Settings) -> None:
    """Evaluate the head of the checkpoint; BlaError if its outputs seem to be in another order than the classes."""
    labels, test, classes = (
        settings.dataset[dataset].classifier_labels,
        load_features(dataset, "test"),
        load_classes(dataset),
    )
    head = checkpoint_head(dataset, labels)
    if labels is None and (pairs := exchanged(head, test, classes)):
        shown = ", ".join(f"{true} as {predicted}" for true, predicted in pairs[:3])
        raise BlaError(
            f"params.yaml: dataset.{dataset}.classifier_labels: most images of these classes are predicted as another one: "
            f"{shown}; the head's outputs seem to be in another order than the sorted classes: name a text file with the "
            "class of each output, one a line"
        )
    bl, bl_plus = own_columns(head, test, choose_device())
    none, seed = (
        NoExplanation(explanation="none"),
        derive_seed(settings.seed, dataset, "bl", 0),
    )  # nothing uses the seed
    save_head(HEADS / f"{dataset}.safetensors", head)
    save_results(dataset, "bl", none, [seed], *bl)
    save_trained(dataset, "bl_plus", bl_plus[0])
    save_results(dataset, "bl_plus", none, [], *bl_plus)
