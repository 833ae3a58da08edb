"""Stage `study`: the questionnaire of the user study, one HTML page in reports/study/; it runs only by name."""

from pathlib import Path

from bla.base.atomic import save_text
from bla.base.errors import BlaError
from bla.report.questionnaire.page import questionnaire
from pipeline.artifacts.images import load_labels
from pipeline.maps.study_images import VARIANTS, study_dataset
from pipeline.run.settings import Settings, load_settings

PAGE = Path("reports/study/questionnaire.html")


def main() -> None:
    """Write questionnaire.html."""
    settings = load_settings()
    missing = [key for key in VARIANTS if key not in settings.variants]
    if missing:
        raise BlaError(f"params.yaml: variants: the study compares bla_t with l2x_f; add {' and '.join(missing)}")
    names = [name for name in settings.datasets if _can_be_shown(name, settings)]
    if not names:
        raise BlaError("params.yaml: datasets: none can be shown in the study; add one with one class an image")
    html = questionnaire([study_dataset(name, settings) for name in names])
    save_text(PAGE, html)
    print(f"{PAGE}: {len(html) / 1e6:.1f} MB; send it to people, and put the files that they send back in data/study/")


def _can_be_shown(dataset: str, settings: Settings) -> bool:
    """Whether images have one class each and the classifier is BL; prints a line if not."""
    several = load_labels(dataset, "test").ndim > 1
    if several or settings.dataset[dataset].backbone.tail != "pooled":
        print(f"{dataset}: left out: {'images have several classes' if several else 'the network has its own tail'}")
        return False
    return True
