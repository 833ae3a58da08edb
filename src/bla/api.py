"""The library in one place; `import bla` alone loads nothing of it."""

from bla.base.errors import BlaError
from bla.own_classifier.browsing import browse
from bla.own_classifier.explaining import explain
from bla.own_classifier.fitting import CachedFeatures, FittedMethod, extract_features, fit, load_fitted
from bla.own_classifier.methods import Method, method_names, with_settings
from bla.own_classifier.planning import Plan, plan
from bla.own_classifier.record import ExplanationRecord, MethodResult, load_record
from bla.own_classifier.scoring import compare, score, summary
from bla.own_classifier.transform import Transform
from bla.own_classifier.weights import load_weights, read_weights
from bla.own_classifier.wrap import OwnClassifier, wrap

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
