"""`python -m pipeline STAGE [ARGUMENT ...]`: run one stage."""

import gc
import sys

gc.disable()  # until the stage starts: nothing that is imported is garbage, and looking for some takes a third of the time

from pipeline.run.stage import run_by_name  # noqa: E402

run_by_name(sys.argv[1:])
