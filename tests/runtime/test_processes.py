"""Work in processes: order of the results, errors, and use of other processes."""

import os
from functools import partial

import pytest

from bla.base.errors import BlaError
from bla.runtime.processes import in_processes


def power(exponent, base):
    if base < 0:
        raise BlaError(f"{base}: below zero")
    return base**exponent, os.getpid()


@pytest.mark.slow
def test_results_from_other_processes_are_in_the_order_of_the_items():
    found = list(in_processes(partial(power, 2), [3, 1, 2]))
    assert [value for value, _ in found] == [9, 1, 4]
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.parametrize("items", [[], [3]])
def test_no_item_or_a_single_item_needs_no_process(items):
    assert list(in_processes(partial(power, 2), items)) == [(9, os.getpid())] * len(items)


@pytest.mark.slow
def test_an_error_in_a_process_is_raised():
    with pytest.raises(BlaError, match=r"^-1: "):
        list(in_processes(partial(power, 2), [3, -1, 2]))
