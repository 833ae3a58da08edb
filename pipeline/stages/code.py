"""Stage `code`: which source files every stage depends on, and their hashes, in data/code/STAGE.txt.

A stage depends on its file in pipeline/stages/ and on that file's import closure (`bla.runtime.imports`). Any edit runs
this stage, and then only the stages whose list has changed. A page's scripts and styles (`DATA`), which lie beside the
module that reads them, count as code of all modules in their folder.
"""

from pathlib import Path

from bla.base.atomic import save_text
from bla.base.errors import BlaError
from bla.runtime.cache import content_hash
from bla.runtime.imports import EXEMPT, closure

CODE = Path("data/code")
DATA = (".css", ".html", ".js")


def main() -> None:
    """Write a list for every other stage."""
    stages = [path.stem for path in Path("pipeline/stages").glob("[!_]*.py") if path.stem != "code"]
    for stage in stages:
        try:
            save_text(CODE / f"{stage}.txt", code_of(stage))
        except ValueError as error:
            raise BlaError(f"{error}; the code of a stage is known only if its imports can be followed") from error
    for path in set(CODE.glob("*.txt")) - {CODE / f"{stage}.txt" for stage in stages}:
        path.unlink()  # of stages that no longer exist


def code_of(stage: str, root: Path = Path()) -> str:
    """A line per source file of a stage in the checkout at `root`: hash and path, sorted by path.

    Files in `EXEMPT` are left out of all import closures; they are added here for the stage `settings` only.
    """
    packages = {"bla": root / "src/bla", "pipeline": root / "pipeline"}
    files = closure([root / f"pipeline/stages/{stage}.py"], packages=packages)
    files += [path for folder in {file.parent for file in files} for path in folder.iterdir() if path.suffix in DATA]
    if stage == "settings":
        files += [packages[package] / rest for package, _, rest in (name.partition("/") for name in EXEMPT)]
    paths = sorted((path.resolve().relative_to(root.resolve()).as_posix(), path) for path in files)
    return "".join(f"{content_hash(path)[:16]}  {name}\n" for name, path in paths)
