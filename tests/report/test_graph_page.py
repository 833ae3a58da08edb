"""What the page of SAG's graphs says of verdicts, confidences and images without a sufficient set."""

import json
import re

import numpy as np
import pytest
from chromium import open_page

from bla.experiments.related_methods.structure.graph import Graph
from bla.report.graph_page import GraphOfImage, graph_page

IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)


def of_one_set(confidence, verdict="minimal"):
    return Graph([[1]], [confidence], [], [0], [verdict])


ENOUGH, WEAK = of_one_set(1.0), of_one_set(0.2, "not_sufficient")


def page_of(*images):
    return graph_page("d", [GraphOfImage(i, IMAGE, "a", *image) for i, image in enumerate(images)], (7, 7))


@pytest.mark.parametrize("value", [0.89996, 0.90004])
def test_a_confidence_is_not_rounded_to_the_level(value):
    text = page_of((0.8, of_one_set(value), None))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["images"][0]["confidences"] == [value]


def test_images_without_a_sufficient_set_are_counted_by_reason():
    assert "leave such images out" not in page_of((0.8, ENOUGH, None), (0.8, ENOUGH, None))
    some = page_of((0.8, WEAK, 1.0), (0.8, WEAK, None), (0.8, ENOUGH, None))
    assert "1 of 3 images needs no patch: the black image alone is enough." in some
    assert "1 of 3 images has no set that is enough when it is evaluated again." in some
    many = page_of((0.8, WEAK, 0.95), (0.8, ENOUGH, 1.0), (0.8, WEAK, None), (0.8, WEAK, None))
    assert "2 of 4 images need no patch" in many
    assert "2 of 4 images have no set" in many


@pytest.mark.slow
def test_the_text_of_each_image_follows_the_verdict(tmp_path):
    tiny = of_one_set(5e29, "part_suffices")
    images = [(0.8, of_one_set(0.89996, "not_sufficient"), None), (0.8, ENOUGH, None), (1e-30, tiny, 5e29)]
    images += [(0.8, of_one_set(0.95, "part_suffices"), 0.93), (0.8, of_one_set(0.9, "no_patch_can_go"), None)]
    (tmp_path / "page.html").write_text(page_of(*images), encoding="utf-8")
    found = []
    with open_page(tmp_path / "page.html") as page:
        for number in range(len(images)):
            page.evaluate(f"document.querySelectorAll('#images button')[{number}].click()")
            found.append([page.evaluate(f"get('{name}').textContent") for name in ("what", "confidence")])
    what, confidence = zip(*found, strict=True)
    assert what[0].endswith("No set that was found is enough when it is evaluated again.")
    assert confidence[0].startswith("1 patch keeps just below 90 % of the confidence")
    assert confidence[0].endswith("Not enough.")
    assert what[1] == "Image 1, class a, probability 0.80."
    assert confidence[1].endswith("Enough. No part of it is enough.")
    assert "The black image alone has more confidence than the whole image, so no patch is needed" in what[2]
    assert confidence[2].startswith("1 patch keeps more than 1000 % of the confidence: 0.50 of 0.00.")
    assert "The black image alone keeps 93 % of it, so no patch is needed" in what[3]
    assert confidence[4].endswith("Without any one of its patches it is not; smaller parts were not tried.")
