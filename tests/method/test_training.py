"""The grouped trainer against a plain loop over single models."""

from dataclasses import replace
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]
import pytest
import torch

from bla.base.errors import BlaError
from bla.base.specs import L2XF, BoundedLogits, ConceptVector, NoExplanation, Pointwise, Schedule
from bla.method.evaluation import evaluate
from bla.method.finite import refuse_not_finite
from bla.method.initialisation import initial_head
from bla.method.modules import Head, Trained
from bla.method.reference import train_one
from bla.method.training import train, train_sweep

NONE = NoExplanation(explanation="none")
BLA = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0)
BLA_T = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98)
BLA_PH = BoundedLogits(explanation="bounded_logits", head="frozen", temperature=0.1, threshold_factor=0.98)
RELEASED = BoundedLogits(
    explanation="bounded_logits", head="trained_as_released", temperature=0.1, threshold_factor=0.98
)
RELOADED = BoundedLogits(explanation="bounded_logits", head="trained_reloaded", temperature=0.1, threshold_factor=0.98)
INDICATOR = BoundedLogits(
    explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98, threshold_rule="indicator"
)
L2X_F = L2XF(explanation="l2x_f", head="trained", temperature=0.1, k=3)
POINTWISE = Pointwise(explanation="pointwise", head="trained", temperature=0.1)
CONCEPT = ConceptVector(explanation="concept_vector", head="trained", temperature=0.1, activation="linear")
CONCEPT_RELU = ConceptVector(explanation="concept_vector", head="trained", temperature=0.1, activation="relu")
VARIANTS = {"none": NONE, "bla": BLA, "bla_t": BLA_T, "bla_ph": BLA_PH, "l2x_f": L2X_F}
VARIANTS |= {"pointwise": POINTWISE, "concept": CONCEPT, "concept_relu": CONCEPT_RELU}
SCHEDULE = Schedule(batch_size=16, epochs=3, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7)
DAMPED = replace(SCHEDULE, adam_epsilon=1e-3)
"""For variants with a tensor that shifts all scores of an image equally, such as a module's bias. Away from the bound a softmax is
invariant to this shift: the gradient is rounding noise, which Adam amplifies to full steps unless epsilon is larger."""
SCHEDULES = {name: SCHEDULE if name in ("none", "pointwise") else DAMPED for name in VARIANTS}
N, CELLS, CHANNELS, CLASSES, SEEDS = 70, 9, 6, 3, [11, 12, 13]


def fit(data, *rest, **options) -> Trained:
    """Train on one draw of the images."""
    return train(data[0][None], data[1], *rest, **options)


def tensors(trained: Trained) -> list[torch.Tensor]:
    module = trained.module.parameters() if trained.module else []
    return [trained.head.weight, trained.head.bias, *module, trained.losses]


@pytest.mark.parametrize("count", [1, 2, 3], ids=lambda count: f"{count} draws")
@pytest.mark.parametrize("name", VARIANTS)
def test_every_run_agrees_with_a_plain_loop_over_one_model(name, count, draws, head):
    variant, schedule, features, labels = VARIANTS[name], SCHEDULES[name], draws[0][:count], draws[1]
    together = tensors(train(features, labels, variant, head, SEEDS, schedule, group=3))
    for run, seed in enumerate(SEEDS):
        own_head = Head(head.weight[run : run + 1], head.bias[run : run + 1])
        alone = tensors(train_one(features, labels, variant, own_head, seed, schedule, run))
        for mine, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(mine[run], expected[0], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_groups_of_any_size_train_the_same_runs(name, draws, head):
    wanted = tensors(train(*draws, VARIANTS[name], head, SEEDS, SCHEDULES[name], group=1))
    for group in (2, 3, None):
        found = tensors(train(*draws, VARIANTS[name], head, SEEDS, SCHEDULES[name], group=group))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


SWEEP = [
    BLA,
    BLA_T,
    BLA_PH,
    replace(BLA_T, temperature=1.0, threshold_factor=0.5),
    L2X_F,
    RELOADED,
    INDICATOR,
    POINTWISE,
]
SWEEP += [replace(BLA_T, threshold_rule="renormalise"), replace(BLA, threshold_rule="renormalise")]


@pytest.mark.parametrize("name", ["none", "bla_t", "l2x_f"])
def test_heads_of_several_classes_per_image_agree_with_a_plain_loop(name, draws, head):
    variant, schedule = VARIANTS[name], SCHEDULES[name]
    labels = torch.rand(N, CLASSES, generator=torch.Generator().manual_seed(2)) < 0.4
    together = tensors(train(draws[0], labels, variant, head, SEEDS, schedule))
    for run, seed in enumerate(SEEDS):
        own_head = Head(head.weight[run : run + 1], head.bias[run : run + 1])
        alone = tensors(train_one(draws[0], labels, variant, own_head, seed, schedule, run))
        torch.testing.assert_close([t[run : run + 1] for t in together], alone, rtol=2e-4, atol=2e-5)


def test_k_cannot_exceed_the_number_of_cells(draws, head):
    with pytest.raises(BlaError, match=rf"10 cells cannot be chosen from {CELLS}; lower k"):
        train(*draws, replace(L2X_F, k=10), head, SEEDS, SCHEDULE)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("variants", [SWEEP, SWEEP[::-1], SWEEP[:2], [BLA_PH, BLA_PH]], ids=len)
def test_a_sweep_gives_the_same_as_each_variant_alone(variants, group, draws, head):
    together = train_sweep(*draws, variants, head, SEEDS, DAMPED, first_epoch=1, group=group)
    for variant, found in zip(variants, together, strict=True):
        alone = tensors(train(*draws, variant, head, SEEDS, DAMPED, first_epoch=1))
        torch.testing.assert_close(tensors(found), alone, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_random_numbers_drawn_together_are_the_same_as_batch_by_batch(name, data, head, monkeypatch):
    wanted = tensors(fit(data, VARIANTS[name], head, SEEDS, SCHEDULE))
    for count in (1, 2):
        monkeypatch.setattr("bla.method.group.DRAWN_AT_ONCE", count)
        found = tensors(fit(data, VARIANTS[name], head, SEEDS, SCHEDULE))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_replayed_graph_gives_the_same_as_single_steps(name, draws, head, monkeypatch):
    device = torch.device("cuda")
    replayed = tensors(train(*draws, VARIANTS[name], head, SEEDS, SCHEDULES[name], device=device))
    monkeypatch.setattr("bla.runtime.cuda_graphs.WARM_UP", 1000)
    stepped = tensors(train(*draws, VARIANTS[name], head, SEEDS, SCHEDULES[name], device=device))
    torch.testing.assert_close(replayed, stepped, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_run_one_starts_one_draw_later_than_run_zero(name, draws, head):
    twice = Head(head.weight[:1].expand(2, -1, -1), head.bias[:1].expand(2, -1))
    both = tensors(train(*draws, VARIANTS[name], twice, [7, 7], SCHEDULES[name]))
    rolled = draws[0].roll(-1, dims=0)
    later = tensors(train(rolled, draws[1], VARIANTS[name], twice, [7, 7], SCHEDULES[name]))
    torch.testing.assert_close([t[1] for t in both], [t[0] for t in later], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[-1][0], both[-1][1], rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_module_starts_with_the_draw_after_those_of_its_head(name, draws, head):
    later = tensors(train(*draws, VARIANTS[name], head, SEEDS, SCHEDULE, first_epoch=2))
    rolled = tensors(train(draws[0].roll(-2, dims=0), draws[1], VARIANTS[name], head, SEEDS, SCHEDULE))
    assert all(torch.equal(mine, its) for mine, its in zip(later, rolled, strict=True))
    now = tensors(train(*draws, VARIANTS[name], head, SEEDS, SCHEDULE))
    assert not torch.allclose(later[-1], now[-1], rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_with_one_epoch_every_run_sees_only_its_own_draw(name, draws, head):
    once = replace(SCHEDULE, epochs=1)
    found = tensors(train(*draws, VARIANTS[name], head, SEEDS, once))
    for run in range(len(SEEDS)):
        alone = tensors(fit((draws[0][run], draws[1]), VARIANTS[name], head, SEEDS, once))
        assert all(torch.equal(mine[run], its[run]) for mine, its in zip(found, alone, strict=True))


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("name", VARIANTS)
def test_equal_draws_give_the_same_as_one_draw(name, count, data, head):
    wanted = tensors(fit(data, VARIANTS[name], head, SEEDS, SCHEDULE))
    found = tensors(train(data[0].expand(count, -1, -1, -1), data[1], VARIANTS[name], head, SEEDS, SCHEDULE))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_the_baseline_trains_the_same_on_pooled_features_and_on_maps(draws, head):
    whole = tensors(train(*draws, NONE, head, SEEDS, SCHEDULE))
    by_hand = draws[0].float().mean(dim=2, keepdim=True)
    assert by_hand.shape == (3, N, 1, CHANNELS)
    torch.testing.assert_close(
        tensors(train(by_hand, draws[1], NONE, head, SEEDS, SCHEDULE)), whole, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_a_map_of_one_cell_trains_in_half_precision(name, draws, head):
    variant = replace(VARIANTS[name], k=1) if name == "l2x_f" else VARIANTS[name]
    found = train(draws[0][:, :, :1], draws[1], variant, head, SEEDS, SCHEDULE)
    result = evaluate(draws[0][0, :, :1], draws[1], variant, found, SEEDS)
    assert result.loss.isfinite().all()


@pytest.mark.parametrize("name", VARIANTS)
def test_equal_seeds_give_equal_bytes_and_inputs_are_not_changed(name, data, head):
    before = [data[0].clone(), head.weight.clone(), head.bias.clone()]
    once, again = (tensors(fit(data, VARIANTS[name], head, SEEDS, SCHEDULE)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, [data[0], head.weight, head.bias], strict=True))
    assert not head.weight.requires_grad


def test_frozen_and_reloaded_heads_equal_the_initial_head(data, head):
    frozen = fit(data, BLA_PH, head, SEEDS, SCHEDULE)
    assert torch.equal(frozen.head.weight, head.weight)
    reloaded, moved = (fit(data, v, head, SEEDS, SCHEDULE) for v in (RELOADED, BLA_T))
    assert torch.equal(reloaded.head.weight, head.weight)
    assert torch.equal(reloaded.module.weight, moved.module.weight)
    assert not torch.equal(moved.head.weight, head.weight)


def test_the_head_frozen_as_in_the_released_code_does_train(data, head):
    released, moved = (tensors(fit(data, v, head, SEEDS, SCHEDULE)) for v in (RELEASED, BLA_T))
    assert all(torch.equal(a, b) for a, b in zip(released, moved, strict=True))


def test_the_printed_indicator_leaves_the_module_untrained(data, head):
    once = fit(
        data,
        INDICATOR,
        head,
        SEEDS,
        Schedule(batch_size=16, epochs=1, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7),
    )
    more = fit(data, INDICATOR, head, SEEDS, SCHEDULE)
    assert torch.equal(once.module.weight, more.module.weight)
    assert not torch.equal(once.head.weight, more.head.weight)


def test_training_learns_and_bla_t_finds_the_cells_that_show_the_class(data, head):
    schedule = Schedule(batch_size=16, epochs=60, learning_rate=0.05, dropout=0.2, adam_epsilon=1e-7)
    base = fit(data, NONE, head, SEEDS, schedule)
    assert evaluate(*data, NONE, base, SEEDS).correct.float().mean() > 0.9
    trained = fit(data, BLA_T, base.head, SEEDS, schedule)
    explained = evaluate(*data, BLA_T, trained, SEEDS).explained
    informative = explained.hard[:, torch.arange(N), data[1] + 2].float().mean()
    assert informative > 2 * explained.hard.float().mean()


def test_a_concept_vector_too_large_for_memory_is_refused_before_allocation(data, head, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    weights = CHANNELS * (CELLS * CHANNELS + 1)
    with pytest.raises(BlaError, match=r"to train 1 at once .* are free on cpu"):
        fit(data, CONCEPT, head, SEEDS, SCHEDULE)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16 * weights))
    fit(data, CONCEPT, head, SEEDS, SCHEDULE)
    with pytest.raises(BlaError, match=r"to train [24] at once"):
        fit(data, CONCEPT, head, SEEDS, SCHEDULE, group=2)


def test_a_non_finite_loss_is_an_error(data, head):
    steep = Head(head.weight * torch.inf, head.bias)
    for variant in (NONE, BLA_T):
        with pytest.raises(BlaError, match=r"epoch 1; lower training\.learning_rate"):
            fit(data, variant, steep, SEEDS, SCHEDULE)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("variant", [NONE, BLA_T, L2X_F])
@pytest.mark.parametrize("in_memory", [None, 32])
def test_features_that_are_not_finite_are_named_and_not_the_learning_rate(value, variant, in_memory, data, head):
    features, schedule = data[0].clone(), replace(SCHEDULE, images_in_memory=in_memory)
    features[3, 2, 1] = features[41, 0, 0] = value
    with pytest.raises(
        BlaError, match=r"^the features of 2 of 70 training images .* numbers 3, 41, .* extract"
    ) as error:
        fit((features, data[1]), variant, head, SEEDS, schedule)
    assert "learning_rate" not in str(error.value)


@pytest.mark.parametrize(
    ("count", "named"), [(1, "numbers 60, counted"), (5, "numbers 60, 61, 62, 63, 64, counted"), (7, "numbers 60, 61, 62, 63, 64 and 2 more, counted")]
)  # fmt: skip
def test_a_message_names_at_most_five_images_of_any_draw(count, named, draws, monkeypatch):
    monkeypatch.setattr("bla.method.finite.EVALUATION_CHUNK", 16)
    features = draws[0].clone()
    refuse_not_finite(features, "training images")
    features[-1, 60 : 60 + count, -1, -1] = torch.nan
    with pytest.raises(BlaError, match=f"of {count} of 70 training images are NaN or infinite: {named} from 0"):
        refuse_not_finite(features, "training images")


def test_in_a_sweep_the_first_variant_with_a_non_finite_loss_is_named(data, head):
    steep = replace(BLA, temperature=1e39)  # infinite in single precision
    with pytest.raises(BlaError, match=r"temperature=1e\+39.* epoch 1; lower training\.learning_rate"):
        train_sweep(data[0][None], data[1], [BLA, steep, BLA_T], head, SEEDS, SCHEDULE)


@pytest.mark.parametrize(("epsilon", "share"), [(1e-7, 1 / 3), (1e-8, 5 / 6), (1.0, 5e-8)])
def test_adams_epsilon_reaches_the_optimiser(epsilon, share):
    # One image with value 1e-7 in its only channel, and an untrained head: each class has probability 1/2, so that the
    # gradient of a weight is g = +-0.5e-7. Adam's first step is learning rate * g / (|g| + epsilon).
    start = Head(torch.zeros(1, 2, 1), torch.zeros(1, 2))
    schedule = Schedule(batch_size=1, epochs=1, learning_rate=0.01, dropout=0, adam_epsilon=epsilon)
    trained = fit((torch.full((1, 4, 1), 1e-7), torch.tensor([1])), NONE, start, [0], schedule)
    wanted = 0.01 * share * torch.tensor([[[-1.0], [1.0]]])
    torch.testing.assert_close(trained.head.weight, wanted, rtol=1e-4, atol=0)
    step = 0.01 * 0.5 / (0.5 + epsilon)  # the bias has gradient +-0.5
    torch.testing.assert_close(trained.head.bias, torch.tensor([[-step, step]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("shape", "runs"), [((5, 4, 49, 96), 27), ((1, 4, 49, 1280), 2), ((1, 4, 400, 2048), 1)])
def test_a_cpu_groups_as_many_runs_as_fit_into_its_cache(shape, runs, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    groups, seeds, schedule = (
        [],
        range(runs + 1),
        Schedule(batch_size=32, epochs=1, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7),
    )
    start = initial_head(seeds, shape[-1], 2)
    train(torch.zeros(shape), torch.arange(4) % 2, BLA, start, seeds, schedule, progress=groups.append)
    assert groups == [runs, 1]
