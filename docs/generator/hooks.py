"""MkDocs hooks: they add the generated pages, and let pages link to files outside docs/ as GitHub does."""

import json
import re
from html import escape
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

import pipeline  # noqa: F401 - puts the `src` of this checkout first on the path

# isort: split
from method_pages import method_pages, metric_page
from mkdocs.structure.files import File, Files
from settings_page import settings_page
from stage_page import flowchart, stage_page

TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the top of the repository, and their names in the site."""
LINK = re.compile(r"(\]\()([^)\s#]+)")


def on_config(config: Any) -> None:
    """List the card of every method in the navigation, below the table of methods."""
    for section in config.nav:
        for items in section.values():
            if isinstance(items, list) and "methods/index.md" in items:
                items[items.index("methods/index.md")] = {"Methods": [*method_pages()]}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and those at the top of the repository, and every file that a page links to."""
    pages = {f"docs/{file.src_uri}": Path(str(file.abs_src_path)).read_text() for file in files.documentation_pages()}
    generated = {
        "settings.md": settings_page(),
        "metrics.md": metric_page(),
        "stages.md": stage_page(),
        **method_pages(),
    }
    pages |= {name: Path(name).read_text() for name in TOP}
    pages |= {str(path): notebook_markdown(path) for path in Path("docs").glob("*.ipynb")}
    texts = {in_site(name): (dirname(name), text) for name, text in pages.items()}
    texts |= {name: ("", text) for name, text in generated.items() if "/" not in name}
    texts |= {name: ("docs/methods", text) for name, text in generated.items() if "/" in name}
    linked: set[str] = set()
    for name, (folder, text) in texts.items():
        replace(files, File.generated(config, name, content=site_markdown(text, folder, name, linked)))
    for path in sorted(linked):
        if Path(path).suffix == ".png":
            replace(files, File.generated(config, path, abs_src_path=str(Path(path).resolve())))
        else:
            replace(files, File.generated(config, in_site(path), content=source_page(Path(path))))
    return files


def replace(files: Files, file: File) -> None:
    """Add a file in place of one of the same name."""
    if old := files.get_file_from_path(file.src_uri):
        files.remove(old)
    files.append(file)


def in_site(path: str) -> str:
    """The file of the site that shows a file of the repository; pictures keep their path."""
    if path in TOP:
        return TOP[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    return path if path.endswith(".png") else f"code/{path}.html"


def site_markdown(text: str, folder: str, page: str, linked: set[str]) -> str:
    """A page whose links lead to pages of the site, with its Mermaid flowchart drawn; `linked` gets the files outside docs/."""

    def redirect(match: re.Match[str]) -> str:
        path = normpath(join(folder, match[2]))
        if "://" in match[2] or not Path(path).exists():
            return match[0]  # an address, or a generated page
        if path not in TOP and not path.startswith("docs/"):
            linked.add(path)
        return match[1] + relpath(in_site(path), dirname(page) or ".")

    def draw(match: re.Match[str]) -> str:
        return flowchart(re.findall(r"(\w+) --> (\w+)", match[1]))

    return LINK.sub(redirect, re.sub(r"```mermaid\n(.*?)```", draw, text, flags=re.DOTALL))


def notebook_markdown(path: Path) -> str:
    """The cells of a notebook without outputs."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells) + "\n"


def source_page(path: Path) -> str:
    """A web page with the text of a file, or of all Python files in a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.py") if file.read_text())
    text = "\n\n".join([f"# {file}\n\n{file.read_text()}" for file in files])
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return f"<!doctype html>\n<html lang=en>{head}<title>{path}</title><pre>{escape(text)}</pre></html>\n"
