"""The command line `bla`: explain, fit, compare, score, browse, methods, plan. Options and help are those of the functions here.

Each command reads a classifier and photographs, and calls the function of the library that has its name.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bla.base.errors import BlaError
from bla.own_classifier.options import (
    Changes,
    Curves,
    Labels,
    Mean,
    Methods,
    ModelName,
    Modules,
    Output,
    Photographs,
    Resize,
    Scores,
    Seed,
    Size,
    Std,
    Weights,
    refuse_existing,
)
from bla.runtime.memory import keep_freed_memory, too_little_memory

if TYPE_CHECKING:
    from bla.own_classifier.methods import Method
    from bla.own_classifier.record import ExplanationRecord
    from bla.own_classifier.wrap import OwnClassifier

app = typer.Typer(
    help="Explain an image classifier of your own: which parts of a photograph did it use?\n\n"
    "Start with `bla plan photo.jpg --model torchvision/resnet18 --weights my.pth --labels labels.txt`, then `bla explain` with "
    "the same options. Modules of BLA are trained first, by `bla fit`. Everything is also a Python function: docs/own_classifier.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def explain(
    photographs: Photographs,
    model: ModelName,
    output: Output,
    weights: Weights = None,
    labels: Labels = None,
    methods: Methods = "grad_cam",
    modules: Modules = None,
    changes: Changes = None,
    target: Annotated[
        str, typer.Option(help="The class to explain: predicted, expected (the photograph's folder), or a label.")
    ] = "predicted",
    scores: Scores = "softmax",
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    seed: Seed = 0,
) -> None:
    """Explain photographs: maps, overlays, a table and contact sheets in a new folder.

    Example: bla explain photo.jpg -m torchvision/resnet18 -w my.pth -l labels.txt --methods cam,lime -o out
    """
    import bla
    from bla.own_classifier.named import load_classifier

    refuse_existing(output)
    own = load_classifier(model, weights, labels, scores=scores, size=size, resize=resize, mean=mean, std=std)
    record = bla.explain(own, photographs, _methods(_names(methods), modules, changes), target=target, seed=seed)
    print(f"{_sentences(record)}\n{record.save(output)}: contact_sheet_1.png, explanations.csv, manifest.json")


@app.command()
def fit(
    folder: Annotated[Path, typer.Argument(help="Training photographs: FOLDER/<class>/*.jpg.", show_default=False)],
    model: ModelName,
    output: Output,
    weights: Weights = None,
    labels: Labels = None,
    methods: Methods = "bla_ph",
    changes: Changes = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Other photographs, TEST/<class>/*.jpg, to measure the accuracy on.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each method, for the spread over runs.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="Of bla_ph, bla, bla_t, l2x_f; others: --set.")] = 20,
    learning_rate: Annotated[float, typer.Option(min=0, max=10, help="Of the same methods.")] = 1e-3,
    scores: Scores = "softmax",
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    seed: Seed = 0,
) -> None:
    """Give your classifier its explanation module (bla_ph: the classifier stays as it is), or fit another learned method.

    Example: bla fit photos/train --test photos/test -m torchvision/resnet18 -w my.pth -l labels.txt -o modules
    """
    import bla
    from bla.own_classifier.fitting import check_fit
    from bla.own_classifier.named import load_classifier
    from bla.own_classifier.photos import read_photos

    refuse_existing(output)
    own = load_classifier(model, weights, labels, scores=scores, size=size, resize=resize, mean=mean, std=std)
    chosen = [check_fit(own, method) for method in _with_settings(_names(methods), changes)]
    photos = read_photos(own, test) if test else None  # errors before the work
    cached = bla.extract_features(own, folder)
    fitted = []
    for method in chosen:  # each is written at once, so that it outlives an interrupt or an error of the next one
        fitted.append(bla.fit(own, cached, method, runs=runs, seed=seed, epochs=epochs, learning_rate=learning_rate))
        fitted[-1].save(output / f"{method.name}.safetensors")
        print(output / f"{method.name}.safetensors")
    if photos:
        print(_accuracies(bla.explain(own, photos, fitted, seed=seed)))


@app.command()
def compare(
    photographs: Photographs,
    model: ModelName,
    output: Output,
    weights: Weights = None,
    labels: Labels = None,
    methods: Methods = "grad_cam,grad_cam_pp,random",
    modules: Modules = None,
    changes: Changes = None,
    scores: Scores = "softmax",
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    seed: Seed = 0,
    curves: Curves = True,
) -> None:
    """Explain photographs with several methods, and measure how faithful they are.

    Example: bla compare photos -m torchvision/resnet18 -w my.pth --methods cam,grad_cam,random -o out
    """
    from bla.own_classifier.named import load_classifier

    refuse_existing(output)
    own = load_classifier(model, weights, labels, scores=scores, size=size, resize=resize, mean=mean, std=std)
    _explain_and_score(own, photographs, _methods(_names(methods), modules, changes), {}, output, seed, curves)


@app.command()
def score(
    photographs: Photographs,
    model: ModelName,
    output: Output,
    maps: Annotated[
        list[Path],
        typer.Option(
            "--maps",
            help="A folder of maps made elsewhere, photo.jpg.npy or photo.npy, [height, width]; repeat it for several.",
            show_default=False,
        ),
    ],
    weights: Weights = None,
    labels: Labels = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Methods of ours beside them, separated by commas.")
    ] = "random",
    modules: Modules = None,
    changes: Changes = None,
    scores: Scores = "softmax",
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    seed: Seed = 0,
    curves: Curves = True,
) -> None:
    """Measure maps that were made elsewhere, beside ours. They lie on the transformed photographs, not on the files.

    Example: bla score photos --maps their_maps -m torchvision/resnet18 -w my.pth --methods cam,random -o out
    """
    from bla.own_classifier.named import load_classifier

    refuse_existing(output)
    own = load_classifier(model, weights, labels, scores=scores, size=size, resize=resize, mean=mean, std=std)
    others = {folder.name: folder for folder in maps}
    if len(others) < len(maps):
        raise BlaError("--maps: two folders have one name; rename one of them")
    _explain_and_score(
        own, photographs, _methods(_names(methods), modules, changes) if methods else [], others, output, seed, curves
    )


@app.command()
def plan(
    photographs: Photographs,
    model: ModelName,
    weights: Weights = None,
    labels: Labels = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Methods, separated by commas.", show_default="all that suit the classifier"),
    ] = None,
    modules: Modules = None,
    changes: Changes = None,
    scores: Scores = "softmax",
    size: Size = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
) -> None:
    """Say how long each method takes for these photographs on this machine, before it runs.

    I-GOS, iGOS++ and SAG are planned with their default settings.

    Example: bla plan photos -m torchvision/resnet18 -w my.pth --methods lime,rise --set lime.patterns=200
    """
    import bla
    from bla.own_classifier.named import load_classifier
    from bla.own_classifier.photos import files_of

    count = sum(len(files_of(path)) for path in photographs)
    own = load_classifier(model, weights, labels, scores=scores, size=size, resize=resize, mean=mean, std=std)
    names = _names(methods) if methods is not None else [*_suitable(own), *_fitted(modules)]
    chosen = _methods(names, modules, changes)
    print(f"{count} photographs; forward passes and seconds each, and the time for all (an estimate)")
    for row in bla.plan(own, chosen):
        print(f"{row.method:<16} {row.passes:>6} {row.seconds:>8.2f} s  {_duration(row.seconds * count):>10}")


@app.command()
def browse(
    folder: Annotated[Path, typer.Argument(help="A folder that explain, compare or score wrote.", show_default=False)],
) -> None:
    """Make a page of explanations that a browser opens from disk: filter, sort, compare methods, mark and copy.

    Example: bla browse out
    """
    import bla
    from bla.base.atomic import save_text

    save_text(folder / "browser.html", bla.browse(bla.load_record(folder), folder.resolve().name))
    print(f"{folder / 'browser.html'}: open it in a browser")


@app.command()
def methods() -> None:
    """List the methods with what their maps show, what they need and what they cost, and their settings (--set).

    Example: bla methods
    """
    from bla.own_classifier.methods import method_names, with_settings

    for name in method_names():
        method = with_settings(name)
        explainer, card = method.explainer, method.explainer.card
        settings = ", ".join(f"{key}={value}" for key, value in asdict(method.settings).items())
        print(f"{name}{'  (bla fit first)' if explainer.learned else ''}\n    {card.sentence}")
        print(f"    needs {card.needs}; cost: {card.cost}\n    {card.source}")
        if settings:
            print(f"    settings: {settings}")


def main() -> None:
    """Run a command; bad input is one message and exit code 1, and so is too little memory."""
    keep_freed_memory()
    try:
        app()
    except Exception as error:
        if memory := too_little_memory(error):
            text = f"too little memory ({memory}); close other programs, or give fewer photographs, and run again"
        elif isinstance(error, BlaError | OSError):  # OSError: a full disk, a folder that was deleted
            text = str(error)
        else:
            raise
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)


def _names(text: str) -> list[str]:
    if names := [name.strip() for name in text.split(",") if name.strip()]:
        return names
    raise BlaError("--methods: name at least one; `bla methods` lists them")


def _fitted(folder: Path | None) -> dict[str, Any]:
    """The fitted methods of a folder, by name."""
    import bla

    if folder is None:
        return {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BlaError(f"{folder}: no .safetensors file of a fitted method; run bla fit ... -o {folder}")
    return {path.stem: bla.load_fitted(path) for path in files}


def _methods(names: Sequence[str], modules: Path | None, changes: Sequence[str] | None) -> list[Any]:
    """The chosen methods with their settings, the fitted ones from their files; BlaError for an unknown or unfitted one."""
    from bla.own_classifier.explaining import as_method

    fitted = _fitted(modules)
    others = {
        method.name: as_method(method) for method in _with_settings([n for n in names if n not in fitted], changes)
    }
    return [fitted.get(name) or others[name] for name in names]


def _with_settings(names: Sequence[str], changes: Sequence[str] | None) -> list["Method"]:
    """The methods with the settings of --set; BlaError where its text cannot be read or the method is none of these."""
    from bla.own_classifier.methods import with_settings

    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in changes or []:
        found = re.fullmatch(r"(\w+)\.(\w+)=(.+)", text)
        if not found:
            raise BlaError(f"--set {text}: must be METHOD.SETTING=VALUE, such as lime.patterns=200")
        name, setting, value = found.groups()
        if name not in settings:
            raise BlaError(
                f"--set {text}: {name} is not among --methods, or is fitted: then bla fit takes its settings"
            )
        try:
            settings[name][setting] = json.loads(value)
        except ValueError:  # a word
            settings[name][setting] = value
    return [with_settings(name, **settings[name]) for name in names]


def _suitable(own: "OwnClassifier") -> list[str]:
    """The methods that need no fitting and suit the classifier."""
    from bla.own_classifier.methods import method_names, with_settings

    suitable = []
    for name in method_names():
        method = with_settings(name)
        try:
            if not method.explainer.learned:
                method.explainer(own.classifier, method.settings)
                suitable.append(name)
        except BlaError as error:
            print(f"{name} is left out: {error}")
    return suitable


def _explain_and_score(
    own: "OwnClassifier", photographs: Sequence[Path], chosen: list[Any], maps: dict[str, Path], output: Path, seed: int, curves: bool
) -> None:  # fmt: skip
    """Explain, measure, save everything and print the means."""
    import bla
    from bla.base.atomic import save_text
    from bla.own_classifier.record import spreadsheet

    record, table = bla.compare(own, photographs, chosen, maps, seed=seed, curves=curves)
    means = bla.summary(table)
    record.save(output)
    save_text(output / "scores.csv", spreadsheet(table))
    save_text(output / "summary.csv", spreadsheet(means, index=True))
    print(f"{means.round(3).to_string()}\n{output}: summary.csv, scores.csv{', contact_sheet_1.png' if chosen else ''}")


def _sentences(record: "ExplanationRecord") -> str:
    """A line per image, of the first ten."""
    lines = [
        f"{name}: {record.labels[record.predicted[n]]}, {record.probabilities[n].max():.2f}"
        for n, name in enumerate(record.names)
    ]
    return "\n".join(lines[:10] + ([f"... and {len(lines) - 10} more"] if lines[10:] else []))


def _accuracies(record: "ExplanationRecord") -> str:
    """Accuracy with all and with the explained cells, and their number, by method and run."""
    table = record.table()
    if table["expected"].isna().any():
        return "the accuracy is not known: not all photographs are in folders named after the classes"
    table["all cells"] = table["predicted"] == table["expected"]
    table["explained cells"] = table["predicted_with_explained_cells"] == table["expected"]
    means = table.groupby(["method", "run"], sort=False)[["all cells", "explained cells", "cells"]].mean()
    cells = next(iter(record.results.values())).hard[0, 0].size
    return f"accuracy on {len(record.names)} photographs, and number of explained cells, of {cells}\n{means.round(3).to_string()}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
