"""Adam against torch.optim's class."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bla.runtime.adam import Adam


@pytest.mark.parametrize(("rate", "epsilon"), [(1e-3, 1e-7), (0.1, 1e-3)])
def test_steps_are_those_of_torch_optim(rate, epsilon):
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(7)) for shape in ((3, 4), (5,))]
    mine, its = ([part.clone().requires_grad_() for part in start] for _ in range(2))
    adam, reference = Adam(mine, rate, epsilon), torch.optim.Adam(its, lr=rate, eps=epsilon, fused=True)
    for step in range(20):
        adam.minimise(sum((part * (step + 1)).sin().sum() for part in mine))
        reference.zero_grad()
        sum((part * (step + 1)).sin().sum() for part in its).backward()
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(mine, its, strict=True))
    assert not torch.equal(mine[0], start[0])


def test_a_tensor_that_the_loss_does_not_depend_on_stays_and_takes_no_step():
    used, unused = (torch.ones(2).requires_grad_() for _ in range(2))
    adam = Adam([used, unused], 0.1, 1e-7)
    for _ in range(3):
        adam.minimise((used**2).sum())
    assert unused.tolist() == [1, 1]
    assert [int(step) for step in adam.steps] == [3, 0]
    adam.minimise((used * unused).sum())
    assert unused.tolist() == pytest.approx([0.9, 0.9])


def test_no_compiler_is_imported():
    """It takes two seconds, in every stage that trains."""
    code = "import sys, torch, bla.runtime.adam\nx = torch.ones(2, requires_grad=True)\n"
    code += "bla.runtime.adam.Adam([x], 0.1, 1e-7).minimise(x.sum())\nsys.exit('torch._dynamo' in sys.modules)"
    source = Path(__file__).parent.parent / "src"
    assert subprocess.run([sys.executable, "-c", code], cwd=source, check=False).returncode == 0
