"""Maps of explanation modules."""

import numpy as np
import pytest
import torch


@pytest.mark.parametrize("variant", ["l2x_f", "bla", "bla_t"])
def test_attention_is_the_softmax_of_the_modules_logits(variant, method, classifier, images, targets, seeds):
    explainer = method(f"attention {variant}", classifier.run(0))
    found = explainer.explain(images, targets, seeds)
    with torch.no_grad():
        features = classifier.extractor.feature_map(images).double().numpy()
    scores = np.einsum("bchw,c->bhw", features, explainer.module.weight[0].double().numpy()) - 40.4
    assert (scores > 0).any()
    assert (scores < 0).any()
    logits = scores if variant == "l2x_f" else np.minimum(scores, 0)
    odds = np.exp(0.1 * logits)
    np.testing.assert_allclose(found, odds / odds.sum(axis=(1, 2), keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(found.sum(dim=(1, 2)), 1, rtol=1e-9)
