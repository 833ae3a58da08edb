"""The grouped trainer against a plain loop over single models, and against torch's vmap."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bla.errors import BlaError
from bla.seeds import derive_seed
from bla.selection import hard_weights, logits_of, noise_shape, soft_explanation
from bla.specs import L2XF, BoundedLogits, NoExplanation, Schedule
from bla.training import Head, Module, Trained, evaluate, initial_head, pooled, train

NONE = NoExplanation("none")
BLA = BoundedLogits("bounded_logits", "trained", 0.1, 0)
BLA_T = BoundedLogits("bounded_logits", "trained", 0.1, 0.98)
BLA_PH = BoundedLogits("bounded_logits", "frozen", 0.1, 0.98)
RELOADED = BoundedLogits("bounded_logits", "trained_reloaded", 0.1, 0.98)
INDICATOR = BoundedLogits("bounded_logits", "trained", 0.1, 0.98, "indicator")
L2X_F = L2XF("l2x_f", "trained", 0.1, 3)
VARIANTS = {"none": NONE, "bla": BLA, "bla_t": BLA_T, "bla_ph": BLA_PH, "l2x_f": L2X_F}
SCHEDULE = Schedule(batch_size=16, epochs=3, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7)
N, CELLS, CHANNELS, CLASSES, SEEDS = 70, 9, 6, 3, [11, 12, 13]


@pytest.fixture(scope="module")
def data():
    """Images whose class shows in a few cells, so that there is something to learn; the last batch is short."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % CLASSES
    features = torch.rand(N, CELLS, CHANNELS, generator=generator)
    features[torch.arange(N), labels + 2, labels] += 3
    return features.half(), labels


@pytest.fixture(scope="module")
def head():
    return initial_head(SEEDS, CHANNELS, CLASSES)


def tensors(trained: Trained) -> list[torch.Tensor]:
    module = [trained.module.weight, trained.module.bias] if trained.module else []
    return [trained.head.weight, trained.head.bias, *module, trained.losses]


def reference(features, labels, variant, weight, bias, seed):
    """One run as anybody would write it: torch modules, one model, no run dimension; draws in the trainer's order."""
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(CHANNELS, CLASSES)
    linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
    convolution = nn.Conv1d(CHANNELS, 1, 1)
    if variant is not NONE:
        limit = (6 / (CHANNELS + 1)) ** 0.5
        convolution.weight.data = ((torch.rand(CHANNELS, generator=generator) * 2 - 1) * limit).view(1, CHANNELS, 1)
        convolution.bias.data.zero_()
    parameters = [] if variant.head == "frozen" else list(linear.parameters())
    parameters += [] if variant is NONE else list(convolution.parameters())
    optimiser = torch.optim.Adam(parameters, lr=SCHEDULE.learning_rate, eps=SCHEDULE.adam_epsilon)
    losses = []
    for _ in range(SCHEDULE.epochs):
        order, total = torch.randperm(N, generator=generator), 0.0
        for batch in order.split(SCHEDULE.batch_size):
            f = features[batch].float()
            if variant is NONE:
                v = f.mean(dim=1)
            else:
                shape = noise_shape(variant, CELLS)
                noise = None if shape is None else torch.rand(len(batch), *shape, generator=generator)
                g = convolution(f.transpose(1, 2))[:, 0]
                q = soft_explanation(variant, logits_of(variant, g), noise)
                v = sum(q[:, i, None] * f[:, i] for i in range(CELLS))
            v = v * (torch.rand(len(batch), CHANNELS, generator=generator) >= 0.2) / 0.8
            loss = cross_entropy(linear(v), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / N)
    found = [linear.weight.data, linear.bias.data]
    found += [] if variant is NONE else [convolution.weight.data.view(CHANNELS), convolution.bias.data.view(())]
    return [*found, torch.tensor(losses)]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_run_is_what_a_plain_loop_over_one_model_computes(name, data, head):
    variant = VARIANTS[name]
    together = tensors(train(*data, variant, head, SEEDS, SCHEDULE, group=3))
    for run, seed in enumerate(SEEDS):
        alone = reference(*data, variant, head.weight[run], head.bias[run], seed)
        for number, (found, wanted) in enumerate(zip(together, alone, strict=True)):
            if variant is L2X_F and number == 3:
                continue  # a softmax ignores the bias of unbounded logits: its gradient is rounding noise
            torch.testing.assert_close(found[run], wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_groups_of_any_size_train_the_same_runs(name, data, head):
    wanted = tensors(train(*data, VARIANTS[name], head, SEEDS, SCHEDULE, group=1))
    for group in (2, 3, None):
        found = tensors(train(*data, VARIANTS[name], head, SEEDS, SCHEDULE, group=group))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_seeds_give_the_same_bytes_and_change_no_input(name, data, head):
    before = [data[0].clone(), head.weight.clone(), head.bias.clone()]
    once, again = (tensors(train(*data, VARIANTS[name], head, SEEDS, SCHEDULE)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, [data[0], head.weight, head.bias], strict=True))
    assert not head.weight.requires_grad


def test_gradients_of_all_runs_at_once_are_those_of_vmap(data, head):
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


def test_a_frozen_head_stays_and_a_reloaded_head_is_the_one_it_started_from(data, head):
    frozen = train(*data, BLA_PH, head, SEEDS, SCHEDULE)
    assert torch.equal(frozen.head.weight, head.weight)
    reloaded, moved = (train(*data, v, head, SEEDS, SCHEDULE) for v in (RELOADED, BLA_T))
    assert torch.equal(reloaded.head.weight, head.weight)
    assert torch.equal(reloaded.module.weight, moved.module.weight)
    assert not torch.equal(moved.head.weight, head.weight)


def test_the_printed_indicator_leaves_the_module_untrained(data, head):
    once = train(*data, INDICATOR, head, SEEDS, Schedule(16, 1, 0.01, 0.2, 1e-7))
    more = train(*data, INDICATOR, head, SEEDS, SCHEDULE)
    assert torch.equal(once.module.weight, more.module.weight)
    assert not torch.equal(once.head.weight, more.head.weight)


def test_training_learns_and_bla_t_finds_the_cells_that_show_the_class(data, head):
    schedule = Schedule(16, 60, 0.05, 0.2, 1e-7)
    base = train(*data, NONE, head, SEEDS, schedule)
    assert evaluate(*data, NONE, base, SEEDS).correct.float().mean() > 0.9
    trained = train(*data, BLA_T, base.head, SEEDS, schedule)
    explained = evaluate(*data, BLA_T, trained, SEEDS).explained
    informative = explained.hard[:, torch.arange(N), data[1] + 2].float().mean()
    assert informative > 2 * explained.hard.float().mean()


def test_evaluation_by_hand():
    features = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 4.0]]])  # one image, three cells, two channels
    head = Head(torch.eye(2)[None], torch.zeros(1, 2))
    u, b = torch.tensor([[-1.0, 1.0]]), torch.tensor([-2.0])  # scores -3, 0, 2: the last two reach the bound
    result = evaluate(features, torch.tensor([1]), BLA, Trained(head, Module(u, b), torch.zeros(1, 1)), [0])
    assert result.explained.logits.tolist() == [[[-3, 0, 0]]]
    assert result.explained.hard.tolist() == [[[False, True, True]]]
    assert result.correct.tolist() == [[True]]
    torch.testing.assert_close(result.loss, -torch.log_softmax(torch.tensor([[0.0, 3.0]]), 1)[:, 1:])
    q = torch.softmax(torch.tensor([-0.3, 0, 0]), 0)
    soft = torch.tensor([[q[0], 2 * q[1] + 4 * q[2]]])
    torch.testing.assert_close(result.explained.loss, -torch.log_softmax(soft, 1)[:, 1:])


@pytest.mark.parametrize("name", VARIANTS)
def test_evaluation_depends_neither_on_chunks_nor_on_the_order_of_images(name, data, head, monkeypatch):
    variant = VARIANTS[name]
    trained = train(*data, variant, head, SEEDS, SCHEDULE)
    whole = evaluate(*data, variant, trained, SEEDS)
    monkeypatch.setattr("bla.training.EVALUATION_CHUNK", 7)
    pieces = evaluate(*data, variant, trained, SEEDS)
    torch.testing.assert_close(pieces.loss, whole.loss, rtol=1e-5, atol=1e-6)
    assert torch.equal(pieces.correct, whole.correct)
    if whole.explained:
        torch.testing.assert_close(pieces.explained.soft, whole.explained.soft, rtol=1e-5, atol=1e-6)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(5))
    mixed = evaluate(data[0][order], data[1][order], variant, trained, SEEDS)
    torch.testing.assert_close(mixed.loss, whole.loss[:, order], rtol=1e-5, atol=1e-6)


def test_hard_weights_pool_with_a_mean_over_the_selected_cells(data, head):
    trained = train(*data, BLA, head, SEEDS, SCHEDULE)
    explained = evaluate(*data, BLA, trained, SEEDS).explained
    run, image = 1, 4
    mean = data[0][image].float()[explained.hard[run, image]].mean(dim=0)
    pooled_by_weights = hard_weights(explained.hard)[run, image] @ data[0][image].float()
    torch.testing.assert_close(pooled_by_weights, mean)


def test_pooling_does_not_overflow_half_precision():
    features = torch.full((2, 49, 3), 60000.0).half()
    torch.testing.assert_close(pooled(features), features[:, :1].float())


def test_a_loss_that_is_not_finite_is_refused(data, head):
    features = data[0].clone()
    features[3, 2, 1] = torch.nan
    for variant in (NONE, BLA_T):
        with pytest.raises(BlaError, match=r"not finite in epoch 1; .*learning_rate"):
            train(features, data[1], variant, head, SEEDS, SCHEDULE)


def test_untrained_heads_are_glorot_uniform_with_zero_bias_and_differ_by_seed():
    head = initial_head([1, 2], 1280, 20)
    limit = (6 / 1300) ** 0.5
    assert head.weight.shape == (2, 20, 1280)
    assert head.weight.abs().max() <= limit
    assert abs(float(head.weight.std()) - limit / 3**0.5) < 0.01 * limit
    assert not head.bias.any()
    assert not torch.equal(head.weight[0], head.weight[1])


def test_seeds_depend_on_every_part_and_on_their_order():
    seeds = {
        derive_seed(*parts) for parts in [(0, "a", 1), (0, "a", 2), (1, "a", 0), (0, "a1"), ("a", 0, 1), (0, "b", 1)]
    }
    assert len(seeds) == 6
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
