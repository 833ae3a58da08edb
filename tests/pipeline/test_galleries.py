"""Pictures of test images: as many as `gallery_images` asks for, found by the names of the photographs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pipeline.maps.image_names import drawable, image_captions, image_names, table_of_images

MANIFEST = (
    "split,label,source\ntrain,0,train/a/0.jpg\ntest,0,test/a/x_1.jpg\ntest,1,test/b/$2.jpg\ntest,1,test/b/ไทย.jpg\n"
)


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A dataset `d` of three named test photographs of two classes, in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/images/d"
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text(MANIFEST)
    (folder / "classes.csv").write_text("label,name\n0,a\n1,b\n")
    np.save(folder / "test_labels.npy", np.array([0, 1, 1]))
    return folder


def test_names_are_those_of_the_test_images_in_order(named):
    assert image_names("d") == ["test/a/x_1.jpg", "test/b/$2.jpg", "test/b/ไทย.jpg"]


def test_captions_can_be_drawn(named):
    assert image_captions("d", [2, 0, 1]) == ["b\nimage 2", "a\nx_1.jpg", "b\n\\$2.jpg"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("$1_to_$5", r"\$1 to \$5"),
        (r"$\frac$", r"\$\frac\$"),
        ("中文类别名", "class 0"),
        ("a$b", r"a\$b"),
        ("ไทย$", "class 0"),
    ],
)
def test_a_class_is_no_formula_in_captions(name, shown, named):
    pd.DataFrame({"label": [0, 1], "name": [name, "b"]}).to_csv(named / "classes.csv", index=False)
    assert image_captions("d", [0]) == [f"{shown}\nx_1.jpg"]
    assert drawable(name, "class 0").replace("_", " ") == shown
    figure = Figure()
    text = figure.suptitle(f"{image_captions('d', [0])[0]}\n{drawable(name, 'class 0')}")
    figure.savefig(named / "a.png")
    assert text._preprocess_math(shown) == (name.replace("_", " ") if shown != "class 0" else shown, False)


def test_the_table_follows_the_order_of_the_maps(named):
    table = table_of_images("d", np.array([2, 0]), np.array([0, 1]))
    assert table.to_dict("list") == {
        "row": [0, 1],
        "image": [2, 0],
        "file": ["test/b/ไทย.jpg", "test/a/x_1.jpg"],
        "class": ["b", "a"],
        "explained_class": ["a", "b"],
    }


def test_an_image_of_several_classes_or_none_has_all_their_names(named):
    np.save(named / "test_labels.npy", np.array([[True, True], [False, False], [False, True]]))
    assert table_of_images("d", [0, 1, 2], [0, 0, 0])["class"].tolist() == ["a|b", "", "b"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gallery_images", "pages", "photos"), [(3, ["bla_t.png"], 3), (12, ["bla_t-2.png", "bla_t.png"], 10), (None, [f"bla_t{n}.png" for n in ("-2", "-3", "-4", "")], 10)]
)  # fmt: skip
def test_every_test_image_can_be_drawn(gallery_images, pages, photos, explained, edit_params, end_of, capsys):
    edit_params(explained, {"gallery_images": gallery_images})
    assert end_of("gallery", "painted_birds") is None
    assert sorted(path.name for path in Path("reports/figures/explanations/painted_birds").iterdir()) == pages
    assert end_of("method_gallery", "painted_birds") is None
    table = pd.read_csv("data/maps/painted_birds.images.csv")
    drawn = sorted(path.name for path in Path("reports/figures/photos/painted_birds").iterdir())
    assert len(drawn) == photos
    assert set(drawn) <= {f"{name}.png" for name in table["file"]}
    assert ("raise faithfulness.images" in capsys.readouterr().out) == (gallery_images == 12)
