"""Files of answers: what a participant's file must hold, and the answers of all participants as a table.

    people = [read_answers(path) for path in sorted(folder.glob("*.json"))]
    comparisons(people)         # a row per comparison and person

Every check names the file and the key. A file has no field for a name, an address or free text, and unknown keys are
refused.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import pandas as pd
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from bla.base.errors import BlaError
from bla.experiments.explanations.user_study.protocol import AGES, METHODS, OPTIONS, OTHERS, QUESTIONS

Agreement = Literal["strongly disagree", "disagree", "undecided", "agree", "strongly agree"]
Number = Annotated[int, Ge(ge=0), Le(le=100_000_000)]
Seconds = Annotated[float, Ge(ge=0), Le(le=86_400)]
DatasetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,99}$")]
LARGEST = 1_000_000
"""Bytes of a file of answers, at most; a real one has about 10,000."""


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Explained(_Checked):
    """A dataset of the page: its kind of images, and how its settings differed from the paper's, in words."""

    name: DatasetName
    kind: DatasetName
    departures: Annotated[list[Annotated[str, MaxLen(max_length=500)]], MaxLen(max_length=100)]


class Comparison(_Checked):
    """BLA-T was on the side `bla_t`; the answer names a side or neither."""

    dataset: DatasetName
    image: Number
    against: Literal["grad_cam", "l2x_f", "other_image"]
    bla_t: Literal["left", "right"]
    choice: Literal["left", "right", "equal"]
    seconds: Seconds

    @property
    def preferred(self) -> str:
        """The answer by explanation: `bla_t`, `other` or `equal`."""
        return "equal" if self.choice == "equal" else "bla_t" if self.choice == self.bla_t else "other"


class Prediction(_Checked):
    """The class that a person chose among `options`, from an explanation alone; the system decided for `decided`."""

    dataset: DatasetName
    image: Number
    method: Literal["bla_t", "grad_cam", "l2x_f", "other_image"]
    options: Annotated[list[Number], MinLen(min_length=2), MaxLen(max_length=OPTIONS)]
    decided: Number
    choice: Number
    seconds: Seconds

    @model_validator(mode="after")
    def classes_are_options(self) -> Self:
        for key in ("decided", "choice"):
            if getattr(self, key) not in self.options:
                raise ValueError(f"{key}: must be one of the options")
        if len(set(self.options)) < len(self.options):
            raise ValueError("options: a class is listed twice")
        return self


class Comprehension(_Checked):
    """The first answer to the comprehension item."""

    choice: Literal["house", "sun", "grass"]
    seconds: Seconds


class Person(_Checked):
    """One person's file, of a finished questionnaire; `page` is the SHA-256 of the questionnaire."""

    format: Literal[1]
    page: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    participant: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    seed: Annotated[int, Ge(ge=0), Le(le=2**32 - 1)]
    consent: Literal[True]
    age: Annotated[int, Ge(ge=AGES[0]), Le(le=AGES[1])] | None
    gender: Literal["male", "female", "other", "not said"]
    ml: Agreement
    xai: Agreement
    comprehension: Comprehension
    datasets: Annotated[list[Explained], MinLen(min_length=1), MaxLen(max_length=100)]
    comparisons: Annotated[list[Comparison], MaxLen(max_length=5000)]
    repeated: Comparison
    predictions: Annotated[list[Prediction], MaxLen(max_length=5000)]

    @model_validator(mode="after")
    def complete(self) -> Self:
        names = [dataset.name for dataset in self.datasets]
        if len(set(names)) < len(names):
            raise ValueError("datasets: a dataset is listed twice")
        expected = Counter({(name, against): QUESTIONS for name in names for against in OTHERS})
        _refuse_other_counts("comparisons", Counter((c.dataset, c.against) for c in self.comparisons), expected)
        predicted = Counter({(name, method): 1 for name in names for method in METHODS})
        _refuse_other_counts("predictions", Counter((p.dataset, p.method) for p in self.predictions), predicted)
        if self.first_answer() is None:
            raise ValueError("repeated: must repeat one of the comparisons, with the sides swapped")
        return self

    def first_answer(self) -> Comparison | None:
        """The comparison that `repeated` repeats."""
        again = self.repeated
        same = [c for c in self.comparisons if (c.dataset, c.image, c.against) == (again.dataset, again.image, again.against)]  # fmt: skip
        return same[0] if len(same) == 1 and same[0].bla_t != again.bla_t else None


def _refuse_other_counts(key: str, found: Counter[tuple[str, str]], expected: Counter[tuple[str, str]]) -> None:
    for what in sorted(found.keys() | expected.keys()):
        if found[what] != expected[what]:
            raise ValueError(f"{key}: {' against '.join(what) if key == 'comparisons' else ', '.join(what)}: {found[what]} answers instead of {expected[what]}")  # fmt: skip


def read_answers(path: Path) -> Person:
    """One participant's file.

    Raises BlaError, which names the file, the key and what is wrong, for a file that no questionnaire wrote.
    """
    remedy = "ask the participant for the file again, or move it out of the folder"
    if not path.is_file():  # reading a pipe might never end
        raise BlaError(f"{path}: not a file; {remedy}")
    if path.stat().st_size > LARGEST:
        raise BlaError(f"{path}: larger than {LARGEST:,} bytes, so no questionnaire wrote it; {remedy}")
    try:
        return Person.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "value_error":  # its text starts with the name within the section
            key, wrong = f"{key}." if key else "", str(first["ctx"]["error"])
        else:
            key, wrong = f"{key}: " if key else "", first["msg"][0].lower() + first["msg"][1:]
        raise BlaError(f"{path}: {key}{wrong}; {remedy}") from error


def comparisons(people: Sequence[Person]) -> pd.DataFrame:
    """A row per comparison, without the repeated ones: person (number), dataset, against, preferred (bla_t, other or equal)."""
    rows = [(i, c.dataset, c.against, c.preferred) for i, person in enumerate(people) for c in person.comparisons]
    return pd.DataFrame(rows, columns=["person", "dataset", "against", "preferred"])


def predictions(people: Sequence[Person]) -> pd.DataFrame:
    """A row per predicted class: person (number), dataset, method, right (1 or 0) and guess (1 / number of options)."""
    rows = [
        (i, p.dataset, p.method, float(p.choice == p.decided), 1 / len(p.options))
        for i, person in enumerate(people)
        for p in person.predictions
    ]
    return pd.DataFrame(rows, columns=["person", "dataset", "method", "right", "guess"])
