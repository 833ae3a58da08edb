"""Work side by side in threads."""

import threading
import time

import pytest
import torch

from bla.base.errors import BlaError
from bla.runtime.threads import side_by_side


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_in_the_order_of_the_items(workers):
    later = threading.Event()

    def work(item):
        if workers > 1 and item == 0:
            later.wait(5)  # until a later item is done
        later.set()
        return 10 * item

    assert list(side_by_side(work, range(5), workers)) == [0, 10, 20, 30, 40]


def test_operations_use_one_thread_during_the_work_and_the_old_number_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert set(side_by_side(lambda _: torch.get_num_threads(), range(4), 2)) == {1}
        assert torch.get_num_threads() == 2
        assert set(side_by_side(lambda _: torch.get_num_threads(), range(4), 1)) == {2}
        with pytest.raises(ZeroDivisionError):
            list(side_by_side(lambda item: 1 // item, [1, 0, 1], 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_item_starts_after_an_error():
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise BlaError("stop")
        time.sleep(0.02)  # in which the error is noticed

    with pytest.raises(BlaError, match="stop"):
        list(side_by_side(work, range(100), 1))
    assert len(begun) < 100
