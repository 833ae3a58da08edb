"""The paper's 20 claims in the paper's order and ours after them, and the results that judge each; `CLAIMS` has a row per test.

On data that the paper did not use, claims about cats vs. dogs (A) are tested on datasets of two classes, and claims
about dogs or birds (B, C) on datasets of more classes. In claim 10 a constant map, which has no rank correlation,
counts as 0. Claims 5 and 6 are tested for each column that is a possible meaning of the paper's "frozen" head.

Source: Baumhauer et al. 2021, sections 3 and 4; numbering as in the report.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bla.base.paper import COLUMNS, DATASETS, PUBLISHED_AS, image_departures, l2x_reading_departures
from bla.claims.rules import (
    Dataset,
    Finding,
    Judge,
    agrees_over_runs,
    chance_when_hard,
    collapsed,
    finds_as_well,
    larger_than_bla,
    preferred,
    small_cnn_alike,
    small_cnn_beats,
)
from bla.experiments.explanations.user_study.protocol import CLAIMED, OTHERS, PERSONS
from bla.experiments.explanations.user_study.tables import ALL
from bla.experiments.runs import Measure

BOTH: tuple[Measure, Measure] = ("accuracy", "loss")
NOT_THE_PAPERS = "not one of the paper's datasets"
OURS = "our claim, not the paper's"


@dataclass(frozen=True)
class Evidence:
    """The data to judge claims by: results, departures from the paper's settings, and published values."""

    datasets: Sequence[Dataset]
    small_cnn: pd.DataFrame
    small_cnn_departures: Sequence[str]
    abandoned_modules: pd.DataFrame
    abandoned_departures: Mapping[str, Sequence[str]]
    two_network_l2x: pd.DataFrame
    two_network_l2x_departures: Mapping[str, Sequence[str]]
    subset_selection: pd.DataFrame
    agreement: pd.DataFrame
    user_study: pd.DataFrame
    kinds: Mapping[str, str]
    published: pd.DataFrame
    alpha: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Case:
    """One test of a claim, usually on one dataset: the finding, and what prevents a verdict.

    `obstacle`: why nothing was tested, or why the result says nothing about the paper. `departures`: how the settings
    differ from the paper's. `remark`: a note next to the verdict.
    """

    text: str
    dataset: str = ""
    paper: str = ""
    finding: Finding | None = None
    obstacle: str = ""
    departures: Sequence[str] = ()
    remark: str = ""


Cases = Callable[[Evidence], Iterable[Case]]
Rule = Callable[[Judge, Measure], Finding]
Applies = Callable[[Dataset, Measure], bool]


def _like_a(dataset: Dataset, measure: Measure) -> bool:
    return dataset.classes == 2


def _like_b_or_c(dataset: Dataset, measure: Measure) -> bool:
    return dataset.classes > 2


def _like_a_or_b(dataset: Dataset, measure: Measure) -> bool:
    return dataset.kind != "caltech_birds"


def _like_c(dataset: Dataset, measure: Measure) -> bool:
    return dataset.kind == "caltech_birds" or (dataset.kind not in DATASETS and dataset.classes > 2)


def _all_but_loss_on_a(dataset: Dataset, measure: Measure) -> bool:
    return measure == "accuracy" or _like_b_or_c(dataset, measure)


def _on_imagenet(dataset: Dataset, measure: Measure) -> bool:
    return dataset.kind == "imagenet"


def _better(better: str, worse: str) -> Rule:
    """Higher accuracy, or lower loss."""
    return lambda judge, m: judge.difference(*((better, worse) if m == "accuracy" else (worse, better)), m)


def columns(
    text: str,
    needs: tuple[str, ...],
    rule: Rule,
    measures: tuple[Measure, ...] = ("accuracy",),
    applies: Applies = lambda dataset, measure: True,
    published: bool = True,
    optional: bool = False,
    lime: bool = False,
    baseline: str = "bl",
) -> Cases:
    """A claim about columns of Table 1 (of Table 2 with `lime`), tested on every dataset and measure it applies to.

    `needs` are the keys of the columns, beside the `baseline`. If one is missing, the case says so; with `optional` there
    is no case.
    """

    def cases(evidence: Evidence) -> Iterator[Case]:
        for dataset in evidence.datasets:
            judge = Judge(dataset, evidence.alpha, evidence.resamples, evidence.seed)
            for measure in measures:
                missing = [COLUMNS[key] for key in needs if key not in dataset.columns]
                if not applies(dataset, measure) or (optional and missing):
                    continue
                about = f"{text}: {measure}" if len(measures) > 1 else text, dataset.name
                kinds = [dataset.kind] if dataset.kind in DATASETS else list(DATASETS)
                paper = _published_two(evidence.published, kinds) if lime else _published(evidence.published, needs, measure, kinds)  # fmt: skip
                paper = paper if published else ""
                if missing:
                    yield Case(*about, paper, obstacle=f"{' and '.join(missing)} not among the variants")
                elif baseline not in dataset.columns:
                    yield Case(*about, paper, obstacle=f"no {COLUMNS[baseline]}, since the classifier is your own")
                elif lime and not dataset.with_lime:
                    yield Case(*about, paper, obstacle="no rank correlations with LIME")
                elif lime and "cam" not in dataset.with_lime:
                    yield Case(
                        *about, paper, obstacle="no CAM, since the classifier has no linear head on pooled features"
                    )
                else:
                    obstacle, departures, remark = _limits(dataset, needs, lime)
                    yield Case(*about, paper, rule(judge, measure), obstacle, departures, remark)

    return cases


def _limits(dataset: Dataset, needs: tuple[str, ...], lime: bool) -> tuple[str, Sequence[str], str]:
    """Obstacle, departures and remark of a claim that was tested on a dataset."""
    obstacle = "ImageNet 2012; the paper's is 2010" if dataset.kind == "imagenet" else NOT_THE_PAPERS
    keys = dict.fromkeys(("bl", "bl_plus", *needs))
    variant_departures = [departure for key in keys for departure in dataset.variant_departures.get(key, [])]
    lime_departures: Sequence[str] = ()
    if lime:
        explained, images = dataset.with_lime["cam"].shape[1], dataset.columns["bl"].correct.shape[1]
        lime_departures = [*dataset.lime_departures, *image_departures(explained, images)]
    departures = [*dataset.departures, *lime_departures, *variant_departures]
    remark = "the head trains, as BLA-T's does: only their random numbers differ" if "bla_ph_released" in keys else ""
    return "" if dataset.kind in DATASETS else obstacle, departures, remark


def small_cnn(text: str, number: int) -> Cases:
    """Claims 8 and 15, a case for each pooling before the dense unit.

    Claim 15 is about L2X's accuracy on MNIST, so only MNIST can answer it.
    """

    def cases(evidence: Evidence) -> Iterator[Case]:
        table = evidence.published[evidence.published["dataset"] == "mnist_3_vs_8"]
        paper = table.set_index(["method", "quantity"])["value"]
        bl, bla_t, l2x = (float(paper[name, "accuracy"]) for name in ("BL", "BLA-T", "L2X"))
        both = f"BL {bl:.3f}, BLA-T {bla_t:.3f}, p = {float(paper['BLA-T against BL', 'mann_whitney_p']):.2f}"
        published = both if number == 8 else f"BLA-T {bla_t:.3f}, L2X {l2x:.3f}"
        for (data, pooling), runs in evidence.small_cnn.groupby(["data", "pooling"], sort=False):
            about, obstacle = (f"{text}: {pooling} map", str(data), published), "" if str(data).startswith("mnist") else "not MNIST"  # fmt: skip
            if number == 15 and obstacle:
                yield Case(*about, obstacle=obstacle)
                continue
            alike = small_cnn_alike(runs, evidence.alpha)
            finding = alike if number == 8 else small_cnn_beats(runs, l2x, evidence.alpha)
            yield Case(*about, finding, obstacle, evidence.small_cnn_departures)

    return cases


def abandoned_modules(text: str, explanation: str) -> Cases:
    """Claims 11 and 12, a case for each dataset and each abandoned module with this explanation."""

    def cases(evidence: Evidence) -> Iterator[Case]:
        all_runs = evidence.abandoned_modules
        for dataset in evidence.datasets:
            runs = all_runs[all_runs["dataset"] == dataset.name].sort_values("run")
            bla = runs[(runs["variant"] == "bla") & (runs["explanation"] == "bounded_logits")]
            for variant, part in runs[runs["explanation"] == explanation].groupby("variant", sort=False):
                concept = explanation == "concept_vector"
                finding = collapsed(part, evidence.alpha) if concept else larger_than_bla(part, bla, evidence.alpha)
                obstacle = "" if dataset.kind in DATASETS else NOT_THE_PAPERS
                departures = [*dataset.departures, *evidence.abandoned_departures[str(variant)]]
                yield Case(f"{text} ({variant})", dataset.name, "", finding, obstacle, departures)
        if explanation not in set(all_runs["explanation"]):
            yield Case(text, obstacle="`abandoned_modules` trained none")

    return cases


def two_network_l2x(text: str) -> Cases:
    """Claim 9, a case for each dataset and each reading that the paper allows: black, without straight-through."""

    def cases(evidence: Evidence) -> Iterator[Case]:
        table = evidence.published[evidence.published["dataset"] == "cats_vs_dogs"]
        paper = table.set_index(["method", "quantity"])["value"]
        soft, hard = (float(paper[f"L2X {how}", "accuracy"]) for how in ("soft", "hard"))
        published, all_runs = f"soft {soft:.2f}, hard {hard:.2f}", evidence.two_network_l2x
        straight_through = all_runs["straight_through"].astype(bool)
        of_the_paper = all_runs[(all_runs["background"] == "black") & ~straight_through]
        if of_the_paper.empty:
            missing = "two_network_l2x.readings is the paper's" if len(all_runs) else "two_network_l2x.datasets is among the datasets"  # fmt: skip
            yield Case(text, paper=published, obstacle=f"none of {missing}")
        for (name, reading), runs in of_the_paper.groupby(["dataset", "reading"], sort=False):
            unused = int(runs["n_images_left_out"].iloc[0])
            departures = list(evidence.two_network_l2x_departures[str(name)])
            departures += l2x_reading_departures(float(runs["temperature"].iloc[0]))
            departures += [f"{unused} images left out (paper: none)"] if unused else []
            obstacle = "" if evidence.kinds[str(name)] == "cats_vs_dogs" else "not the paper's dataset"
            finding = chance_when_hard(runs, evidence.alpha)
            yield Case(f"{text}: {reading}", str(name), published, finding, obstacle, departures)

    return cases


def subset_selection(text: str) -> Cases:
    """Claim 21, ours: a case for each synthetic set, all under the dataset "synthetic"."""

    def cases(evidence: Evidence) -> Iterator[Case]:
        for data, runs in evidence.subset_selection.groupby("data", sort=False):
            finding = finds_as_well(runs, evidence.alpha)
            yield Case(f"{text}: median rank, {data}", "synthetic", "", finding, OURS)

    return cases


def agreement(text: str) -> Cases:
    """Claim 22, ours: a case for each dataset and method that was trained or fitted several times."""

    def cases(evidence: Evidence) -> Iterator[Case]:
        for _, row in evidence.agreement.dropna(subset="p").iterrows():
            finding = agrees_over_runs(row, evidence.alpha)
            yield Case(f"{text}: {row['title']}", str(row["dataset"]), "", finding, OURS)

    return cases


def user_study(text: str, number: int) -> Cases:
    """Claims 18 to 20: a case for all datasets together, which the paper's percentages are about, and one for each dataset."""
    against = CLAIMED[number]

    def cases(evidence: Evidence) -> Iterator[Case]:
        table = evidence.published[evidence.published["where"] == "Figure 4"].set_index("method")["value"]
        other = OTHERS[against]
        shares = {"BLA-T": f"BLA-T over {other}", other: f"{other} over BLA-T", "equal": f"BLA-T equal to {other}"}
        paper = ", ".join(f"{name} {float(table[share]):.2f}" for name, share in shares.items())
        rows = evidence.user_study[evidence.user_study["against"] == against]
        if rows.empty:
            yield Case(text, paper=paper, obstacle="no answers yet: see docs/user_study.md")
        for _, row in rows.iterrows():
            together, n = row["dataset"] == ALL, int(row["n_persons"])
            obstacle = (
                "the paper's percentages are for all its datasets together"
                if row["kind"] in DATASETS
                else NOT_THE_PAPERS
            )
            if together:
                obstacle = "" if row["kind"] == "paper" else "not the paper's three datasets"
            departures = [row["departures"]] if isinstance(row["departures"], str) and row["departures"] else []
            departures += [] if n >= PERSONS else [f"{n} persons (paper: {PERSONS})"]
            about = (text, "", paper) if together else (text, str(row["dataset"]), "")
            yield Case(*about, preferred(row, evidence.alpha), obstacle, departures)

    return cases


def not_here(text: str, reason: str, unless: Sequence[Cases] = ()) -> Cases:
    """A claim that cannot be tested here; there is no case if one of `unless` gives a case."""

    def cases(evidence: Evidence) -> Iterator[Case]:
        if not any(True for alternative in unless for _ in alternative(evidence)):
            yield Case(text, obstacle=reason)

    return cases


def _published(published: pd.DataFrame, keys: tuple[str, ...], measure: Measure, kinds: Iterable[str]) -> str:
    """The paper's values ± standard errors, BL first: `A: BL 0.9912 ± 0.0001, ...; B: ...`."""
    table = published[(published["where"] == "Table 1") & (published["quantity"] == measure)]
    rows = {(row.dataset, row.method): f"{row.value:.4f} ± {row.spread:.4f}" for row in table.itertuples()}
    names = [PUBLISHED_AS[key] for key in ("bl", *keys)]
    return "; ".join(f"{DATASETS[kind]}: {', '.join(f'{name} {rows[kind, name]}' for name in names)}" for kind in kinds)


def _published_two(published: pd.DataFrame, kinds: Iterable[str]) -> str:
    """The paper's rank correlations with LIME: `A: CAM 0.47, BLA-T 0.37; ...`."""
    table = published[published["where"] == "Table 2"]
    rows = {(row.dataset, row.method): f"{row.value:.2f}" for row in table.itertuples()}
    return "; ".join(f"{DATASETS[kind]}: CAM {rows[kind, 'CAM']}, BLA-T {rows[kind, 'BLA-T']}" for kind in kinds)


_FROZEN = ("bla_ph", "bla_ph_released", "bla_ph_reloaded")
_IMAGENET = [
    columns(f"on ImageNet BLA-T beats {COLUMNS[key]}", ("bla_t",), lambda j, m, key=key: j.better_once("bla_t", key), applies=_on_imagenet, published=False, baseline=key)  # type: ignore[misc]
    for key in ("bl", "bl_plus")
]  # fmt: skip

CLAIMS: tuple[tuple[int, Cases], ...] = (
    (1, columns("BLA beats L2X-F", ("bla", "l2x_f"), _better("bla", "l2x_f"), BOTH)),
    (2, columns("BLA costs little against BL", ("bla", "l2x_f"), lambda j, m: j.little_cost("bl"))),
    (2, columns("BLA costs little against BL+", ("bla", "l2x_f"), lambda j, m: j.little_cost("bl_plus"), baseline="bl_plus")),
    (3, columns("thresholding leaves the accuracy on A", ("bla", "bla_t"), lambda j, m: j.no_difference("bla_t", "bla", m), applies=_like_a)),
    (3, columns("thresholding raises the accuracy on B and C", ("bla", "bla_t"), lambda j, m: j.difference("bla_t", "bla", m), applies=_like_b_or_c)),
    (4, columns("thresholding raises the loss", ("bla", "bla_t"), lambda j, m: j.difference("bla_t", "bla", m), ("loss",))),
    *((5, columns(
        f"freezing the head does not change the mean, except the loss on A ({COLUMNS[key]})", ("bla_t", key),
        lambda j, m, key=key: j.no_difference(key, "bla_t", m), BOTH, _all_but_loss_on_a, optional=key != "bla_ph",  # type: ignore[misc]
    )) for key in _FROZEN),
    *((6, columns(
        f"freezing the head raises the variance over runs ({COLUMNS[key]})", ("bla_t", key),
        lambda j, m, key=key: j.more_spread(key, "bla_t", m), BOTH, optional=key != "bla_ph",  # type: ignore[misc]
    )) for key in _FROZEN),
    (7, columns("on birds BLA-T does not differ from BL", ("bla_t",), lambda j, m: j.no_difference("bla_t", "bl", m), applies=_like_c)),
    (7, columns("on birds BLA-T does not differ from BL+", ("bla_t",), lambda j, m: j.no_difference("bla_t", "bl_plus", m), applies=_like_c, baseline="bl_plus")),
    (8, small_cnn("on MNIST BLA-T does not differ from BL", 8)),
    (9, two_network_l2x("two-network L2X: soft explanations work, hard ones fall to chance")),
    (10, columns(
        "BLA-T's correlation with LIME is comparable to CAM's on A and B", ("bla_t",),
        lambda j, m: j.comparable_with_lime(), applies=_like_a_or_b, lime=True,
    )),
    (10, columns(
        "BLA-T's correlation with LIME is larger than CAM's on C", ("bla_t",),
        lambda j, m: j.closer_to_lime(), applies=_like_c, lime=True,
    )),
    (11, abandoned_modules("with a concept vector the explanation collapses to one cell", "concept_vector")),
    (12, abandoned_modules("pointwise attention is unfocused", "pointwise")),
    *((13, cases) for cases in _IMAGENET),
    (13, not_here("on ImageNet BLA-T beats BL", "needs ImageNet, which a user must bring", _IMAGENET)),
    (14, columns("explanation size varies from image to image", ("bla",), lambda j, m: j.varying_size("bla"), published=False)),
    (15, small_cnn("BLA-T beats pixel-level L2X on MNIST", 15)),
    (16, columns("BLA-T's loss stays below L2X-F's", ("bla_t", "l2x_f"), lambda j, m: j.difference("l2x_f", "bla_t", m), ("loss",))),
    (17, columns("L2X-F is worse than BL", ("l2x_f",), _better("bl", "l2x_f"), BOTH)),
    (18, user_study("people prefer BLA-T to CAM", 18)),
    (19, user_study("people prefer BLA-T to L2X-F", 19)),
    (20, user_study("people prefer BLA-T to a random explanation", 20)),
    (21, subset_selection("BLA-T finds the relevant features of synthetic sets at least as well as L2X (our claim)")),
    (22, agreement("two runs agree more on an image than one run on two images of a class (our claim)")),
)  # fmt: skip
"""The number of each claim, and the function that returns its cases; from 21 on the claims are ours and get no verdict."""
