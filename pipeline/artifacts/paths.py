"""Where the pipeline's files lie, relative to the root of the repository; dvc.yaml names the same places."""

from pathlib import Path

IMAGES = Path("data/images")
FEATURES = Path("data/features")
EVALUATION = Path("data/evaluation")
LIME_MAPS = Path("data/lime")
MAPS = Path("data/maps")
FAITHFULNESS = Path("data/faithfulness")
BACKBONES = Path("models/backbones")
HEADS = Path("models/heads")
EXPLAINERS = Path("models/explainers")
PUBLISHED = Path("data/published_values.csv")
REPORTS = Path("reports")
NOTEBOOKS = REPORTS / "notebooks"
TABLES = REPORTS / "tables"
FIGURES = REPORTS / "figures"
CURVES = REPORTS / "curves"
HTML = REPORTS / "html"
