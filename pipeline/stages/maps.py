"""Stage `maps@DATASET`: the maps of every explanation method on some test images, in data/maps/.

And once more where the image is noisy or the classifier random. LIME's own maps are those of the stage `lime`. What is done
with a method is kept in .work under a hash of all that decides it, so that a further method costs no other anything.
"""

import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from bla.base.paper import COLUMNS
from bla.base.specs import Explaining
from bla.datasets import spread_over_classes
from bla.explainers import all_maps as maps
from bla.explainers import interface as explainer
from bla.explainers.all_maps import make_maps, retrained_maps
from bla.explainers.interface import Explainer
from bla.explainers.learned.attention import Attention
from bla.explainers.registry import explainer_class
from bla.method import equations as selection
from bla.method import modules as models
from bla.method import training
from bla.method.modules import Head, Module
from bla.metrics import randomisation
from bla.metrics.randomisation import cascade, cascade_levels
from bla.networks import classifier
from bla.networks.backbones import batch_size_for, fold_batch_norm, load_backbone
from bla.networks.classifier import Classifier
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import Explained, load_arrays, load_explained, load_module, told_of
from pipeline.artifacts.files import content_key, load_array, replacing, save_table
from pipeline.artifacts.paths import BACKBONES, IMAGES, LIME_MAPS, MAPS
from pipeline.artifacts.runs import load_features
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import WORK, run_stage
from pipeline.stages.lime import lime_seeds

Arrays = dict[str, NDArray[Any]]
Modules = dict[str, tuple[Explaining, Module]]

STATISTICS_OF = 64
"""How many training images a random network's batch normalisation takes its statistics from."""


def main(dataset: str) -> None:
    """Write DATASET.safetensors, maps `[M, n]` (NaN for an image that was left out), and DATASET.csv, a row a method.

    `maps/METHOD`; `noise/METHOD`, of the noisy images; `random/METHOD` `[L, M, n]`, of classifiers that are random down to
    each level of the cascade; `retrained/VARIANT` `[2, M, n]`, of modules trained on the first and the last of those.
    """
    settings = load_settings()
    explained = load_explained(dataset, settings)
    spec, images = settings.faithfulness, explained.images
    model, seed = explained.classifier.run(spec.run), derive_seed(settings.seed, dataset, "randomisation")
    lime = load_arrays(LIME_MAPS / f"{dataset}.safetensors", "lime", dataset, explained)
    targets = torch.from_numpy(lime["targets"][spec.run])
    modules = {key: _module(dataset, key, settings, images.device) for key in settings.variants}
    told = [*told_of(explained, dataset, settings), targets.tolist(), seed, spec.noise]
    told += [explained.slow.tolist(), explained.checked.tolist()]
    told += [inspect.getsource(code) for code in (classifier, explainer, maps, models, randomisation, selection)]
    typical = _training_images(dataset, STATISTICS_OF)[1].to(images.device)
    intact = _intact(dataset, settings, model, typical.shape[1])
    told += [hashlib.sha256(typical.cpu().numpy().tobytes()).hexdigest()]
    random = functools.cache(lambda: _random_classifiers(intact, seed, typical))

    names = ["lime", *settings.explainers, *settings.variants]
    arrays: Arrays = {"images": explained.numbers, "targets": targets.numpy()}
    rows = []
    for name in (bar := tqdm(names, unit="method", disable=None)):
        bar.set_description(f"{dataset} maps, {name}")
        build = functools.partial(_build, name, settings, modules)
        seeds = _seeds(dataset, name, settings, explained.numbers)
        given = lime["maps"][spec.run] if name == "lime" else None
        work = functools.partial(make_maps, build, model, random, images, targets.to(images.device), seeds, explained.slow, explained.checked, spec.noise, given)  # fmt: skip
        found = _kept(f"maps-{dataset}-{name}", [*told, _told(name, settings, modules), seeds.tolist()], work)
        method = build(model)
        row: dict[str, Any] = {"method": name, "title": COLUMNS.get(name, name) if name in modules else method.title}
        row |= {"learned": method.learned, "control": method.control, "slow": method.slow}
        rows.append(row | {"forwards": found.pop("forwards").item(), "backwards": method.backwards})
        arrays |= {f"{kind}/{name}": values for kind, values in found.items()}

    told += [spec.retraining_images, asdict(settings.dataset[dataset].training), inspect.getsource(training)]
    told += [(IMAGES / dataset / "train_images.npy").stat().st_mtime_ns]
    features = functools.cache(lambda: _random_features(dataset, random()[-1], spec.retraining_images))
    for name in settings.variants:
        own_seed = derive_seed(settings.seed, dataset, name, "retrained")
        work = functools.partial(_retrain, dataset, modules[name][0], settings, random, features, own_seed, explained)
        key = [*told, _told(name, settings, modules), own_seed]
        arrays[f"retrained/{name}"] = _kept(f"retrained-{dataset}-{name}", key, work)["maps"]
    with replacing(MAPS / f"{dataset}.safetensors") as part:
        save_file(arrays, part, {"levels": "\n".join(cascade_levels(intact))})
    save_table(MAPS / f"{dataset}.csv", pd.DataFrame(rows))
    print(f"{dataset}: maps of {len(names)} methods on {len(targets)} images, of slow ones on {explained.slow.sum()}")


def _kept(name: str, told: list[Any], work: Callable[[], Arrays]) -> Arrays:
    """What `work` makes, from .work if it was made before."""
    path = WORK / f"{name}-{content_key(told)}.safetensors"
    if not path.exists():
        made = work()
        for stale in WORK.glob(f"{name}-" + "[0-9a-f]" * 16 + ".safetensors"):
            stale.unlink()
        with replacing(path) as part:
            save_file(made, part)
    return load_file(path)


def _module(dataset: str, key: str, settings: Settings, device: torch.device) -> tuple[Explaining, Module]:
    """A variant's settings and its module of the run that is measured."""
    variant, modules = load_module(dataset, key, settings)
    one = slice(settings.faithfulness.run, settings.faithfulness.run + 1)
    return variant, Module(modules.weight[one].to(device), modules.bias[one].to(device))


def _seeds(dataset: str, name: str, settings: Settings, numbers: NDArray[np.int64]) -> Tensor:
    """The seed of each image; LIME's are those of the stage `lime`."""
    if name == "lime":
        return torch.tensor(lime_seeds(settings.seed, dataset, "maps", settings.explainer.lime.patterns_of, numbers))
    return torch.tensor([derive_seed(settings.seed, dataset, name, number) for number in numbers])


def _options(name: str, settings: Settings) -> dict[str, Any]:
    lime = asdict(settings.explainer.lime)
    del lime["patterns_of"]  # that is a matter of seeds
    return {"lime": lime, "rise": asdict(settings.explainer.rise)}.get(name, {})


def _build(name: str, settings: Settings, modules: Modules, model: Classifier) -> Explainer:
    """A method, or a variant's module, on a classifier of one run."""
    if name in modules:
        return Attention(model, *modules[name])
    method: Explainer = explainer_class(name)(model, **_options(name, settings))
    return method


def _told(name: str, settings: Settings, modules: Modules) -> list[Any]:
    """What decides the maps of this method alone."""
    code = inspect.getsource(importlib.import_module(f"bla.explainers.{'attention' if name in modules else name}"))
    if name not in modules:
        return [_options(name, settings), code]
    variant, module = modules[name]
    weights = module.weight.cpu().numpy().tobytes() + module.bias.cpu().numpy().tobytes()
    return [asdict(variant), hashlib.sha256(weights).hexdigest(), code]


def _training_images(dataset: str, count: int) -> tuple[NDArray[np.int64], Tensor]:
    """The numbers and pixels of so many training images, spread over the classes."""
    labels = load_array(IMAGES / dataset / "train_labels.npy")
    chosen = np.sort(spread_over_classes(labels, min(count, len(labels))))
    return chosen, torch.from_numpy(load_array(IMAGES / dataset / "train_images.npy")[chosen])


def _intact(dataset: str, settings: Settings, model: Classifier, side: int) -> Classifier:
    """The classifier with its batch normalisation as layers of their own, in which statistics can be measured."""
    extractor = load_backbone(settings.dataset[dataset].backbone, BACKBONES / f"{dataset}.safetensors", side)
    return Classifier(extractor, Head(model.head_weight, model.head_bias)).to(model.head_weight.device).eval()


def _random_classifiers(intact: Classifier, seed: int, typical: Tensor) -> list[Classifier]:
    """The classifier with one more random layer each time, folded."""
    found = []
    for random in cascade(intact, seed, typical):
        folded = fold_batch_norm(random.extractor.cpu())
        found.append(Classifier(folded, Head(random.head_weight, random.head_bias)).to(typical.device).eval())
    return found


Features = tuple[list[Tensor], Tensor]


def _random_features(dataset: str, network: Classifier, count: int) -> Features:
    """Features of so many training images, of the backbone and of a random one, and their labels."""
    (features, labels), device = load_features(dataset, "train"), network.head_weight.device
    chosen, images = _training_images(dataset, count)
    rows, parts = torch.from_numpy(chosen), images.split(batch_size_for(device, images.shape[1]))
    with torch.no_grad():
        found = [network.features(part.to(device)).flatten(2).transpose(1, 2) for part in parts]
    return [features[:, rows].to(device), torch.cat(found)[None]], labels[rows].to(device)


def _retrain(
    dataset: str,
    variant: Explaining,
    settings: Settings,
    random: Callable[[], list[Classifier]],
    features: Callable[[], Features],
    seed: int,
    explained: Explained,
) -> Arrays:
    (head, *_, network), (both, labels), schedule = random(), features(), settings.dataset[dataset].training
    return {"maps": retrained_maps(variant, [head, network], both, labels, schedule, seed, explained.images)}


if __name__ == "__main__":
    run_stage(main)
