"""Options of the command line `bla` that several commands share."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bla.base.errors import BlaError

Photographs = Annotated[
    list[Path], typer.Argument(help="Photographs (JPEG, PNG), or folders of them.", show_default=False)
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", "-m", show_default=False,
        help="torchvision/NAME, a timm model, or a Python file that defines build(), and, if needed, transform, features and tail.",
    ),
]  # fmt: skip
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", "-w", show_default=False,
        help="A .safetensors file, or a .pth file with a state dict; prefixes such as module. are removed. Not needed if build() loads them.",
    ),
]  # fmt: skip
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels", "-l", help="A text file with a class a line, in the order of the scores.", show_default="numbers"
    ),
]
Scores = Annotated[str, typer.Option("--scores", help="How scores become probabilities: softmax or sigmoid.")]
Size = Annotated[
    str | None,
    typer.Option(
        "--size", help="The classifier's input in pixels: 224, or 160x256 (height x width).", show_default="the model's"
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize",
        help="With --size: the shorter side before the crop, or HEIGHTxWIDTH.",
        show_default="--size: no crop",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", help="With --size: mean of each channel, for pixels in 0 to 1.", show_default="ImageNet's"),
]
Std = Annotated[
    str | None, typer.Option("--std", help="With --size: divisor of each channel.", show_default="ImageNet's")
]
Methods = Annotated[str, typer.Option("--methods", help="Methods, separated by commas; `bla methods` lists them.")]
Modules = Annotated[
    Path | None,
    typer.Option(
        "--modules", help="The folder that `bla fit` wrote, for bla_ph and other learned methods.", show_default=False
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="A new folder for the results.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Seed of methods that draw random numbers.")]
Curves = Annotated[bool, typer.Option(help="Deletion and insertion curves, which take most of the time.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="METHOD.SETTING=VALUE", show_default=False,
        help="A setting of a method, such as lime.patterns=200; repeat it for several. `bla methods` lists them.",
    ),
]  # fmt: skip


def refuse_existing(output: Path) -> None:
    """Raise BlaError before the work if the results could not be written to this folder."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BlaError(f"--output {output}: exists and is not an empty folder; name another, or delete it")
    new = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        raise BlaError(f"--output {output}: cannot be written ({error.strerror}); name another folder") from error
    finally:
        for folder in filter(Path.exists, new):
            folder.rmdir()
