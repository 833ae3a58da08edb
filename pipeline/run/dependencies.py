"""The code dependencies of dvc.yaml, written from the import closure of each stage: `python -m pipeline.run.dependencies`.

A stage depends on its file in pipeline/stages/ and on all that it imports. Where modules are reached by their names, such as
the explanation methods, their whole folder is a dependency, so that a new file counts. Other dependencies stay as they are.
"""

import re
import sys
from pathlib import Path

from bla.base.atomic import save_text
from bla.runtime.imports import EXEMPT, PACKAGES, closure, named_files

ROOT = Path(__file__).resolve().parents[2]
DVC_YAML = ROOT / "dvc.yaml"


def code_of(stage: str, root: Path = ROOT) -> list[str]:
    """The code that a stage depends on, as paths from the root: files, and folders whose files are reached by name."""
    packages = {"bla": root / "src/bla", "pipeline": root / "pipeline"}
    start = root / f"pipeline/stages/{stage}.py"
    files = set(closure([start], True, packages))
    by_name = {path.parent for path in named_files([start], packages)}
    # The stage that checks params.yaml is the one to notice another model of it.
    model = [packages[name.split("/")[0]] / name.split("/", 1)[1] for name in EXEMPT] if stage == "settings" else []
    paths = {path for path in [*files, *model] if path.parent not in by_name} | by_name
    return sorted(path.resolve().relative_to(root.resolve()).as_posix() for path in paths)


def with_code(text: str, root: Path = ROOT) -> str:
    """The text of dvc.yaml with the code dependencies of every stage as they should be."""
    parts = re.split(r"(?m)^(?=  \w+:\n)", text)
    return "".join(_with_code(part, root) for part in parts)


def _with_code(part: str, root: Path) -> str:
    """One stage's part of dvc.yaml."""
    command = re.search(r"^    cmd: python -m pipeline (\w+)", part, re.MULTILINE)
    if not command:
        return part
    lines = part.splitlines(keepends=True)
    start = lines.index("    deps:\n") + 1
    end = next(n for n in range(start, len(lines) + 1) if n == len(lines) or not lines[n].startswith("      - "))
    data = [line for line in lines[start:end] if not line.startswith(("      - pipeline/", "      - src/"))]
    code = [f"      - {path}\n" for path in code_of(command[1], root)]
    return "".join([*lines[:start], *data, *code, *lines[end:]])


if __name__ == "__main__":
    assert PACKAGES["pipeline"].resolve() == ROOT / "pipeline"
    text = DVC_YAML.read_text()
    if (fresh := with_code(text)) != text:
        save_text(DVC_YAML, fresh)
        print("dvc.yaml: code dependencies rewritten", file=sys.stderr)
