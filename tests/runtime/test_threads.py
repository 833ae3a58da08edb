"""Work side by side in threads."""

import threading
import time

import pytest
import torch

from bla.base.errors import BlaError
from bla.runtime.threads import in_parts, side_by_side


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


def test_a_single_worker_is_the_thread_that_calls_and_several_are_not():
    assert set(side_by_side(lambda _: threading.get_ident(), range(4), 1)) == {threading.get_ident()}
    assert threading.get_ident() not in set(side_by_side(lambda _: threading.get_ident(), range(4), 2))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("workers", [1, 2])
def test_gradients_are_enabled_in_the_work_and_as_before_outside(workers, mode):
    with mode():
        for enabled in side_by_side(lambda _: torch.is_grad_enabled(), range(3), workers):
            assert enabled
            assert not torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_iterator_that_ends_within_the_work_is_an_error(workers):
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(side_by_side(lambda item: next(iter([])) if item == 1 else item, range(3), workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_no_item_starts_after_an_error(workers):
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise BlaError("stop")
        time.sleep(0.02)  # in which the error is noticed

    with pytest.raises(BlaError, match="stop"):
        list(side_by_side(work, range(100), workers))
    assert len(begun) < 100
    if workers == 1:
        assert begun == [0, 1]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_is_computed_in_as_many_parts_as_threads(count, two_threads):
    batch, seen = torch.arange(3.0 * count).view(count, 3), []

    def work(part):
        seen.append((len(part), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return 2 * part

    for mode, inference in ((torch.no_grad(), False), (torch.inference_mode(), True)):
        seen.clear()
        with mode:
            assert torch.equal(in_parts(work, batch), 2 * batch)
        assert sorted(seen) == sorted([(n, False, inference) for n in {1: [1], 2: [1, 1], 5: [2, 3]}[count]])


def test_a_batch_with_gradients_is_computed_in_one_part(two_threads):
    batch = torch.ones(4, 2, requires_grad=True)
    in_parts(lambda part: part * len(part), batch).sum().backward()
    assert batch.grad.tolist() == [[4, 4]] * 4
