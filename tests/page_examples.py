"""The examples in docs/: code blocks of a page by language, and the files, edits and settings that a page asks for."""

import re
from pathlib import Path

import yaml
from commands import run

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language, as they stand; the language may be empty."""
    every = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [code for name, code in every if name == language]


def files(page: str) -> dict[str, str]:
    """The Python files of a page by path: blocks whose first line is a comment with the path."""
    heads = [(re.match(r"# (src/\S+\.py)\n", code), code) for code in blocks(page, "python")]
    return {head[1]: code for head, code in heads if head}


def settings(page: str) -> dict[str, object]:
    """The settings of a page by dotted name, one for each entry of a section."""
    sections = [item for text in blocks(page, "yaml") for item in yaml.safe_load(text).items()]
    return {f"{section}.{name}": entry for section, entries in sections for name, entry in entries.items()}


def follow(page: str, folder: Path) -> None:
    """Write the files of a page to a copy of the code, and make its edits (blocks of the language `diff`)."""
    for name, code in files(page).items():
        (folder / name).write_text(code)
    for number, edit in enumerate(blocks(page, "diff")):
        (folder / f"{page}-{number}.diff").write_text(edit)
        run(folder, "git", "apply", "--unidiff-zero", "-C1", f"{page}-{number}.diff")
