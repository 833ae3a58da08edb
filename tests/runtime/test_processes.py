"""Work in processes: the order of the items, errors, and where the work is done."""

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
def test_results_come_in_the_order_of_the_items_from_other_processes():
    found = list(in_processes(partial(power, 2), [3, 1, 2]))
    assert [value for value, _ in found] == [9, 1, 4]
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.parametrize("items", [[], [3]])
def test_nothing_and_a_single_item_need_no_process(items):
    assert list(in_processes(partial(power, 2), items)) == [(9, os.getpid())] * len(items)


@pytest.mark.slow
def test_an_error_comes_through():
    with pytest.raises(BlaError, match=r"^-1: "):
        list(in_processes(partial(power, 2), [3, -1, 2]))
