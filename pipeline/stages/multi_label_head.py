"""Stage `multi_label_head@DATASET`: linear heads of all runs, trained with binary cross-entropy and Adam."""

from bla.base.errors import BlaError
from bla.base.specs import NoExplanation
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.training import train
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.multi_label import HEADS, load_data, save_tensors
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write models/multi_label/heads/DATASET.safetensors: `weight` `[R, K, C]` and `bias` `[R, K]`."""
    settings, device = load_settings(), choose_device()
    data, test = load_data(dataset, "train", settings), load_data(dataset, "test", settings)
    seeds = [derive_seed(settings.seed, dataset, "multi_label", run) for run in range(settings.multi_label.runs)]
    head = initial_head(
        [derive_seed(seed, "initial head") for seed in seeds], data.features.shape[3], data.labels.shape[1]
    )
    no_explanation = NoExplanation(explanation="none")
    try:
        trained = train(data.features, data.labels, no_explanation, head, seeds, data.schedule, device=device)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}: {error}") from error
    result = evaluate(test.features[0], test.labels, no_explanation, trained, seeds, device)
    save_tensors(
        HEADS / f"{dataset}.safetensors", {"weight": trained.head.weight.cpu(), "bias": trained.head.bias.cpu()}
    )
    exact, loss = result.correct.double().mean(), result.loss.mean()
    print(f"{dataset}: all classes right in {exact:.4f} of the test images, loss {loss:.4f}")
