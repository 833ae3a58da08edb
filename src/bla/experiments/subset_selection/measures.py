"""Whether the selected features are the relevant ones: median ranks, and the recovered subset."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def median_ranks(scores: Array, relevant: Mask, ties: Array) -> Array:
    """The median rank `[R, M]` of each sample's relevant features; rank 1 is the largest score.

    `scores` are `[R, M, n]`; `relevant` `[M, n]` marks k features of every sample; `ties` `[M, n]` are random numbers,
    by which equal scores are ordered. If k relevant features come first the result is (k + 1) / 2; for random scores
    it is (n + 1) / 2 on average.

    Source: Chen et al. 2018.
    """
    order = np.lexsort((np.broadcast_to(ties, scores.shape), -scores), axis=-1)
    ranks = order.argsort(axis=-1) + 1
    of_relevant = ranks[:, relevant].reshape(*scores.shape[:2], -1)  # the same number in every sample
    result: Array = np.median(of_relevant, axis=-1)
    return result


def recovery(selected: Mask, relevant: Mask) -> dict[str, Array]:
    """How well each run's selection `[R, M, n]` recovers the relevant features `[M, n]`, averaged over samples, `[R]`.

    `exact`: share of samples whose selection is exactly the relevant features; `precision`: share of the selected
    features that are relevant; `recall`: share of the relevant features that are selected; `explanation_size`: number
    of selected features. No selection may be empty.
    """
    hits, size = (selected & relevant).sum(axis=2), selected.sum(axis=2)
    values = {
        "exact": (selected == relevant).all(axis=2),
        "precision": hits / size,
        "recall": hits / relevant.sum(axis=1),
        "explanation_size": size,
    }
    return {name: of_samples.mean(axis=1) for name, of_samples in values.items()}


def selected_shares(selected: Mask, relevant: Mask) -> tuple[Mask, Array]:
    """The different sets of relevant features, bool `[C, n]`, and how often each run selects each feature in them.

    `selected` `[R, M, n]`, `relevant` `[M, n]`; the shares are of the samples with these relevant features, `[R, C, n]`.
    """
    cases = np.unique(relevant, axis=0)
    of_case = [(relevant == case).all(axis=1) for case in cases]
    return cases, np.stack([selected[:, rows].mean(axis=1) for rows in of_case], axis=1)
