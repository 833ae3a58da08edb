"""The site of the documentation: it builds, needs no network, and its generated pages agree with the code."""

import importlib
import re
import subprocess
import sys
from dataclasses import MISSING
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from chromium import open_page
from commands import ENV

from bla.explainers.registry import explainer_class, explainer_names
from bla.metrics import METRICS
from pipeline.run.settings import load_settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


class Addresses(HTMLParser):
    """All addresses in a page, those that load when it opens, and all anchors."""

    def __init__(self, page):
        super().__init__()
        self.links, self.loaded, self.anchors, self.text = [], [], set(), []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        address = given.get("href") or given.get("src")
        if address and tag in ("a", "img", "script", "link"):
            self.links.append(address)
        if (address and tag in ("img", "script", "iframe", "source")) or (
            tag == "link" and given.get("rel") == "stylesheet"
        ):
            self.loaded.append(address)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site and its pages by name, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, {page.relative_to(folder).as_posix(): Addresses(page) for page in folder.rglob("*.html")}


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(site):
    folder, pages = site
    assert len(pages) > 40
    broken = []
    for name, page in pages.items():
        if name == "404.html":  # its addresses start at the root of a server
            continue
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "data"):
                continue
            target = ((folder / name).parent / unquote(parts.path)).resolve() if parts.path else folder / name
            known = pages.get(target.relative_to(folder.resolve()).as_posix()) if target.suffix == ".html" else None
            if not target.is_file() or (
                parts.fragment and known and unquote(parts.fragment) not in known.anchors | {"__comments"}
            ):
                broken.append((name, address))
    assert not broken


def test_no_page_loads_anything_from_a_network(site):
    folder, pages = site
    assert [
        (name, a) for name, page in pages.items() for a in page.loaded if urlsplit(a).scheme in ("http", "https")
    ] == []
    styles = "".join(path.read_text() for path in folder.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?https?:", styles) == []


def test_the_search_works_in_pages_opened_from_disk(site):
    folder, _ = site
    with open_page(folder / "tutorial.html") as page:
        page.open(f"{(folder / 'tutorial.html').as_uri()}?q=temperature")
        page.wait("document.querySelectorAll('.md-search-result__link').length > 3")
        assert "temperature" in page.evaluate("document.querySelector('.md-search-result__list').innerText")


def test_every_page_of_docs_is_in_the_site(site):
    _, pages = site
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= set(pages)
    assert {"index.html", "contributing.html", "changelog.html"} <= set(pages)


def test_every_method_has_a_card(site):
    _, pages = site
    for name in explainer_names():
        card, text = explainer_class(name).card, " ".join("".join(pages[f"methods/{name}.html"].text).split())
        for part in (card.source, card.needs, card.cost):
            assert " ".join(part.split()) in text, (name, part)
    assert {page for page in pages if page.startswith("methods/")} == {f"methods/{name}.html" for name in ("index", *explainer_names())}  # fmt: skip


def test_every_metric_is_described(site):
    _, pages = site
    text = "".join(pages["metrics.html"].text)
    for metric in METRICS:
        assert metric.name in text


def test_every_table_and_figure_is_traced_to_its_stage(site):
    _, pages = site
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stages |= yaml.safe_load((ROOT / "reports/study/dvc.yaml").read_text())["stages"]
    text = "".join(pages["stages.html"].text)
    for name, stage in stages.items():
        assert name in pages["stages.html"].anchors
        assert f"dvc repro {'reports/study/dvc.yaml' if name == 'study' else name} " in " ".join(text.split())
        for out in (next(iter(out)) for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])):
            assert out.startswith("data/code/") or re.sub(r"\$\{item\.(\w+)\}", r"<\1>", out) in text, out


@pytest.fixture
def sections(monkeypatch):
    """The rows of the page of settings by section and setting: type, value, meaning."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "docs/generator"))
    settings_page = importlib.import_module("settings_page").settings_page
    found = {}
    for part in settings_page().split("\n## ")[1:]:
        rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", part, re.MULTILINE)
        found[part.splitlines()[0].replace("`", "")] = {name: cells for name, *cells in rows}
    return found


def test_every_setting_of_params_yaml_is_on_the_page(sections):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())

    def visit(name, values, tag=""):
        tag = values.get("kind") or values.get("explanation") or ""
        rows = next(
            rows for head, rows in sections.items() if head.split()[0] == name and (not tag or tag in head.split())
        )
        for key, value in values.items():
            if (
                key == "variant"
                or key == "dataset"
                or (name, key) in (("abandoned_modules", "variants"), ("two_network_l2x", "readings"))
            ):
                prefix = f"{name}.{key}" if name != "Top" else key
                for entry in value.values():
                    visit(f"{prefix}.NAME", entry)
            elif key == "explainer":
                for method, given in value.items():
                    visit(f"explainer.{method}", given)
            elif isinstance(value, dict):
                visit(f"{name}.{key}" if name != "Top" else key, value)
            assert key in rows, (name, key)

    visit("Top", params)


@pytest.mark.parametrize(
    ("section", "setting", "expected"),
    [
        ("statistics", "alpha", ["number, ≥ 0.0001, ≤ 0.5", "`0.05`", "level of every test (paper)"]),
        ("Top level", "seed", ["integer, ≥ 0, ≤ 4,611,686,018,427,387,904", "`0`", "all random numbers of run r come from (seed, dataset, column, r)"]),
        ("variant.NAME bounded_logits", "threshold_rule", ["`subtract` or `renormalise` or `indicator`", "default `subtract`", "subtract (code) \\| renormalise (ours) \\| indicator (paper, eq. 2: leaves the module untrained)"]),
        ("dataset.NAME.images image_folder", "test_share", ["number, > 0, < 1 or null", "default `null`", "a share such as 0.2: classes in path/&lt;class&gt;, split by a hash of the file names"]),
        ("explainer.rise", "grid", ["integer, ≥ 2, ≤ 56", "`7`", ""]),
        ("explainer.sag", "guide", ["`grad_cam` or `i_gos`", "default `grad_cam`", ""]),
    ],
)  # fmt: skip
def test_a_setting_has_its_type_bounds_value_and_comment(sections, section, setting, expected):
    assert sections[section][setting] == expected


@pytest.mark.parametrize(
    ("value", "default", "text"),
    [(3, 4, "`3` (default `4`)"), (4, 4, "`4`"), (3, MISSING, "`3`"), (MISSING, None, "default `null`"), (MISSING, MISSING, ""), ({"a": 1}, MISSING, "")],
)  # fmt: skip
def test_a_default_is_named_where_the_value_is_another_one(sections, value, default, text):
    assert importlib.import_module("settings_page").value_and_default(value, default) == text


def test_values_of_the_page_are_those_that_run(sections):
    settings = load_settings(ROOT / "params.yaml")
    for name in ("faithfulness", "planted_bias", "multi_label", "statistics"):
        for setting, (_, value, _) in sections[name].items():
            assert yaml.safe_load(value.strip("`")) == getattr(getattr(settings, name), setting)
