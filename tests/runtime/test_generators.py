"""Random numbers by run."""

import torch

from bla.runtime.generators import draw, generators_of


def test_the_random_numbers_of_a_run_do_not_depend_on_other_runs():
    together, alone = draw((3, 4), 5, generators_of([1, 2, 3])), draw((3, 4), 5, generators_of([2]))
    assert together.shape == (3, 5, 3, 4)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    torch.manual_seed(2)
    assert torch.equal(alone[0], torch.rand(5, 3, 4))
