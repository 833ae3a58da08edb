"""One thin module per DVC stage: read settings and inputs, call `bla`, write outputs.

`bla` is not installed: this package puts its own tree's `src` first on the path, so that `dvc exp run --temp`
runs the code of the experiment's tree and not that of the main one.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
