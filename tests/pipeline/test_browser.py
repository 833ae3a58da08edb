"""The stage `browser` on a small project: its numbers are those of the stages before it."""

import base64
import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

BIRDS = "painted_birds"


def unpacked(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def test_the_browser_shows_all_test_images_with_the_numbers_of_the_other_stages(explained, end_of):
    assert end_of("browser") is None
    page = Path("reports/browser.html").read_text()
    (made,) = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])["collections"]
    methods = {method["name"]: method for method in made["methods"]}
    assert list(methods) == ["bla_t", "lime", "cam", "rise", "random"]
    assert made["files"] == [f"test {number}" for number in range(40)]
    for name, column in (("bla_t", "bla_t"), ("cam", "bl")):
        evaluated = load_file(f"data/evaluation/{BIRDS}/{column}.safetensors")
        predictions = made["predictions"][methods[name]["predictions"]]
        np.testing.assert_allclose(unpacked(predictions["losses"], "<f4"), evaluated["loss"][0], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(unpacked(predictions["right"], "u1"), evaluated["correct"][0])
    rows = unpacked(methods["bla_t"]["kept"], "u1").reshape(40, -1)
    sizes = np.unpackbits(rows, axis=1).sum(axis=1)
    np.testing.assert_array_equal(sizes, load_file(f"data/evaluation/{BIRDS}/bla_t.safetensors")["size"][0])
    maps = load_file(f"data/maps/{BIRDS}.safetensors")
    assert methods["bla_t"]["images"] is None
    for name in ("lime", "cam", "random"):
        np.testing.assert_array_equal(unpacked(methods[name]["images"], "<i4"), np.sort(maps["images"]))
    slow = np.sort(maps["images"][~np.isnan(maps["maps/rise"]).all(axis=(1, 2))])
    np.testing.assert_array_equal(unpacked(methods["rise"]["images"], "<i4"), slow)
    assert [method["control"] for method in made["methods"]] == [False] * 4 + [True]
    # The variant's soft weights, here and from the stage `maps`, where images are in another order.
    every = unpacked(methods["bla_t"]["cells"], "i1").reshape(40, -1)[maps["images"]]
    weights = maps["maps/bla_t"].reshape(len(every), -1)
    np.testing.assert_allclose(every, 127 * weights / weights.max(axis=1, keepdims=True), atol=1.5)
    # Both runs' soft weights: the spread is half their distance.
    first, second = maps["runs/bla_t"]
    spread = unpacked(methods["bla_t"]["spread"], "<f4")[maps["images"]]
    np.testing.assert_allclose(spread, np.abs(first - second).sum(axis=1) / 2, atol=1e-3)
