"""Bounded logit attention (Baumhauer, Slijepcevic, Zeppelzauer 2021, arXiv 2105.14824).

The library: it knows nothing of DVC, of where files lie, or of params.yaml. For a classifier of one's own
(docs/own_classifier.md) the names of `bla.api` are here too: `bla.wrap`, `bla.explain`, `bla.fit`, `bla.score`, ...
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bla.api import (
        BlaError,
        CachedFeatures,
        ExplanationRecord,
        FittedMethod,
        Method,
        MethodResult,
        OwnClassifier,
        Plan,
        Transform,
        browse,
        compare,
        explain,
        extract_features,
        fit,
        load_fitted,
        load_record,
        load_weights,
        method_names,
        plan,
        read_weights,
        score,
        summary,
        with_settings,
        wrap,
    )

__all__ = [
    "BlaError",
    "CachedFeatures",
    "ExplanationRecord",
    "FittedMethod",
    "Method",
    "MethodResult",
    "OwnClassifier",
    "Plan",
    "Transform",
    "browse",
    "compare",
    "explain",
    "extract_features",
    "fit",
    "load_fitted",
    "load_record",
    "load_weights",
    "method_names",
    "plan",
    "read_weights",
    "score",
    "summary",
    "with_settings",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """A name of `bla.api`, which is imported at its first use, so that `import bla` stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'bla' has no attribute {name!r}")
    import bla.api

    return getattr(bla.api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
