"""How each table and figure is made: outputs, stages and their graph, read from dvc.yaml."""

import ast
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import yaml
from markdown.extensions.toc import slugify
from settings_page import fact_table, heading, models

STAGES = Path("pipeline/stages")
FILES = ("dvc.yaml", "reports/study/dvc.yaml")
INTRODUCTION = """# How each table and figure is made

Read from [`dvc.yaml`](dvc.yaml) and `reports/study/dvc.yaml`, whose stage runs only by that file's name. Each row is one output;
its stage says which files and settings it depends on, and its code says which function computes it. `dvc repro STAGE` runs a
stage and all that it needs. What an output contains: [all outputs](outputs.md).
"""


def stage_page() -> str:
    """A table of the outputs in reports/, and a section for each stage."""
    stages, files = {}, {}
    for file in FILES:
        for name, stage in yaml.safe_load(Path(file).read_text())["stages"].items():
            stages[name], files[name] = stage, file
    makers = {out: name for name, stage in stages.items() for out in outputs_of(stage)}
    rows = ["| output | stage | code |", "|---|---|---|"]
    for out, name in sorted(makers.items()):
        if out.startswith("reports/"):
            rows.append(f"| `{out}` | [{name}](#{name}) | {', '.join(experiments_of(name))} |")
    sections = [stage_section(name, stage, files[name], makers) for name, stage in stages.items()]
    return "\n\n".join([INTRODUCTION, "\n".join(rows), *sections]) + "\n"


def stage_section(name: str, stage: Any, listed: str, makers: dict[str, str]) -> str:
    """What a stage of the file `listed` does, reads and writes, and the settings that change it."""
    file = STAGES / f"{name}.py"
    address = name if listed == FILES[0] else listed  # DVC looks for a bare name in dvc.yaml only
    reads = [dep for dep in readable(stage["deps"]) if not dep.startswith("data/code/")]
    writes = outputs_of(stage)
    facts = {
        "command": f"`dvc repro {address}`",
        "once per": " and ".join(stage.get("matrix", {})),
        "settings": ", ".join(f"[`{p}`](settings.md#{anchor_of(p)})" for p in readable(stage.get("params", []))),
        "reads": ", ".join(f"`{path}`{made_by(path, name, makers)}" for path in reads),
        "writes": ", ".join(f"`{path}`" for path in writes if not path.startswith("data/code/")) or "`data/code/`",
        "code": ", ".join([f"[`{file}`]({file})", *experiments_of(name)]),
    }
    return f"## {name}\n\n{stage['desc']}.\n\n{fact_table({label: text for label, text in facts.items() if text})}"


def readable(names: list[Any]) -> list[str]:
    """Names of dvc.yaml with placeholders such as `<dataset>`."""
    plain = [next(iter(name)) if isinstance(name, dict) else name for name in names]
    return [re.sub(r"\$\{item\.(\w+)\}", r"<\1>", name) for name in plain]


def outputs_of(stage: Any) -> list[str]:
    """All outputs of a stage."""
    return readable([out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])])


def made_by(path: str, name: str, makers: dict[str, str]) -> str:
    """In brackets, links to the other stages that make a file, or files in a folder."""
    found = {maker: None for out, maker in makers.items() if maker != name and f"{out}/".startswith(f"{path}/")}
    return f" ({', '.join(f'[{maker}](#{maker})' for maker in found)})" if found else ""


def experiments_of(name: str) -> list[str]:
    """Links to the files of bla.experiments that a stage imports."""
    nodes = [
        node for node in ast.walk(ast.parse((STAGES / f"{name}.py").read_text())) if isinstance(node, ast.ImportFrom)
    ]
    files: dict[str, None] = {}
    for node in nodes:
        for module in (f"{node.module}.{alias.name}" for alias in node.names):
            paths = [
                Path("src", *module.split(".")).with_suffix(".py"),
                Path("src", *str(node.module).split(".")).with_suffix(".py"),
            ]
            path = next((path for path in paths if path.exists()), None)
            if path and path.parts[:3] == ("src", "bla", "experiments"):
                files[f"[`{'/'.join(path.parts[3:])}`]({path})"] = None
    return list(files)


@cache
def anchor_of(setting: str) -> str:
    """The section of the page of settings that has a setting."""
    first = setting.partition(".")[0]
    sections = [(name, model) for name, model in models() if name.partition(".")[0] == first]
    exact = [section for section in sections if section[0] == re.sub(r"<\w+>", "NAME", setting)]
    section = exact[0] if len(exact) == 1 else [*sections, models()[0]][0]
    return str(slugify(heading(*section), "-"))


def flowchart(edges: list[tuple[str, str]]) -> str:
    """An SVG of a graph without cycles: each node to the right of all nodes that lead to it."""
    names = list(dict.fromkeys(name for edge in edges for name in edge))
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for start, end in edges:
            depth[end] = max(depth[end], depth[start] + 1)
    columns = [[name for name in names if depth[name] == d] for d in range(max(depth.values()) + 1)]
    row = {name: float(i) for column in columns for i, name in enumerate(column)}
    for _ in range(8):  # a node goes to the mean row of its neighbours
        for column in columns:
            near = {n: [row[a] + row[b] - row[n] for a, b in edges if n in (a, b)] for n in column}
            column.sort(key=lambda n: sum(near[n]) / len(near[n]))
            row |= {name: i + (len(names) / len(columns) - len(column)) / 2 for i, name in enumerate(column)}
    top = min(row.values())
    place = {name: (170 * depth[name], 26 * (row[name] - top) + 4) for name in names}
    lines, boxes = [], []
    for start, end in edges:
        (x, y), (right, low) = place[start], place[end]
        lines.append(
            f'<path d="M{x + 150} {y + 10:g}C{x + 165} {y + 10:g} {right - 15} {low + 10:g} {right} {low + 10:g}"/>'
        )
    for name, (x, y) in place.items():
        box = f'<rect x="{x}" y="{y:g}" width="150" height="20" rx="4"/><text x="{x + 75}" y="{y + 14:g}">{escape(name)}</text>'
        boxes.append(f'<a href="stages.html#{name}">{box}</a>')
    width, height = 170 * len(columns) - 18, 26 * (max(row.values()) - top + 1) + 4
    return f'<div class="flowchart" data-search-exclude><svg viewBox="-1 0 {width} {height:g}" width="{width}">{"".join(lines + boxes)}</svg></div>'
