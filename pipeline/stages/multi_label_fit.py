"""Stage `multi_label_fit@DATASET-EXPLAINER`: a learned method, fitted to the classifiers, in models/multi_label/learned/."""

from tqdm import tqdm

from bla.base.errors import BlaError
from bla.explainers.registry import explainer_class
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.multi_label import LEARNED, load_classifier, load_data, save_tensors
from pipeline.run.methods import method_settings
from pipeline.run.settings import load_settings


def main(dataset: str, explainer: str) -> None:
    """Fit run r of the method to run r of the classifier, for the runs that the method wants (`fitted_runs`)."""
    settings, kind = load_settings(), explainer_class(explainer)
    method = kind(load_classifier(dataset, settings), method_settings(settings, explainer, kind.Settings))
    seeds = [derive_seed(settings.seed, dataset, explainer, run) for run in range(method.fitted_runs)]
    with tqdm(total=len(seeds), desc=f"{dataset} {explainer}", unit="run", disable=None) as bar:
        try:
            state = method.fit(load_data(dataset, "train", settings), seeds, bar.update)
        except BlaError as error:
            raise BlaError(f"params.yaml: explainer.{explainer}: {dataset}: {error}") from error
    save_tensors(LEARNED / dataset / f"{explainer}.safetensors", state)
    print(f"{dataset} {explainer}: fitted {len(seeds)} runs")
