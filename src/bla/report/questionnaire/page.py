"""The questionnaire of the user study as one HTML page, which needs no network and no server.

    html = questionnaire([StudyDataset(...), ...])

The layout of a comparison is that of the paper's Figures 5 and 6: the image, below it two explanations side by side.
The class is predicted from an image in which only the cells of the explanation are visible; Grad-CAM shows as many
cells as BLA-T, those with its largest values. Answers stay in the browser until the person saves them as a file.

Source: Baumhauer et al. 2021, section 4.4 and Figures 5 and 6.
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bla.experiments.explanations.user_study.protocol import (
    AGES,
    AGREEMENT,
    COMPREHENSION,
    GENDERS,
    METHODS,
    OPTIONS,
    OTHERS,
    QUESTIONS,
    UNDERSTOOD,
)
from bla.plotting.overlay import overlay
from bla.report.questionnaire.pictures import EXAMPLE, ITEM, example_picture
from bla.report.questionnaire.script import SCRIPT

Pixels = NDArray[np.uint8]
HIDDEN = 128
"""Grey value of cells that an explanation leaves out."""
EXAMPLE_SIDE = 112
"""Pixels of the picture of a class beside its name."""
NO_HASH = "0" * 64
"""In place of the page's hash when it is computed."""


@dataclass(frozen=True)
class StudyDataset:
    """A dataset of the study: M test images uint8 `[M, H, W, 3]`, their `numbers` and decided classes, and maps `[M, h, w]`.

    `maps` are by method of the protocol; those of BLA-T, L2X-F and another image are 0 or 1. `departures`: how the
    settings differ from the paper's, in words. `examples` are a training image `[H, W, 3]` of each class that has one.
    """

    name: str
    kind: str
    departures: Sequence[str]
    classes: Sequence[str]
    numbers: NDArray[np.int64]
    images: Pixels
    decided: NDArray[np.int64]
    maps: Mapping[str, NDArray[np.float64]]
    examples: Mapping[int, Pixels]


def questionnaire(datasets: Sequence[StudyDataset]) -> str:
    """The page; its SHA-256, computed with `NO_HASH` in the place of the hash, is in the page and in every file of answers."""
    study = {
        "page": NO_HASH,
        "questions": QUESTIONS,
        "options": OPTIONS,
        "others": list(OTHERS),
        "methods": list(METHODS),
        "understood": UNDERSTOOD,
        "datasets": [_of_dataset(dataset) for dataset in datasets],
    }
    # In a script element only "<" could end the element.
    data = json.dumps(study, separators=(",", ":")).replace("<", "\\u003c")
    page = _document(data)
    digest = hashlib.sha256(page.encode()).hexdigest()
    return page.replace(f'"page":"{NO_HASH}"', f'"page":"{digest}"', 1)


def visible_cells(maps: Mapping[str, NDArray[np.float64]], method: str, image: int) -> NDArray[np.bool_]:
    """The cells `[h, w]` of an image that are visible when its class is predicted."""
    if method != "grad_cam":
        return np.asarray(maps[method][image] > 0)
    values, count = maps[method][image], int((maps["bla_t"][image] > 0).sum())
    chosen = np.zeros(values.size, bool)
    chosen[np.argsort(-values.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(values.shape)


def only_cells(image: Pixels, cells: NDArray[np.bool_]) -> Pixels:
    """The image `[H, W, 3]` with every pixel outside these cells `[h, w]` grey."""
    rows, columns = (np.arange(size) * count // size for size, count in zip(image.shape[:2], cells.shape, strict=True))
    return np.where(cells[rows][:, columns, None], image, np.uint8(HIDDEN))


def _of_dataset(dataset: StudyDataset) -> dict[str, object]:
    about = {"name": dataset.name, "kind": dataset.kind, "departures": list(dataset.departures)}
    images = [_of_image(dataset, image) for image in range(len(dataset.images))]
    small = {
        label: Image.fromarray(image).resize((EXAMPLE_SIDE, EXAMPLE_SIDE)) for label, image in dataset.examples.items()
    }
    examples = [_jpeg(np.asarray(small[k])) if k in small else "" for k in range(len(dataset.classes))]
    return {**about, "classes": list(dataset.classes), "examples": examples, "images": images}


def _of_image(dataset: StudyDataset, number: int) -> dict[str, object]:
    pixels, maps = dataset.images[number], dataset.maps
    return {
        "number": int(dataset.numbers[number]),
        "decided": int(dataset.decided[number]),
        "photo": _jpeg(pixels),
        "overlays": {method: _overlaid(pixels, maps[method][number]) for method in METHODS},
        "masks": {method: _jpeg(only_cells(pixels, visible_cells(maps, method, number))) for method in METHODS},
    }


def _overlaid(image: Pixels, values: NDArray[np.float64]) -> str:
    return _jpeg(np.rint(255 * overlay(image, values)).astype(np.uint8))


def _jpeg(pixels: Pixels) -> str:
    """A picture as a data address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _radios(name: str, answers: Sequence[str]) -> str:
    rows = (f'<label><input type="radio" name="{name}" value="{a}" required> {html.escape(a)}</label>' for a in answers)
    return "".join(rows)


def _example(cells: Sequence[tuple[int, int]], alt: str, caption: str) -> str:
    return f'<figure><img src="{_overlaid(*example_picture(EXAMPLE, cells))}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def _document(data: str) -> str:
    """The page around the study's data, which are JSON."""
    ball, sky = ((4, 2), (4, 3), (5, 2), (5, 3)), ((0, 5), (0, 6), (1, 5), (1, 6))
    scene, _ = example_picture(EXAMPLE, ball)
    item, sun = example_picture(ITEM, ((0, 5), (0, 6), (1, 5), (1, 6)))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Which explanation is more reasonable?</title><style>{STYLE}</style></head>
<body><noscript><p>This page needs JavaScript.</p></noscript>
<p id="unsaved" hidden>This browser does not save your answers: do not close or reload this page before the end.</p>
<div id="progress" hidden><label for="bar" id="place"></label><progress id="bar"></progress></div>
<main>
<section id="consent" hidden><h1 tabindex="-1">Which explanation is more reasonable?</h1>
<p>This study is about computer systems that recognise what an image shows, and about pictures that explain what such a
system looks at. You will compare such pictures. This takes about 15 minutes.</p>
<ul><li>Taking part is voluntary. You can stop at any time: close this page.</li>
<li>You are asked for your age, gender and experience. You are not asked for your name, address or any text of your own.</li>
<li>Your answers, with the time that each took, stay in this browser. At the end you save them as a file. Nobody has them
unless you send this file.</li>
<li>You can reload the page, or close it and go on within a day, in the same browser.</li>
<li>Results are published as totals of all participants.</li></ul>
<form id="consent-form"><label><input type="checkbox" required> I am at least {AGES[0]} years old, I have read this, and I agree to take
part.</label><button>Start</button></form></section>
<section id="about" hidden><h1 tabindex="-1">About you</h1>
<form id="about-form"><fieldset><legend>Age in years (you may leave this empty)</legend>
<input type="number" name="age" min="{AGES[0]}" max="{AGES[1]}" aria-label="Age in years"></fieldset>
<fieldset><legend>Gender</legend>{_radios("gender", GENDERS)}</fieldset>
<fieldset><legend>I have technical experience with machine learning or artificial intelligence (ML/AI).</legend>
{_radios("ml", AGREEMENT)}</fieldset>
<fieldset><legend>I have technical experience with explainable artificial intelligence (XAI).</legend>
{_radios("xai", AGREEMENT)}</fieldset><button>Next</button></form></section>
<section id="introduction" hidden><h1 tabindex="-1">What you will see</h1>
<p>A system decided that this drawing shows a <b>ball</b>. An explanation shows on which parts of the image the decision is
based: <b class="red">red</b> parts were used, <b class="blue">dark blue</b> parts were not.</p>
<div class="one"><figure><img src="{_jpeg(scene)}" alt="A drawing of a red ball on grass, with a sun in the sky"><figcaption>The image</figcaption></figure></div>
<div class="two">{_example(ball, "The ball is red, everything else blue", "Reasonable: the system looks at the ball.")}
{_example(sky, "A corner of the sky is red, everything else blue", "Not reasonable: the system looks at the sun, which says nothing about a ball.")}</div>
<p>Often none of two explanations is perfect. Choose the more reasonable one, or say that both are equally reasonable. Here no
answer is right or wrong; only in the last few questions there is one right answer.</p><form id="introduction-form"><button>Next</button></form></section>
<section id="comprehension" hidden><h1 tabindex="-1">One test question</h1>
<p>A system decided that the left drawing shows a <b>house</b>. The right picture explains the decision. Where does the system look?</p>
<div class="two"><figure><img src="{_jpeg(item)}" alt="A drawing of a house on grass, with a sun in the sky"><figcaption>The image</figcaption></figure>
<figure><img src="{_overlaid(item, sun)}" alt="The explanation"><figcaption>The explanation</figcaption></figure></div>
<form id="comprehension-form">{_radios("choice", COMPREHENSION)}
<p id="hint" hidden>Not quite: red parts were used, dark blue parts were not. Try again.</p><button>Next</button></form></section>
<section id="question" hidden><h1 tabindex="-1" id="what"></h1><p id="text"></p>
<div class="one" id="photo"></div><div class="two" id="pair"></div>
<form id="question-form"><fieldset id="choices"></fieldset><button>Next</button></form></section>
<section id="end" hidden><h1 tabindex="-1">Thank you</h1>
<p>Save your answers, and send the file to the person who gave you this page. Your answers cannot be changed any more.</p>
<p><a id="download" class="button">Save my answers</a></p>
<details><summary>Show the file</summary><p>If it cannot be saved, copy this text.</p><pre id="answers"></pre></details></section>
</main><script type="application/json" id="study">{data}</script><script>{SCRIPT}</script></body></html>
"""


STYLE = """
:root { color-scheme: light } * { box-sizing: border-box }
body { font: 17px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 44rem; margin: 0 auto;
  padding: 1rem 1rem 3rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.2; outline: none }
[hidden] { display: none !important }
.one { max-width: 19rem; margin: 0 auto } .two { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; max-width: 39rem; margin: 0 auto }
figure { margin: .4rem 0 } img { width: 100%; display: block; border: 1px solid #d8d8d4 }
figcaption { text-align: center; font-size: .95rem }
fieldset { border: 1px solid #d8d8d4; margin: 1rem 0; padding: .4rem .8rem } legend { padding: 0 .3rem }
fieldset:empty { display: none } label { display: block; padding: .35rem 0 } input[type=number] { font: inherit; width: 6rem }
input[type=radio], input[type=checkbox] { width: 1.15rem; height: 1.15rem; vertical-align: -.2rem }
button, .button { font: inherit; display: inline-block; padding: .6rem 1.6rem; margin: .6rem 0; border: 0; border-radius: .3rem;
  background: #0645ad; color: #fff; text-decoration: none; cursor: pointer }
#progress { font-size: .9rem } progress { width: 100%; height: .6rem; display: block } #hint { color: #a03000 }
label img { width: 6rem; display: inline-block; vertical-align: middle; margin: 0 .4rem }
#unsaved { background: #f9dcc4; padding: .5rem .8rem } .red { color: #b00020 } .blue { color: #1d3fae }
pre { font-size: .75rem; white-space: pre-wrap; max-height: 20rem; overflow: auto; background: #f3f3ef; padding: .6rem }
@media (max-width: 500px) { .one { max-width: 14rem } .two { gap: .4rem } body { font-size: 16px } }
"""
