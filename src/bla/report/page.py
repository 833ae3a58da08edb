"""The frame that all pages share: style for screens of any width, dark mode and print, and links to the other pages.

html = page("Table 1", body, here="table1", names=["table1", "explanations"])
"""

import html
import re
from collections.abc import Sequence

REPORTS = {
    "index": "Front page: what the method does, and which claims hold",
    "table1": "Table 1 and Figure 3: accuracy, loss, every test and every claim",
    "explanations": "Explanations: what each column looks at, how many cells it needs, and what that depends on",
    "faithfulness": "Faithfulness: Table 2, the effects of parts, and every method under the field's metrics",
    "temperature_threshold": "Temperature and threshold: what they do, and where learning dies",
    "small_cnn": "Small network: section 4.1, 3 and 8, trained whole with and without bounded logits",
    "two_network_l2x": "L2X: section 4.1 with two networks, and why its hard explanations fall to chance",
    "subset_selection": "Subset selection: BLA-T and L2X on synthetic data whose relevant features are known",
    "abandoned_modules": "Abandoned modules: section 3.3, a concept vector and pointwise attention (Figure 24)",
    "learned_methods": "Learned methods: the variants beside related trained methods, by every metric, with their cost",
    "agreement": "Agreement over runs: whether the runs of a method keep the same cells",
    "structure": "Structured explanations: which small sets of patches suffice, and whether BLA keeps one of them",
    "x_features": "x-features: what XNN finds in each class, and whether it predicts the logits",
    "unstated_choices": "Unstated choices: what the paper does not say, made both ways and tested",
}
"""The title of each page, and after the colon what it shows."""

BROWSER = "../browser.html"
"""The explanation browser, which the stage `browser` writes."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #d8d8d4; --soft: #f3f3ef; --link: #0645ad;
  --yes: #d3e5f5; --no: #f9dcc4; --open: #eee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --paper: #17181a; --line: #3c3d40; --soft: #232427;
  --link: #8ab4f8; --yes: #1d4263; --no: #6b3a12; --open: #333; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 75rem; margin: 0 auto;
  padding: 0 1rem 3rem; overflow-wrap: break-word }
a { color: var(--link) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: .7rem 0; border-bottom: 1px solid var(--line); font-size: .9rem }
nav a[aria-current] { font-weight: bold; color: var(--ink); text-decoration: none }
h1, h2, h3 { line-height: 1.2 } a.anchor-link { display: none }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line) }
.scroll::before { content: "scroll → to see all columns"; display: none; font-size: .75rem; padding: .2rem .5rem;
  position: sticky; left: 0; background: var(--soft) }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; min-width: 100% }
th, td { padding: .25rem .45rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
thead th { background: var(--soft) }
img { max-width: 100%; height: auto; background: #fff } .large img { width: 100% }
pre { white-space: pre-wrap } details summary { cursor: pointer }
td.yes { background: var(--yes) } td.no { background: var(--no) } td.inconclusive, td.open { background: var(--open) }
@media (max-width: 700px) { .scroll::before { display: block } .scroll table { min-width: 45rem } .scroll.narrow table {
  min-width: 30rem } h1 { font-size: 1.5rem } }
@media print { :root { --ink: #000; --paper: #fff; --line: #d8d8d4; --soft: #f3f3ef; --yes: #d3e5f5; --no: #f9dcc4; --open: #eee }
  nav, .scroll::before { display: none } .scroll { overflow: visible; border: 0 } table { font-size: 8pt }
  body { max-width: none } img, tr { break-inside: avoid } h1, h2, h3 { break-after: avoid }
  .large img { width: auto; max-height: 65vh } }
"""


def short(name: str) -> str:
    """A page's title, without what it shows."""
    return REPORTS.get(name, name).partition(":")[0]


def page(title: str, body: str, here: str, names: Sequence[str]) -> str:
    """A whole HTML page around `body`, with links to the front page and to the reports `names`; `here` is this page."""
    links = "".join(
        f'<a href="{name}.html"{" aria-current=page" if name == here else ""}>{html.escape(short(name))}</a>'
        for name in ("index", *names)
    )
    links += f'<a href="{BROWSER}">Explanation browser</a>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><nav>{links}</nav>\n{body}\n</body></html>\n"
    )


def with_scrolling(body: str) -> str:
    """The HTML with every table in a frame that scrolls sideways."""
    return re.sub(r"(<table.*?</table>)", r'<div class="scroll">\1</div>', body, flags=re.DOTALL)
