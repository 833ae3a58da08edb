"""The equations against numbers that the authors' released code computed (bla_reference.npz)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bla.base.specs import L2XF, BoundedLogits, Pointwise
from bla.method.equations import bounded_logits, hard_explanation, hard_weights, logits_of, soft_explanation

GOLDEN = np.load(Path(__file__).with_name("bla_reference.npz"), allow_pickle=False)
CASES = ["a", "b", "allneg"]
BLA = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0)
BLA_T = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98)
L2X_F = L2XF(explanation="l2x_f", head="trained", temperature=0.1, k=8)
POINTWISE = Pointwise(explanation="pointwise", head="trained", temperature=0.1)


def golden(case: str, what: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[f"{case}__{what}"]).reshape(5, 49)


def golden_scores(case: str) -> torch.Tensor:
    """g = u.f + b with u = -w and bias -b: the authors' score is s = -g."""
    features = torch.from_numpy(GOLDEN[f"{case}__features"]).reshape(5, 49, 24)
    weight = torch.from_numpy(GOLDEN[f"{case}__ref_conv_w"]).reshape(24)
    return -(features @ weight + float(GOLDEN[f"{case}__ref_conv_b"]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("variant", "name"), [(BLA, "bla"), (POINTWISE, "bla"), (L2X_F, "l2x_f")])
def test_logits_agree_with_the_authors_code(case, variant, name):
    wanted = golden(case, f"{name}__logits")
    torch.testing.assert_close(
        logits_of(variant, golden_scores(case)), wanted, atol=1e-6 * float(wanted.abs().max()), rtol=0
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("variant", "name"), [(BLA, "bla"), (BLA_T, "bla_t"), (POINTWISE, "sigmoid")])
def test_soft_weights_agree_with_the_authors_code(case, variant, name):
    logits = bounded_logits(golden_scores(case))
    torch.testing.assert_close(
        soft_explanation(variant, logits, None), golden(case, f"{name}__soft"), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("variant", "name"), [(BLA, "bla"), (L2X_F, "l2x_f")])
def test_hard_explanations_agree_with_the_authors_code(case, variant, name):
    hard = hard_explanation(variant, golden(case, f"{name}__logits"))
    assert torch.equal(hard, golden(case, f"{name}__hard") > 0)
    torch.testing.assert_close(hard_weights(variant, hard), golden(case, f"{name}__hard"), atol=1e-7, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_pointwise_explanations_agree_with_the_authors_code(case):
    hard = hard_explanation(POINTWISE, golden(case, "bla__logits"))
    assert torch.equal(hard, golden(case, "sigmoid__hard") > 0)
    assert torch.equal(hard_weights(POINTWISE, hard), golden(case, "sigmoid__hard"))
    assert hard.any() == (case != "allneg")


@pytest.mark.parametrize("case", CASES)
def test_hard_explanations_from_our_scores_agree_too(case):
    assert torch.equal(hard_explanation(BLA, bounded_logits(golden_scores(case))), golden(case, "bla__hard") > 0)


@pytest.mark.parametrize("case", CASES)
def test_l2x_samples_have_the_same_mean_and_spread_as_the_authors_code(case):
    draws = 4000
    uniform = torch.rand(draws, 5, 8, 49, generator=torch.Generator().manual_seed(0))
    soft = soft_explanation(L2X_F, golden(case, "l2x_f__logits").expand(draws, 5, 49), uniform)
    spread = golden(case, "l2x_f__soft_sd400")
    combined = spread * (1 / 400 + 1 / draws) ** 0.5
    assert ((soft.mean(dim=0) - golden(case, "l2x_f__soft_mean400")).abs() <= 4 * combined + 1e-7).all()
    ratio = soft.std(dim=0) / spread  # heavy-tailed in a single cell, so judged over the 245 cells
    assert abs(float(ratio.mean()) - 1) < 0.03
