"""Training of the embedded backbone, so that the pipeline needs no download.

A small timm network learns to classify cluttered digits; its classifier is then discarded. All random numbers depend on
(seed, epoch), so training can resume after any epoch and ends with the same bytes.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from bla.base.atomic import replacing
from bla.base.errors import BlaError
from bla.base.specs import Backbone, Pretraining
from bla.networks.backbones import build_backbone
from bla.networks.patches import occlude
from bla.runtime.cache import content_hash
from bla.runtime.seeds import derive_seed

GRID = (7, 7)
"""Rows and columns of patches that are shown or black."""


def pretrain(
    backbone: Backbone,
    images: Tensor,
    labels: Tensor,
    spec: Pretraining,
    seed: int,
    device: torch.device,
    checkpoint: Path,
) -> dict[str, Tensor]:
    """Train the backbone on images uint8 `[N, H, W, 3]` with labels int64 `[N]` from random weights; return its weights, without the classifier on top.

    AdamW with a one-cycle schedule. `checkpoint` (.safetensors) is replaced after every epoch; training resumes from it
    if it exists. Raises BlaError if the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "pretraining"))
        extractor = build_backbone(backbone, images.shape[1])
        classifier = nn.Linear(int(extractor.network.model.num_features), int(labels.max()) + 1)  # type: ignore[arg-type]
    network = nn.ModuleList([extractor, classifier]).to(device).train()
    steps = len(images) // spec.batch_size
    if steps == 0:
        raise BlaError(f"pretraining.batch_size: {spec.batch_size} is more than the {len(images)} training images")
    optimiser = torch.optim.AdamW(network.parameters(), spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, spec.learning_rate, total_steps=steps * spec.epochs)

    done = _restore(checkpoint, network, optimiser, cycle, steps)
    for epoch in range(done, spec.epochs):
        generator = torch.Generator().manual_seed(derive_seed(seed, "pretraining", epoch))
        order = torch.randperm(len(images), generator=generator)[: steps * spec.batch_size]
        total = 0.0
        for batch in tqdm(order.split(spec.batch_size), f"pretrain {epoch + 1}/{spec.epochs}", disable=None):
            # Not from the start: an untrained network does not learn from images with many black patches.
            darkest = spec.occlusion if epoch >= spec.epochs // 2 else 0
            shown = 1 - darkest * torch.rand(len(batch), 1, generator=generator)
            patterns = torch.rand(len(batch), math.prod(GRID), generator=generator) < shown
            masked = occlude(images[batch].to(device), patterns.to(device), GRID)
            pooled = extractor.feature_map(masked).mean((2, 3))
            loss = cross_entropy(classifier(pooled), labels[batch].to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cycle.step()
            total += loss.item() / steps
        if not torch.isfinite(torch.tensor(total)):
            raise BlaError(f"the pretraining loss is not finite in epoch {epoch + 1}; lower pretraining.learning_rate")
        print(f"pretraining: epoch {epoch + 1} of {spec.epochs}, loss {total:.3f}", flush=True)
        _save(checkpoint, network, optimiser, epoch + 1)
    return {name: value.cpu() for name, value in extractor.network.weights().items()}


def _save(checkpoint: Path, network: nn.Module, optimiser: torch.optim.Optimizer, epochs: int) -> None:
    state = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    for number, slots in optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{number}.{name}": value.contiguous() for name, value in slots.items()}
    state["epochs"] = torch.tensor(epochs)
    with replacing(checkpoint) as part:
        save_file(state, part, {"sha256": _hash_of(state)})


def _hash_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of all tensors and their names."""
    return hashlib.sha256(
        "".join(f"{name}:{content_hash(state[name])}\n" for name in sorted(state)).encode()
    ).hexdigest()


def _restore(
    checkpoint: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    cycle: torch.optim.lr_scheduler.OneCycleLR,
    steps: int,
) -> int:
    """Load the checkpoint if there is one and its hash is right; return the number of finished epochs."""
    if not checkpoint.exists():
        return 0
    try:
        state = load_file(checkpoint)
        with safe_open(checkpoint, "pt") as file:
            recorded = (file.metadata() or {}).get("sha256")
    except SafetensorError:
        state, recorded = {}, None
    if not recorded or _hash_of(state) != recorded:
        print(f"{checkpoint}: damaged; training starts again", flush=True)
        return 0
    epochs = int(state["epochs"])
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    slots: dict[int, dict[str, Tensor]] = {}
    parameters = list(network.parameters())
    for key, value in state.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".")
            if name != "step":  # the fused AdamW needs moments in the memory format of their weights, channels last
                value = torch.empty_like(parameters[int(number)]).copy_(value)
            slots.setdefault(int(number), {})[name] = value
    with warnings.catch_warnings(
        action="ignore"
    ):  # a warning that the optimiser has made no step; it has, before the checkpoint
        for _ in range(epochs * steps):
            cycle.step()  # the schedule depends on the number of steps alone
    optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
    return epochs
