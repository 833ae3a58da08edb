"""Stage `browser`: every test image with all methods' maps, as one HTML file for use from disk, in reports/."""

from pathlib import Path

from bla.base.atomic import save_text
from bla.report.browser.builder import browser_page
from pipeline.maps.browsed import browsed
from pipeline.run.settings import load_settings

BROWSER = Path("reports/browser.html")


def main() -> None:
    """Write browser.html."""
    settings = load_settings()
    collections = [browsed(dataset, settings) for dataset in settings.datasets]
    text = browser_page(collections, "Explanation browser", home="html/index.html")
    save_text(BROWSER, text)
    images = sum(len(collection.images) for collection in collections)
    print(f"{BROWSER}: {images} images, {len(text) / 1e6:.1f} MB")
