"""`python -m pipeline STAGE [ARGUMENT ...]`, or `STAGE --NAME ARGUMENT ...` as dvc.yaml has it: run one stage."""

import gc
import sys

gc.disable()  # until the stage starts: imports make no garbage, and garbage collection takes a third of their time

try:
    from pipeline.run.stage import run_by_name
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed for this Python; run source .venv/bin/activate, or make repro")
except KeyboardInterrupt:
    sys.exit(130)

run_by_name(sys.argv[1:])
