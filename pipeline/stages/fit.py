"""Stage `fit@DATASET-EXPLAINER`: a learned explanation method, fitted to the classifiers of all runs, in models/learned/."""

import time

import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.explainers.interface import TrainingData
from bla.explainers.registry import explainer_class
from bla.networks.backbones import load_backbone
from bla.networks.folding import fold_batch_norm
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_classifier
from pipeline.artifacts.features import load_features, load_grid
from pipeline.artifacts.images import load_images
from pipeline.artifacts.maps import save_training_seconds
from pipeline.artifacts.models import BACKBONES, save_state
from pipeline.maps.fitted_methods import learned_methods
from pipeline.run.environment import choose_device
from pipeline.run.methods import method_settings
from pipeline.run.settings import load_settings


def main(dataset: str, explainer: str) -> None:
    """Fit run r of the method to run r of the classifier, for the runs that the method wants (`fitted_runs`).

    The seconds go to data/seconds/, because everything else is the same in every run. A method that trains on images is
    not fitted on a dataset in `faithfulness.left_out`; its files are then empty.
    """
    settings, device = load_settings(), choose_device()
    if explainer not in learned_methods(dataset, settings):
        save_training_seconds(dataset, explainer, 0, 0)
        save_state(dataset, explainer, {})
        print(f"{dataset} {explainer}: not fitted, because it trains on images; see faithfulness.left_out")
        return
    images, (features, labels) = load_images(dataset, "train"), load_features(dataset, "train")
    _, height, width, _ = images.shape
    backbone, schedule = settings.dataset[dataset].backbone, settings.dataset[dataset].training
    extractor = fold_batch_norm(load_backbone(backbone, BACKBONES / f"{dataset}.safetensors", (height, width)))
    classifier = load_classifier(dataset, settings, extractor).to(device).eval()
    kind = explainer_class(explainer)
    method = kind(classifier, method_settings(settings, explainer, kind.Settings))
    seeds = [derive_seed(settings.seed, dataset, explainer, run) for run in range(method.fitted_runs)]
    data = TrainingData(features, load_grid(dataset), images, labels, schedule, device, schedule.epochs)
    with tqdm(total=len(seeds), desc=f"{dataset} {explainer}", unit="run", disable=None) as bar:
        try:
            start = time.perf_counter()
            state = method.fit(data, seeds, bar.update)
        except BlaError as error:
            raise BlaError(f"params.yaml: explainer.{explainer}: {dataset}: {error}") from error
    save_training_seconds(dataset, explainer, time.perf_counter() - start, len(seeds))
    save_state(dataset, explainer, state)
    losses = state.get("losses", torch.zeros(0, 0))
    print(
        f"{dataset} {explainer}: fitted {len(seeds)} runs"
        + (f", last loss {losses[:, -1].mean():.4f}" if losses.numel() else "")
    )
