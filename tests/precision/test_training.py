"""Steps and gradients of many runs against torch.optim and torch.func.vmap."""

import pytest
import torch
from small_networks import learnable_images
from torch.nn.functional import cross_entropy

from bla.base.specs import BoundedLogits
from bla.method.equations import logits_of, soft_explanation
from bla.method.initialisation import initial_head
from bla.method.modules import Head
from bla.runtime.adam import Adam

BLA_T = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98)
N, CELLS, CHANNELS, CLASSES, SEEDS = 70, 9, 6, 3, [11, 12, 13]


@pytest.fixture(scope="module")
def data():
    """Features and labels; the last batch is smaller."""
    return learnable_images(N, CELLS, CHANNELS, CLASSES)


@pytest.fixture(scope="module")
def head():
    return initial_head(SEEDS, CHANNELS, CLASSES)


@pytest.mark.parametrize(("rate", "epsilon"), [(1e-3, 1e-7), (0.1, 1e-3)])
def test_steps_agree_with_torch_optim(rate, epsilon):
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


def test_gradients_of_all_runs_at_once_agree_with_vmap(data, head):
    features, labels = data[0].float(), data[1]
    module = torch.randn(len(SEEDS), CHANNELS, generator=torch.Generator().manual_seed(1))

    def loss(weight, bias, u, f):
        q = soft_explanation(BLA_T, logits_of(BLA_T, f @ u), None)
        return cross_entropy(torch.einsum("bn,bnc->bc", q, f) @ weight.T + bias, labels)

    wanted = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)), in_dims=(0, 0, 0, None))(
        head.weight, head.bias, module, features
    )
    leaves = [t.clone().requires_grad_() for t in (head.weight, head.bias, module)]
    q = soft_explanation(BLA_T, logits_of(BLA_T, torch.matmul(features, leaves[2][:, None, :, None])[..., 0]), None)
    outputs = Head(leaves[0], leaves[1])(torch.matmul(q[..., None, :], features)[..., 0, :])
    targets = labels.expand(len(SEEDS), -1)
    cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").view(3, -1).mean(1).sum().backward()
    torch.testing.assert_close([leaf.grad for leaf in leaves], list(wanted), rtol=1e-5, atol=1e-6)
