"""Stage `maps@DATASET`: the maps of every explanation method on some test images, in data/maps/.

And once more where the image is noisy or the classifier random. LIME's own maps are those of the stage `lime`. What is done
with a method is kept in .work under a hash of all that decides it, so that a further method costs no other anything.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from bla import classifier, explainer, selection, training
from bla.backbones import extract
from bla.classifier import Classifier
from bla.datasets import spread_over_classes
from bla.explainer import Explainer, add_noise, cell_maps
from bla.explainers import explainer_class
from bla.explainers.attention import Attention
from bla.metrics import randomisation
from bla.metrics.randomisation import cascade, cascade_levels
from bla.paper import COLUMNS
from bla.seeds import derive_seed
from bla.specs import Explaining
from bla.training import Head, Module, train
from pipeline.explained import Explained, load_explained, load_module, told_of
from pipeline.files import content_key, load_array, replacing, save_table
from pipeline.lime import lime_seeds
from pipeline.paths import IMAGES, LIME_MAPS, MAPS
from pipeline.results import load_features
from pipeline.settings import Settings, load_settings
from pipeline.stage import WORK, run_stage

Arrays = dict[str, NDArray[Any]]
Modules = dict[str, tuple[Explaining, Module]]


def main(dataset: str) -> None:
    """Write DATASET.safetensors, maps `[M, n]` (NaN for an image that was left out), and DATASET.csv, a row a method.

    `maps/METHOD`; `noise/METHOD`, of the noisy images; `random/METHOD` `[L, M, n]`, of classifiers that are random down to
    each level of the cascade; `retrained/VARIANT` `[2, M, n]`, of modules trained on the first and the last of those.
    """
    settings = load_settings()
    spec, explained = settings.faithfulness, load_explained(dataset, settings)
    model, device = explained.classifier.run(spec.run), explained.images.device
    lime = load_file(LIME_MAPS / f"{dataset}.safetensors")
    targets = torch.from_numpy(lime["targets"][spec.run])
    modules = {key: _module_of_run(dataset, key, settings, device) for key in settings.variants}
    seed = derive_seed(settings.seed, dataset, "randomisation")
    told = [
        *told_of(explained, dataset, settings),
        targets.tolist(),
        explained.slow.tolist(),
        explained.checked.tolist(),
    ]
    told += [spec.run, spec.noise, settings.seed, Path(__file__).read_text()]
    told += [inspect.getsource(code) for code in (classifier, explainer, randomisation, selection)]

    arrays: Arrays = {"images": explained.numbers, "targets": targets.numpy()}
    rows = []
    names = ["lime", *settings.explainers, *settings.variants]
    for name in (bar := tqdm(names, unit="method", disable=None)):
        bar.set_description(f"{dataset} maps, {name}")
        own = _seeds(dataset, name, settings, explained.numbers)
        method = _build(name, model, settings, modules)

        def explain(name: str = name, own: Tensor = own) -> Arrays:
            given = lime["maps"][spec.run] if name == "lime" else None
            build = lambda model: _build(name, model, settings, modules)  # noqa: E731
            return _explain(build, model, explained, targets.to(device), own, spec.noise, seed, given)

        found = _kept(f"maps-{dataset}-{name}", [*told, _told(name, settings, modules), own.tolist()], explain)
        row: dict[str, Any] = {"method": name, "title": COLUMNS.get(name, name) if name in modules else method.title}
        row |= {"learned": method.learned, "control": method.control, "slow": method.slow}
        rows.append(row | {"forwards": found.pop("forwards").item(), "backwards": method.backwards})
        arrays |= {f"{kind}/{name}": values for kind, values in found.items()}

    told += [spec.retraining_images, asdict(settings.dataset[dataset].training), inspect.getsource(training)]
    told += [(IMAGES / dataset / "train_images.npy").stat().st_mtime_ns]
    for name in settings.variants:

        def retrain(name: str = name) -> Arrays:
            return {"retrained": _retrain(dataset, name, settings, explained, model, seed)}

        arrays |= {
            f"retrained/{name}": _kept(f"retrained-{dataset}-{name}", [*told, _told(name, settings, modules)], retrain)[
                "retrained"
            ]
        }
    with replacing(MAPS / f"{dataset}.safetensors") as part:
        save_file(arrays, part, {"levels": "\n".join(cascade_levels(model))})
    save_table(MAPS / f"{dataset}.csv", pd.DataFrame(rows))
    print(f"{dataset}: maps of {len(names)} methods on {len(targets)} images, of slow ones on {explained.slow.sum()}")


def _kept(name: str, told: list[Any], make: Callable[[], Arrays]) -> Arrays:
    """What `make` makes, from .work if it was made before."""
    path = WORK / f"{name}-{content_key(told)}.safetensors"
    if not path.exists():
        made = make()
        for stale in WORK.glob(f"{name}-" + "[0-9a-f]" * 16 + ".safetensors"):
            stale.unlink()
        with replacing(path) as part:
            save_file(made, part)
    return load_file(path)


def _module_of_run(dataset: str, key: str, settings: Settings, device: torch.device) -> tuple[Explaining, Module]:
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


def _build(name: str, model: Classifier, settings: Settings, modules: Modules) -> Explainer:
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


def _explain(
    build: Callable[[Classifier], Explainer],
    model: Classifier,
    explained: Explained,
    targets: Tensor,
    seeds: Tensor,
    noise: float,
    seed: int,
    given: NDArray[np.float64] | None,
) -> Arrays:
    """The arrays of one method; `given` are its maps if they are there already."""
    method = build(model)
    every = np.ones(len(targets), bool)
    chosen, checked = (explained.slow, explained.checked) if method.slow else (every, every)
    grid = method.grid(explained.images)

    def maps(model: Classifier, images: Tensor, which: NDArray[np.bool_]) -> NDArray[np.float64]:
        result = np.full((len(targets), grid * grid), np.nan)
        rows = torch.from_numpy(np.nonzero(which)[0])
        on = rows.to(images.device)
        result[which] = cell_maps(build(model), images[on], targets[on], seeds[rows], grid).numpy()
        return result

    arrays = {"maps": maps(model, explained.images, chosen) if given is None else given}
    before = model.forwards
    arrays["noise"] = maps(model, add_noise(explained.images, noise, seeds), checked)
    arrays["forwards"] = np.array((model.forwards - before) / checked.sum())
    levels = len(cascade_levels(model))
    arrays["random"] = np.full((levels, *arrays["maps"].shape), np.nan)
    for level, random in enumerate(cascade(model, seed)):
        if not method.slow or level in (0, levels - 1):
            arrays["random"][level] = maps(random, explained.images, checked)
    return arrays


def _retrain(
    dataset: str, key: str, settings: Settings, explained: Explained, model: Classifier, seed: int
) -> NDArray[np.float64]:
    """Maps `[2, M, n]` of modules that are trained on the classifier with a random head, and on a random classifier.

    The head stays random whatever the variant says: one that trains would undo the randomisation.
    """
    variant, _ = load_module(dataset, key, settings)
    schedule = settings.dataset[dataset].training
    features, labels = load_features(dataset, "train")
    images = load_array(IMAGES / dataset / "train_images.npy")
    chosen = np.sort(
        spread_over_classes(labels.cpu().numpy(), min(settings.faithfulness.retraining_images, len(labels)))
    )
    found = []
    classifiers = list(cascade(model, seed))
    for level in (0, -1):
        random = classifiers[level]
        some = features[:, torch.from_numpy(chosen).to(features.device)]
        if level:
            parts = extract(random.extractor, images[chosen], features.device)
            some = torch.from_numpy(np.concatenate(list(parts)))[None].to(features.device)
        head = Head(random.head_weight.detach(), random.head_bias.detach())
        own = [derive_seed(settings.seed, dataset, key, "retrained", level)]
        trained = train(some, labels[torch.from_numpy(chosen).to(labels.device)], replace(variant, head="frozen"), head, own, schedule, schedule.epochs)  # fmt: skip
        assert trained.module is not None
        module = Module(*(value.to(features.device) for value in (trained.module.weight, trained.module.bias)))
        grid = random.extractor.feature_map(explained.images[:1]).shape[3]
        none = torch.zeros(len(explained.images), dtype=torch.int64, device=features.device)
        found.append(cell_maps(Attention(random, variant, module), explained.images, none, none, grid).numpy())
    return np.stack(found)


if __name__ == "__main__":
    run_stage(main)
