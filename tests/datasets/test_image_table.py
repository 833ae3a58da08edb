"""Images with a table of labels: several classes per image, masks of classes and parts, and every mistake in the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bla.base.errors import BlaError
from bla.base.specs import ImageTable
from bla.datasets import class_of_each, equal_shares, label_array, spread_over_classes
from bla.datasets.image_table import find

ROWS = [
    ("a/1.png", "train", "cat|sofa"),
    ("a/2.png", "train", "dog"),
    ("3.jpg", "test", ""),
    ("4.png", "test", "dog| cat"),
]


@pytest.fixture
def write(tmp_path):
    """`write(rows)` writes these rows to images.csv, writes the images that they name, and returns the folder."""

    def make(rows=ROWS, header="file,split,labels", images=None):
        (tmp_path / "images.csv").write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
        for name in images if images is not None else [row[0] for row in rows]:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(path)
        return tmp_path

    return make


def spec(labels="several", masks=None):
    return ImageTable(kind="image_table", path="photos", labels=labels, image_size=32, masks=masks)


def save_mask(folder, name, file):
    path = folder / "masks" / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 12), 255, np.uint8)).save(path)


def test_images_have_all_their_classes_and_the_order_of_the_table(write):
    listing = find(spec(), write())
    assert listing.classes == ["cat", "dog", "sofa"]
    assert [(file.name, file.label) for file in listing.splits["train"]] == [("a/1.png", (0, 2)), ("a/2.png", (1,))]
    assert [(file.name, file.label) for file in listing.splits["test"]] == [("3.jpg", ()), ("4.png", (0, 1))]
    assert listing.turned


def test_images_of_one_class_have_a_number_as_label(write):
    rows = [("1.png", "train", "cat"), ("2.png", "train", "dog"), ("3.png", "test", "cat")]
    listing = find(spec("one"), write(rows))
    assert [file.label for split in ("train", "test") for file in listing.splits[split]] == [0, 1, 0]


def test_masks_are_read_by_name_and_may_be_missing(write):
    folder = write()
    save_mask(folder, "cat", "a/1.png")
    save_mask(folder, "ear", "a/1.png")
    save_mask(folder, "ear", "3.png")  # the mask of 3.jpg
    listing = find(spec(masks="binary"), folder)
    assert listing.mask_names == ("cat", "ear")
    assert listing.splits["train"][0].masks == ("masks/cat/a/1.png", "masks/ear/a/1.png")
    assert listing.splits["train"][1].masks == (None, None)
    assert listing.splits["test"][0].masks == (None, "masks/ear/3.png")


@pytest.mark.parametrize("other", ["a/1.jpg", "a/1.PNG"])
def test_a_mask_of_two_images_with_one_name_and_two_endings_is_refused(other, write):
    folder = write([*ROWS, (other, "test", "dog")])
    find(spec(masks=None), folder)
    save_mask(folder, "ear", "3.png")
    find(spec(masks="binary"), folder)  # none of the two has a mask
    save_mask(folder, "ear", "a/1.png")
    with pytest.raises(BlaError, match=r"masks/ear/a/1\.png would be the mask of two images"):
        find(spec(masks="binary"), folder)
    with pytest.raises(
        BlaError, match=f"of two images, a/1.png and {other}, since a mask has the name of its image without"
    ):
        find(spec(masks="binary"), folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"header": "file,split,label"}, "images.csv: no column labels; it needs file, split, labels"),
        ({"header": "name,split,label"}, "no column file and no column labels"),
        ({"rows": [*ROWS, ROWS[0]]}, "images.csv: a/1.png (row 6) is listed twice"),
        ({"rows": [*ROWS, ("5.png", "valid", "cat")]}, "5.png (row 6) must have the split train or test"),
        ({"rows": [*ROWS, ("../5.png", "train", "cat")], "images": []}, "../5.png (row 6) must lie in the folder of the table"),
        ({"rows": [*ROWS, ("/5.png", "train", "cat")], "images": []}, "/5.png (row 6) must lie in the folder of the table"),
        ({"rows": [*ROWS, ("5.txt", "train", "cat")], "images": []}, "5.txt (row 6) must be a .jpg"),
        ({"images": ["a/1.png", "a/2.png", "4.png"]}, "3.jpg (row 4) is not there"),
        ({"rows": [*ROWS[:3], ("4.png", "test", "bird")]}, "no training image shows bird; add one, or remove it"),
        ({"rows": [("1.png", "train", "cat"), ("2.png", "test", "cat")]}, "1 classes; a classifier needs at least two"),
        ({"rows": ROWS[:2]}, "no image has the split test"),
        ({"rows": ROWS[:3]}, "no test image has a label; explanations are of classes, so label one"),
        ({"rows": [*ROWS[:3], ("4.png", "test", " | ")]}, "no test image has a label"),
        ({"rows": [*ROWS, ("./a//1.png", "test", "cat")]}, "./a//1.png (row 6) is listed twice"),
        ({"rows": [("",), *ROWS, ("",), ("5.png", "valid", "")], "images": []}, "5.png (row 8) must have the split"),
        ({"rows": [(*row, "more") for row in ROWS]}, "more values than the header has columns; separate labels by |"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_in_the_table_is_named_with_its_row(change, message, write):
    folder = write(**change)
    with pytest.raises(BlaError) as error:
        find(spec(), folder)
    assert str(folder / "images.csv") in str(error.value)
    assert message in str(error.value)


def test_blank_lines_change_nothing(write):
    expected = find(spec(), write())
    blank = [("",), ROWS[0], ("",), *ROWS[1:], ("",)]
    assert find(spec(), write(blank, images=[])) == expected


@pytest.mark.parametrize("labels", ["", "cat|dog"])
def test_an_image_without_exactly_one_label_is_refused_if_each_needs_one(labels, write):
    rows = [("1.png", "train", "cat"), ("2.png", "train", "dog"), ("3.png", "test", labels)]
    with pytest.raises(BlaError, match=r"3\.png \(row 4\) must have one label; or set labels to several"):
        find(spec("one"), write(rows))


def test_a_table_that_is_missing_or_unreadable_is_named(tmp_path):
    with pytest.raises(BlaError, match=r"images\.csv: no such file; it lists the images, with the columns file, split"):
        find(spec(), tmp_path)
    (tmp_path / "images.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BlaError, match=r"images\.csv: not a readable table"):
        find(spec(), tmp_path)
    (tmp_path / "images.csv").unlink()
    (tmp_path / "images.csv").mkdir()
    with pytest.raises(BlaError, match=r"images\.csv: not a readable table"):
        find(spec(), tmp_path)
    (tmp_path / "images.csv").rmdir()
    (tmp_path / "images.csv").write_text("")
    with pytest.raises(BlaError, match=r"images\.csv: not a readable table"):
        find(spec(), tmp_path)


def test_required_masks_must_exist(write):
    folder = write()
    with pytest.raises(
        BlaError, match=r"no folder of masks; masks lie in masks/<name>/<file>\.png, or set masks to null"
    ):
        find(spec(masks="binary"), folder)
    save_mask(folder, "cat", "other.png")
    with pytest.raises(BlaError, match="no mask belongs to an image"):
        find(spec(masks="binary"), folder)


def test_labels_become_numbers_or_rows_of_all_classes():
    assert label_array([2, 0], 3).tolist() == [2, 0]
    several = label_array([(0, 2), (), (1,)], 3)
    assert several.dtype == np.bool_
    assert several.tolist() == [[True, False, True], [False, False, False], [False, True, False]]


LABELS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], bool)


def test_the_class_of_an_image_is_the_rarest_of_its_classes():
    # Class 0 has 4 images, classes 1 and 2 have 2 each: in a tie the first class is chosen.
    assert class_of_each(LABELS).tolist() == [1, 0, -1, 2, 1]
    assert class_of_each(np.array([2, 0])).tolist() == [2, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_a_choice_spreads_over_the_classes_and_omits_images_without_a_class(count):
    chosen = spread_over_classes(LABELS, count)
    assert 2 not in chosen
    assert len(chosen) == min(count, 4)
    assert len(set(chosen.tolist())) == len(chosen)
    if count >= 3:
        assert len(set(class_of_each(LABELS)[chosen].tolist())) == 3


@pytest.mark.parametrize(
    ("sizes", "count", "shares"),
    [([990, 10], 16, [8, 8]), ([5, 1, 300], 16, [5, 1, 10]), ([1000, 3], 16, [13, 3]), ([3] * 10, 4, None), ([2, 2], 9, [2, 2])],
)  # fmt: skip
def test_every_class_gets_its_share_before_a_large_one_gets_more(sizes, count, shares):
    found = equal_shares(np.array(sizes), count)
    assert shares is None or found.tolist() == shares
    labels = np.repeat(np.arange(len(sizes)), sizes)
    chosen = spread_over_classes(labels, count)
    np.testing.assert_array_equal(np.bincount(labels[chosen], minlength=len(sizes)), found)
    assert len(set(chosen.tolist())) == len(chosen)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 80))
def test_shares_differ_by_more_than_one_only_where_a_class_is_used_up(sizes, count):
    sizes = np.array(sizes)
    shares = equal_shares(sizes, count)
    assert shares.sum() == min(count, sizes.sum())
    assert (shares <= sizes).all()
    left = shares[shares < sizes]
    assert not len(left) or shares.max() - left.min() <= 1
