"""`python -m pipeline STAGE [ARGUMENT ...]`: run one stage."""

import gc
import sys

gc.disable()  # until the stage starts: nothing that is imported is garbage, and looking for some takes a third of the time

try:
    from pipeline.run.stage import run_by_name
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed for this Python; run source .venv/bin/activate, or make repro")
except KeyboardInterrupt:
    sys.exit(130)

run_by_name(sys.argv[1:])
