"""Stage `study_answers`: checks and analyses the files of answers in data/study/, in reports/; none is fine."""

from functools import partial
from pathlib import Path

from bla.base.errors import BlaError
from bla.experiments.explanations.user_study.answers import read_answers
from bla.experiments.explanations.user_study.figures import PEOPLE, figure_four, figure_seven, participants
from bla.experiments.explanations.user_study.tables import (
    demographics,
    excluded_table,
    exclusions,
    prediction_tests,
    preference_tests,
    preferences,
)
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.figures import FIGURES, Pictures, save_pictures
from pipeline.artifacts.tables import PUBLISHED, load_table, save_tables
from pipeline.run.settings import load_settings

ANSWERS = Path("data/study")


def main() -> None:
    """Write user_study.csv, _tests, _predictions, _participants and _excluded, and the figures 4 and 7 to 11."""
    settings = load_settings()
    everybody = [read_answers(path) for path in answer_files()]
    reasons = exclusions(everybody)
    people = [person for person, reason in zip(everybody, reasons, strict=True) if not reason]
    random = settings.statistics.resamples, derive_seed(settings.seed, "study answers")
    shares, who = preferences(people, load_table(PUBLISHED), *random), demographics(people)
    tables = {
        "": shares,
        "_tests": preference_tests(people, *random),
        "_predictions": prediction_tests(people, *random),
    }
    save_tables("user_study", tables | {"_participants": who, "_excluded": excluded_table(everybody, reasons)})
    pictures: Pictures = {
        FIGURES / "user_study/figure4.png": partial(figure_four, shares),
        FIGURES / "user_study/figure7.png": partial(figure_seven, shares),
    }
    pictures |= {FIGURES / f"user_study/{name}.png": partial(participants, who, name) for name in PEOPLE}
    save_pictures(pictures)
    print(f"{len(everybody)} files of answers, {len(everybody) - len(people)} persons excluded")


def answer_files() -> list[Path]:
    """The files in data/study by name, without hidden ones, which people do not see and systems write.

    Raises BlaError for whatever else is there, whose answers would be left out.
    """
    paths = sorted(ANSWERS.glob("[!.]*"))
    for path in paths:
        if not path.is_file():
            raise BlaError(f"{path}: not a .json file but a folder, pipe or broken link; move it out of the folder")
        if path.suffix != ".json":
            raise BlaError(
                f"{path}: not a .json file; rename it to .json if it holds answers, or move it out of the folder"
            )
    return paths
