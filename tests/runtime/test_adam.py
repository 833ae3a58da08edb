"""Adam: tensors without a gradient, and what it must not import."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bla.runtime.adam import Adam


def test_a_tensor_without_gradient_is_not_changed_and_takes_no_step():
    used, unused = (torch.ones(2).requires_grad_() for _ in range(2))
    adam = Adam([used, unused], 0.1, 1e-7)
    for _ in range(3):
        adam.minimise((used**2).sum())
    assert unused.tolist() == [1, 1]
    assert [int(step) for step in adam.steps] == [3, 0]
    adam.minimise((used * unused).sum())
    assert unused.tolist() == pytest.approx([0.9, 0.9])


@pytest.mark.slow
def test_no_compiler_is_imported():
    """It takes two seconds, in every stage that trains."""
    code = "import sys, torch, bla.runtime.adam\nx = torch.ones(2, requires_grad=True)\n"
    code += "bla.runtime.adam.Adam([x], 0.1, 1e-7).minimise(x.sum())\nsys.exit('torch._dynamo' in sys.modules)"
    source = Path(__file__).parents[2] / "src"
    assert subprocess.run([sys.executable, "-c", code], cwd=source, check=False).returncode == 0
