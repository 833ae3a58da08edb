"""One thread a process: two workers with two threads each on two cores wait for each other most of the time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
