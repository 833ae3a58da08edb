"""From images to tables, figures and reports: `python -m pipeline STAGE [ARGUMENT ...]` runs one stage, as dvc.yaml does.

This package puts the `src` of its own checkout first on the path, so that `dvc exp run --temp` runs the code of the
experiment's copy and not the installed `bla`, which is that of the main checkout.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
