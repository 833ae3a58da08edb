"""One thin module per DVC stage: read settings and inputs, call `bla`, write outputs.

`bla` is not installed: this package puts its own tree's `src` first on the path, so that `dvc exp run --temp`
runs the code of the experiment's tree and not that of the main one.
"""

import gc
import os
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
if sys.argv[0] == "-m":  # this process is to run a stage
    if "BLA_SERVER" in os.environ:
        from pipeline.run.warm import hand_over

        hand_over(str(ROOT))
    # Until `run_stage`: nothing that is imported is garbage, and looking for some takes a third of the time.
    gc.disable()


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while torch is still being imported, before `run_stage` can catch it."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted; run again to continue", file=sys.stderr)
        os._exit(130)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _without_traceback
