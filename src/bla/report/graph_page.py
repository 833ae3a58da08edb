"""A page in which a person walks the structured attention graphs of some images: one HTML file, offline.

html = graph_page("painted_birds", [GraphOfImage(...), ...])

The photo is shown as the classifier saw it, with the patches of the chosen set alone. Names are escaped, and the page may
load nothing (Content-Security-Policy).
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bla.experiments.related_methods.structure.graph import MOST_SHOWN, Graph
from bla.report.page import STYLE


@dataclass(frozen=True)
class GraphOfImage:
    """An image uint8 `[H, W, 3]`, its number and explained class, the class's probability, and its graph.

    `black` is the share of the probability that the black image alone keeps, if that suffices, else None.
    """

    number: int
    pixels: NDArray[np.uint8]
    class_name: str
    probability: float
    graph: Graph
    black: float | None


def graph_page(dataset: str, images: Sequence[GraphOfImage], grid: tuple[int, int]) -> str:
    """The page as HTML; `grid` are the rows and columns of patches."""
    data = {"grid": grid, "most": MOST_SHOWN, "images": [_as_json(image) for image in images]}
    # In JSON, < stands only in strings, so that \u003c is the same text and no name can end the script.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    title = f"Which patches suffice? {dataset}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{STYLE}{OWN_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{INTRODUCTION}<p>{_without_sets(images)}</p>\n{BODY}\n"
        f'<script type="application/json" id="data">{text}</script>\n<script>{SCRIPT}</script></body></html>\n'
    )


def _without_sets(images: Sequence[GraphOfImage]) -> str:
    """How many images have no sufficient set, and why; empty if all have one."""
    black = sum(image.black is not None for image in images)
    other = sum(image.black is None and image.graph.verdicts[:1] == ["not_sufficient"] for image in images)
    texts = []
    if black:
        texts.append(f"{black} of {len(images)} images {'needs' if black == 1 else 'need'} no patch: the black image alone is enough.")  # fmt: skip
    if other:
        texts.append(f"{other} of {len(images)} images {'has' if other == 1 else 'have'} no set that is enough when it is evaluated again.")  # fmt: skip
    return " ".join([*texts, "The statistics of sets leave such images out."] if texts else [])


def _as_json(image: GraphOfImage) -> dict[str, object]:
    file = io.BytesIO()
    Image.fromarray(image.pixels).save(file, "PNG")
    photo = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    named = {"number": image.number, "class": image.class_name, "probability": image.probability}
    stars = [image.graph.star(node) for node in range(len(image.graph.nodes))]
    return named | {"black": image.black, "photo": photo, "stars": stars} | asdict(image.graph)


OWN_STYLE = """
button { font: inherit; color: inherit; background: var(--soft); border: 1px solid var(--line); border-radius: .3rem;
  padding: .35rem .6rem; cursor: pointer }
button:focus-visible, g:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
#images { display: flex; flex-wrap: wrap; gap: .4rem } #images button { padding: .2rem } #images img { width: 56px; display: block }
#images button[aria-pressed=true] { border-color: var(--link); box-shadow: 0 0 0 2px var(--link) }
.walk { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin-top: 1rem } .walk > div { flex: 1 1 20rem; min-width: 0 }
canvas { width: min(100%, 22rem); image-rendering: auto; border: 1px solid var(--line); display: block }
.bar { height: 1rem; background: var(--soft); border: 1px solid var(--line); position: relative; max-width: 22rem }
.bar i { position: absolute; inset: 0 auto 0 0; background: #0072b2 } .bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; background: #d55e00 }
#less, #more { display: flex; flex-wrap: wrap; gap: .4rem }
#graph { overflow-x: auto; border: 1px solid var(--line) } #graph svg { display: block; margin: 0 auto }
#graph g { cursor: pointer } #graph line { stroke: var(--line); stroke-width: 1.5 } #graph line.on { stroke: #d55e00; stroke-width: 3 }
#graph rect.box { stroke: var(--ink); stroke-width: 1 } #graph g[aria-current=true] rect.box { stroke: #d55e00; stroke-width: 3 }
#graph text { font-size: 11px; fill: var(--ink); text-anchor: middle } .key span { display: inline-block; padding: 0 .5rem; border: 1px solid var(--line) }
"""
INTRODUCTION = """<p>A set marked with ★ is enough: shown these patches alone, and black elsewhere, the classifier keeps at least
90 % of its confidence, and no part of the set is enough (of more than 10 patches: it is not without any one of them).
A set marked with ☆ is enough too, but so is a part of it.
Choose a set, then take a patch away.</p>
"""
BODY = """<div id="images" role="group" aria-label="images"></div>
<p id="what"></p>
<div class="walk"><div><canvas role="img"></canvas></div><div>
<p id="confidence" aria-live="polite"></p><div class="bar"><i></i><b></b></div>
<h3>Take a patch away</h3><div id="less"></div><h3>Put a patch back</h3><div id="more"></div></div></div>
<h2>The graph</h2><p class="key"><small>Colour: share of the full confidence. <span style="background:#9fd0ee;color:#000">90 % and more</span>
<span style="background:#f2dfa0;color:#000">50 to 90 %</span> <span style="background:#e8b79f;color:#000">less than 50 %</span>
Keys: ↓ takes the first patch away, ↑ puts one back, ← and → go along the row. A set is followed further where it keeps
more than 40 %, without its first three patches.</small></p><div id="graph"></div>"""
SCRIPT = """
'use strict';
const data = JSON.parse(document.getElementById('data').textContent), [rows, columns] = data.grid;
const get = id => document.getElementById(id), svgns = 'http://www.w3.org/2000/svg';
const canvas = document.querySelector('canvas'), at = cell => `row ${Math.floor(cell / columns) + 1}, column ${cell % columns + 1}`;
const percent = value => value > data.most ? `more than ${100 * data.most} %` : value < .9 && value >= .895 ? 'just below 90 %' : `${Math.round(100 * value)} %`;
const band = value => value >= .9 ? '#9fd0ee' : value >= .5 ? '#f2dfa0' : '#e8b79f';
const verdicts = {minimal: ' No part of it is enough.', no_patch_can_go: ' Without any one of its patches it is not; smaller parts were not tried.',
  part_suffices: ' Not minimal: a part of it is enough.'};
let image, node, photo = null;
function make(tag, attributes, parent, svg) {
  const element = svg ? document.createElementNS(svgns, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element); return element;
}
function button(parent, text, work) { const b = make('button', {type: 'button'}, parent); b.textContent = text; b.onclick = work; return b; }
function shown(value, count, size) {  // the two grid points around a pixel and the share of the second (corners aligned)
  const place = size > 1 ? value * (count - 1) / (size - 1) : 0, low = Math.min(Math.floor(place), Math.max(count - 2, 0));
  return [low, Math.min(low + 1, count - 1), place - low];
}
function paint() {
  if (!photo || !photo.complete) return;
  const w = canvas.width = photo.naturalWidth, h = canvas.height = photo.naturalHeight, context = canvas.getContext('2d');
  context.drawImage(photo, 0, 0);
  const pixels = context.getImageData(0, 0, w, h), cells = new Float32Array(rows * columns);
  for (const cell of image.nodes[node]) cells[cell] = 1;
  for (let y = 0; y < h; y++) { const [a, b, s] = shown(y, rows, h);
    for (let x = 0; x < w; x++) { const [c, d, t] = shown(x, columns, w), i = 4 * (y * w + x);
      const m = (1 - s) * ((1 - t) * cells[a * columns + c] + t * cells[a * columns + d]) + s * ((1 - t) * cells[b * columns + c] + t * cells[b * columns + d]);
      for (let k = 0; k < 3; k++) pixels.data[i + k] *= m; } }
  context.putImageData(pixels, 0, 0);
}
function choose(number, focus) {
  node = number; const cells = image.nodes[node], value = image.confidences[node], verdict = image.verdicts[image.roots.indexOf(number)];
  const enough = verdict ? verdict !== 'not_sufficient' : value >= .9;
  get('confidence').textContent = `${cells.length} ${cells.length === 1 ? 'patch keeps' : 'patches keep'} ${percent(value)} of the confidence: ` +
    `${(value * image.probability).toFixed(2)} of ${image.probability.toFixed(2)}. ${enough ? 'Enough.' : 'Not enough.'}` +
    (verdicts[verdict] ?? '');
  document.querySelector('.bar i').style.width = `${Math.min(100, 100 * value)}%`;
  document.querySelector('.bar b').style.left = '90%';
  canvas.setAttribute('aria-label', `The image with ${cells.map(at).join('; ')} alone`);
  for (const [id, from, to] of [['less', 0, 1], ['more', 1, 0]]) {
    get(id).replaceChildren();
    for (const edge of image.edges.filter(edge => edge[from] === node))
      button(get(id), `${at(edge[2])} → ${percent(image.confidences[edge[to]])}`, () => choose(edge[to], true));
    if (!get(id).children.length) get(id).textContent = '–';
  }
  for (const g of get('graph').querySelectorAll('g')) { const on = Number(g.dataset.node) === node;
    g.setAttribute('aria-current', on); g.setAttribute('tabindex', on ? 0 : -1);
    if (on && focus) { g.focus({preventScroll: true}); const frame = get('graph'), place = Number(g.dataset.x);
      frame.scrollLeft = place - frame.clientWidth / 2; } }
  for (const line of get('graph').querySelectorAll('line'))
    line.classList.toggle('on', Number(line.dataset.parent) === node || Number(line.dataset.child) === node);
  paint();
}
function draw() {
  const sizes = [...new Set(image.nodes.map(cells => cells.length))].sort((a, b) => b - a), frame = get('graph'), cell = 7, side = columns * cell;
  const layers = sizes.map(size => image.nodes.map((_, i) => i).filter(i => image.nodes[i].length === size));
  const step = side + 26, width = Math.max(...layers.map(layer => layer.length)) * step + 20, height = sizes.length * (rows * cell + 60) + 10;
  frame.replaceChildren(); const svg = make('svg', {width, height, role: 'group', 'aria-label': 'graph'}, frame, true), places = {};
  layers.forEach((layer, y) => layer.forEach((i, x) => places[i] = [width / 2 + (x - (layer.length - 1) / 2) * step, 12 + y * (rows * cell + 60)]));
  for (const [parent, child] of image.edges) make('line', {x1: places[parent][0], y1: places[parent][1] + rows * cell + 16, x2: places[child][0],
    y2: places[child][1], 'data-parent': parent, 'data-child': child}, svg, true);
  image.nodes.forEach((cells, i) => {
    const [x, y] = places[i], g = make('g', {role: 'button', 'data-node': i, 'data-x': x,
      'aria-label': `${cells.map(at).join('; ')}: ${percent(image.confidences[i])}`}, svg, true);
    make('rect', {x: x - side / 2, y, width: side, height: rows * cell, fill: band(image.confidences[i]), class: 'box'}, g, true);
    for (const c of cells) make('rect', {x: x - side / 2 + c % columns * cell, y: y + Math.floor(c / columns) * cell, width: cell, height: cell, fill: '#222'}, g, true);
    make('text', {x, y: y + rows * cell + 13}, g, true).textContent = image.stars[i] + percent(image.confidences[i]);
    g.onclick = () => choose(i, true);
    g.onkeydown = event => {
      const edges = image.edges, layer = layers.find(layer => layer.includes(i)), place = layer.indexOf(i);
      const next = {ArrowDown: () => edges.find(e => e[0] === i)?.[1], ArrowUp: () => edges.find(e => e[1] === i)?.[0],
        ArrowLeft: () => layer[place - 1], ArrowRight: () => layer[place + 1], Enter: () => i, ' ': () => i}[event.key];
      if (!next) return; event.preventDefault(); const to = next(); if (to !== undefined) choose(to, true); };
  });
}
function open(number) {
  image = data.images[number];
  [...get('images').children].forEach((b, i) => b.setAttribute('aria-pressed', i === number));
  const first = image.verdicts[0], black = image.black > 1 ? 'has more confidence than the whole image' : `keeps ${percent(image.black)} of it`;
  get('what').textContent = `Image ${image.number}, class ${image.class}, probability ${image.probability.toFixed(2)}.` + (image.black !== null ?
    ` The black image alone ${black}, so no patch is needed; the set below is only the first patch of the guide.` :
    first === 'not_sufficient' ? ' No set that was found is enough when it is evaluated again.' : '');
  photo = new Image(); photo.onload = paint; photo.src = image.photo; draw(); choose(image.roots[0], false);
}
data.images.forEach((item, i) => { const b = make('button', {type: 'button', 'aria-label': `image ${item.number}, ${item.class}`}, get('images'));
  make('img', {src: item.photo, alt: ''}, b); b.onclick = () => open(i); });
if (data.images.length) open(0); else get('what').textContent = 'SAG explained no image of this dataset.';
"""
