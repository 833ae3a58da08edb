"""Errors that mean too little memory are told from others."""

import errno
import platform
import subprocess
import sys

import pytest
import torch
from wrong_arrays import TOO_LARGE

from bla.base.errors import BlaError
from bla.runtime.memory import too_little_memory


@pytest.mark.parametrize("what", TOO_LARGE)
def test_an_allocation_that_no_machine_can_make_is_one(what):
    with pytest.raises((MemoryError, RuntimeError)) as error:
        TOO_LARGE[what]()
    reason = {"Python": "none left", "numpy": "Unable to allocate ", "torch": "[enforce fail at "}[what.split()[-1]]
    assert too_little_memory(error.value).startswith(reason)
    assert "\n" not in too_little_memory(error.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto"), "CUDA out of memory. Tried"),
        (RuntimeError("std::bad_alloc"), "std::bad_alloc"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "[Errno 12] Cannot allocate memory"),
        (OSError("libx.so: failed to map segment from shared object"), "libx.so: failed to map segment from shared object"),
        (ImportError("libx.so: failed to map segment from shared object"), "libx.so: failed to map segment from shared object"),
    ],
)  # fmt: skip
def test_so_are_those_of_a_gpu_of_c_and_of_the_system(error, reason):
    assert too_little_memory(error) == reason


@pytest.mark.parametrize(
    "error",
    [
        *(
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            ImportError("cannot import name"),
            ValueError("x"),
        ),
        *(OSError(errno.ENOSPC, "No space left on device"), BlaError("photo.jpg: out of memory")),
    ],
)
def test_others_are_not(error):
    assert too_little_memory(error) is None


FAULTS = """
import resource, sys, threading
from bla.runtime.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=lambda: b"x" * (64 << 20))
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="options of glibc")
def test_freed_memory_is_used_again_also_by_another_thread():
    returned, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("returned", "kept")
    )
    assert returned > 16_000  # pages of 4 kB: 64 MB are 16,384
    assert kept < 100
