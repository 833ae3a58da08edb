"""Errors that mean too little memory are told from others."""

import errno

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
