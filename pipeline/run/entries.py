"""The entries of params.yaml that a stage of several datasets uses."""

from bla.base.specs import ClutteredDigits
from pipeline.run.settings import Settings


def running(settings: Settings, experiment: str) -> list[str]:
    """The datasets of an experiment that run; prints a line if none does."""
    datasets = [name for name in getattr(settings, experiment).datasets if name in settings.datasets]
    if not datasets:
        print(
            f"{experiment}: none of {experiment}.datasets runs, so its tables are empty; add one to datasets, or one of those here"
        )
    return datasets


def embedded_digits(settings: Settings) -> ClutteredDigits:
    """The images that the embedded backbone is trained on."""
    images = settings.dataset["cluttered_digits"].images
    assert isinstance(images, ClutteredDigits)  # checked by load_settings
    return images
