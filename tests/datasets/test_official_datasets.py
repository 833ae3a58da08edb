"""The public datasets, on small archives in the official layouts, served on loopback."""

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from bla.base.download import Source
from bla.base.errors import BlaError
from bla.base.specs import Coco, ImageNet, Mnist, OxfordPet, PascalVoc, Photographs
from bla.datasets import (
    ImageFile,
    caltech_birds,
    cats_vs_dogs,
    coco_2014,
    imagenet,
    mnist,
    oxford_pet,
    split_by_name,
    stanford_dogs,
    voc_2007,
)
from bla.datasets.image_files import read_images, resize_image

DATA = Path(__file__).parents[2] / "shared" / "data"


def picture(kind="JPEG", mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (40, 30)).save(file, kind)
    return file.getvalue()


def matlab(**values):
    file = io.BytesIO()
    savemat(file, values)
    return file.getvalue()


def pascal(*boxes):
    edges = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>dog</name><bndbox>{''.join(f'<{e}>{v}</{e}>' for e, v in zip(edges, box, strict=True))}</bndbox>"
        "</object>"
        for box in boxes
    )
    size = "<size><width>500</width><height>333</height><depth>3</depth></size>"
    return f"<annotation><folder>02085620</folder>{size}{objects}</annotation>\n".encode()


def pack(path, members):
    """An archive of the type given by the extension of `path`, with the members in this order."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """`serve(module, {archive: members or bytes})` makes the module download these archives; returns the requests."""
    site, requests = tmp_path / "site", []
    site.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def start(module, archives):
        sources = []
        for source in module.SOURCES:
            path, content = site / source.name, archives[source.name]
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                pack(path, content)
            checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            url = f"http://127.0.0.1:{server.server_port}/{source.name}"
            sources.append(Source(source.name, (url,), path.stat().st_size, checksum))
        monkeypatch.setattr(module, "SOURCES", tuple(sources))
        return requests

    yield start
    server.shutdown()
    server.server_close()
    thread.join()


def cats_vs_dogs_archives():
    whole = picture()
    members = {f"PetImages/{animal}/{number}.jpg": whole for animal in ("Cat", "Dog") for number in range(10)}
    members |= {"PetImages/Cat/666.jpg": b"", "PetImages/Dog/11702.jpg": whole.replace(b"JFIF", b"Exif")}
    members |= {"PetImages/Cat/10.jpg": b"." * 508 + b"JFIF", "PetImages/Cat/11.jpg": b"." * 509 + b"JFIF"}
    strays = ("PetImages/Cat/Thumbs.db", "PetImages/Dog/Thumbs.db", "readme[1].txt", "MSR-LA - 3467.docx")
    return {"kagglecatsanddogs_5340.zip": members | dict.fromkeys(strays, b"JFIF")}


DOGS = {
    "n02085620-Chihuahua/n02085620_5927": [(108, 87, 405, 303)],
    "n02085620-Chihuahua/n02085620_10621": [(1, 2, 30, 40), (50, 60, 70, 80)],
    "n02089078-black-and-tan_coonhound/n02089078_1": [(0, 0, 500, 333)],
    "n02085620-Chihuahua/n02085620_7": [(5, 6, 7, 8)],
    "n02089078-black-and-tan_coonhound/n02089078_2": [(9, 10, 11, 12)],
}


def stanford_dogs_archives():
    cells = np.array([[f"{name}.jpg"] for name in DOGS], object)
    return {
        "images.tar": {f"Images/{name}.jpg": picture() for name in [*DOGS, "n02085620-Chihuahua/n02085620_99"]},
        "lists.tar": {
            "file_list.mat": matlab(file_list=cells),
            "test_list.mat": matlab(file_list=cells[3:], labels=np.array([[1], [2]])),
            "train_list.mat": matlab(file_list=cells[:3], labels=np.array([[1], [1], [2]])),
        },
        "annotation.tar": {f"Annotation/{name}": pascal(*boxes) for name, boxes in DOGS.items()},
    }


BIRDS = [
    "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18",
    "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34",
    "002.Laysan_Albatross/Laysan_Albatross_0002_1027",
]


def caltech_birds_archives():
    top = "CUB_200_2011"
    lists = {
        "images": "".join(f"{i} {name}.jpg\n" for i, name in enumerate(BIRDS, 1)),
        "image_class_labels": "1 1\n2 1\n3 2\n",
        "train_test_split": "1 0\n2 1\n3 1\n",
        "bounding_boxes": "1 60.0 27.0 325.0 304.0\n2 139.0 30.0 153.0 264.0\n3 0.0 14.5 148.0 112.0\n",
        "classes": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n",
    }
    members = {f"{top}/{name}.txt": text.encode() for name, text in lists.items()}
    members |= {f"{top}/images/{name}.jpg": picture() for name in BIRDS}
    strays = ("attributes.txt", f"{top}/images/001.Black_footed_Albatross/._stray.jpg", f"{top}/images/stray.jpg")
    masks = {f"segmentations/{name}.png": picture("PNG", "L") for name in BIRDS}
    return {"CUB_200_2011.tgz": members | dict.fromkeys(strays, b"stray"), "segmentations.tgz": masks}


PETS = {
    "train": ["Abyssinian_100 1 1 1", "american_bulldog_2 2 2 1", "american_pit_bull_terrier_33 3 2 2"],
    "test": ["american_bulldog_7 2 2 1", "Abyssinian_201 1 1 1"],
}


def oxford_pet_archives():
    names = [line.split()[0] for lines in PETS.values() for line in lines]
    members = {f"annotations/{oxford_pet.LISTS[split]}": "\n".join(lines).encode() for split, lines in PETS.items()}
    members |= {f"annotations/trimaps/{name}.png": picture("PNG", "L") for name in names}
    members |= {f"annotations/trimaps/._{name}.png": b"macOS" for name in names}
    members |= {"annotations/README": b"", "annotations/list.txt": b"#Image CLASS-ID SPECIES BREED ID\n"}
    members |= {"annotations/xmls/Abyssinian_100.xml": pascal((333, 72, 425, 158))}
    strays = ("images/Abyssinian_101.mat", "images/Egyptian_Mau_14.jpg")
    images = {f"images/{name}.jpg": picture() for name in names} | dict.fromkeys(strays, b"stray")
    return {"images.tar.gz": images, "annotations.tar.gz": members}


VOC = {
    "VOCtrainval_06-Nov-2007": {"000005": ["chair", "chair", "person"], "000007": ["car"], "000009": []},
    "VOCtest_06-Nov-2007": {"000001": ["dog", "person"], "000002": ["train"]},
}


def voc_annotation(names):
    boxes = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name><difficult>1</difficult>{boxes}</object>" for name in names)
    return f"<annotation><folder>VOC2007</folder>{objects}</annotation>".encode()


def voc_mask():
    """A palette PNG: a person (15) with a void border (255)."""
    image, file = Image.new("P", (40, 30)), io.BytesIO()
    image.putpalette([0, 0, 0] * 256)
    image.paste(255, (4, 4, 12, 12))
    image.paste(15, (5, 5, 11, 11))
    image.save(file, "PNG")
    return file.getvalue()


def voc_2007_archives():
    archives = {}
    for (archive, images), name in zip(VOC.items(), ("trainval", "test"), strict=True):
        top = "VOCdevkit/VOC2007"
        members = {f"{top}/ImageSets/Main/{name}.txt": "\n".join(images).encode(), f"{top}/ImageSets/Main/car_{name}.txt": b""}  # fmt: skip
        for image, names in images.items():
            members |= {f"{top}/JPEGImages/{image}.jpg": picture(), f"{top}/Annotations/{image}.xml": voc_annotation(names)}  # fmt: skip
        members[f"{top}/SegmentationClass/{next(iter(images))}.png"] = voc_mask()
        archives[f"{archive}.tar"] = members
    return archives


def coco_2014_archives():
    categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    archives, inside = {}, {}
    for part, numbers in (("train2014", (30, 9, 25)), ("val2014", (42, 73))):
        names = {number: f"COCO_{part}_{number:012}.jpg" for number in numbers}
        archives[f"{part}.zip"] = {f"{part}/{name}": picture() for name in names.values()}
        seen = {30: [90, 1, 90], 9: [18], 42: [1]}  # 25 and 73 have no annotation
        square = {"bbox": [1, 2, 10, 20], "segmentation": [[1, 2, 10, 2, 10, 21, 1, 21]]}
        objects = [{"image_id": n, "category_id": c, **square} for n in numbers for c in seen.get(n, [])]
        listed = [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in names.items()]
        content = {"images": listed, "annotations": objects, "categories": categories}
        inside[f"annotations/instances_{part}.json"] = json.dumps(content).encode()
    return archives | {"annotations_trainval2014.zip": inside | {"annotations/captions_val2014.json": b"{}"}}


DATASETS = {
    "voc_2007": (voc_2007, PascalVoc(kind="voc_2007", image_size=224), voc_2007_archives, (3, 2)),
    "coco_2014": (coco_2014, Coco(kind="coco_2014", image_size=224), coco_2014_archives, (3, 2)),
    "cats_vs_dogs": (cats_vs_dogs, Photographs(kind="cats_vs_dogs", image_size=224), cats_vs_dogs_archives, (16, 5)),
    "stanford_dogs": (stanford_dogs, Photographs(kind="stanford_dogs", image_size=224), stanford_dogs_archives, (3, 2)),
    "caltech_birds": (caltech_birds, Photographs(kind="caltech_birds", image_size=224), caltech_birds_archives, (2, 1)),
    "oxford_pet": (
        oxford_pet,
        OxfordPet(kind="oxford_pet", classes="species", image_size=224),
        oxford_pet_archives,
        (3, 2),
    ),
}


@pytest.fixture
def finder(serve, tmp_path, monkeypatch):
    """`finder(kind)`: `find` of the dataset on its small archives, the download folder, and the requests so far."""

    def start(kind, spec=None):
        module, own, archives, (train, test) = DATASETS[kind]
        requests, folder = serve(module, archives()), tmp_path / "raw" / kind
        monkeypatch.setattr(module, "COUNTS", {"train": train, "test": test})
        return partial(module.find, spec or own, folder), folder, requests

    return start


@pytest.mark.parametrize("module", [cats_vs_dogs, coco_2014, stanford_dogs, caltech_birds, oxford_pet, mnist, voc_2007])
def test_sources_use_https_and_pinned_hashes(module):
    assert len({source.name for source in module.SOURCES}) == len(module.SOURCES)
    for source in module.SOURCES:
        assert source.size
        assert source.urls
        assert all(re.fullmatch(r"https://[\w.-]+/\S+", url) and url.endswith(source.name) for url in source.urls)
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", source.checksum)


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_is_downloaded_once(kind, finder):
    find, folder, requests = finder(kind)
    listing = find()
    assert sorted(requests) == sorted(f"/{source.name}" for source in DATASETS[kind][0].SOURCES)
    assert find() == listing
    assert len(requests) == len(DATASETS[kind][0].SOURCES)
    assert listing.folder == folder
    files = [file for split in ("train", "test") for file in listing.splits[split]]
    assert len({file.name for file in files}) == len(files)
    assert all((folder / name).is_file() for file in files for name in (file.name, *file.masks) if name)


@pytest.mark.parametrize("kind", DATASETS)
def test_an_unexpected_number_of_images_is_refused(kind, finder, monkeypatch):
    find, folder, _ = finder(kind)
    train, _ = DATASETS[kind][3]
    monkeypatch.setitem(DATASETS[kind][0].COUNTS, "train", 18_609)
    with pytest.raises(BlaError) as error:
        find()
    unpacked = str(error.value).partition(": ")[0]
    assert re.search(rf": {train} train images .* 18,609; delete this folder", str(error.value))
    assert Path(unpacked).parent == folder
    assert Path(unpacked).is_dir()


@pytest.mark.parametrize("kind", ["stanford_dogs", "caltech_birds", "oxford_pet"])
def test_a_listed_image_that_is_missing_is_named(kind, finder):
    find, folder, _ = finder(kind)
    name = find().splits["test"][0].name
    (folder / name).unlink()
    with pytest.raises(BlaError) as error:
        find()
    assert str(error.value).startswith(f"{folder}: 1 files")
    assert f"{name}; delete {folder / name.split('/')[0]} and run again" in str(error.value)
    shutil.rmtree(folder / name.split("/")[0])  # as the message says
    find()


@pytest.mark.parametrize("kind", ["caltech_birds", "oxford_pet"])
def test_a_mask_that_is_missing_is_named(kind, finder):
    find, folder, _ = finder(kind)
    (mask,) = find().splits["train"][1].masks
    (folder / mask).unlink()
    with pytest.raises(BlaError, match=re.escape(f"{mask}; delete {folder}")):
        find()


def test_cats_vs_dogs_keeps_files_with_jfif_in_their_first_512_bytes(finder, capsys):
    find, _, _ = finder("cats_vs_dogs")
    listing = find()
    kept = ["Cat/0.jpg", "Cat/1.jpg", "Cat/10.jpg", *(f"Cat/{n}.jpg" for n in range(2, 10))]
    kept += [f"Dog/{n}.jpg" for n in range(10)]
    expected = {"train": [], "test": []}
    for name, split in zip(kept, split_by_name(kept, 0.2), strict=True):
        path = f"kagglecatsanddogs_5340/PetImages/{name}"
        expected[split].append(ImageFile(path, int(name.startswith("Dog"))))
    assert listing.classes == ["cat", "dog"]
    assert listing.splits == expected
    assert listing.masks is None
    assert "cats_vs_dogs: left out 3 of 24 files" in capsys.readouterr().out


def test_the_split_of_cats_vs_dogs_has_the_papers_sizes():
    splits = split_by_name([str(number) for number in range(23_262)], cats_vs_dogs.TEST_SHARE)
    assert {split: splits.count(split) for split in ("train", "test")} == cats_vs_dogs.COUNTS


def test_stanford_dogs_follows_the_lists_and_has_the_box_of_every_dog(finder):
    find, _, _ = finder("stanford_dogs")
    listing = find()
    assert listing.classes == ["Chihuahua", "black-and-tan_coonhound"]
    files = [
        ImageFile(f"images/Images/{name}.jpg", int("coonhound" in name), boxes=tuple(boxes))
        for name, boxes in DOGS.items()
    ]
    assert listing.splits == {"train": files[:3], "test": files[3:]}
    assert listing.masks is None


def test_caltech_birds_follows_the_lists_and_has_masks_and_boxes(finder):
    find, _, _ = finder("caltech_birds")
    listing = find()
    assert listing.classes == ["Black_footed_Albatross", "Laysan_Albatross"]
    assert listing.masks == "binary"
    boxes = [(60, 27, 385, 331), (139, 30, 292, 294), (0, 14.5, 148, 126.5)]
    files = [
        ImageFile(
            f"CUB_200_2011/CUB_200_2011/images/{name}.jpg", label, (f"segmentations/segmentations/{name}.png",), (box,)
        )
        for name, label, box in zip(BIRDS, [0, 0, 1], boxes, strict=True)
    ]
    assert listing.splits == {"train": files[1:], "test": files[:1]}


@pytest.mark.parametrize(
    ("classes", "names", "train", "test"),
    [
        ("species", ["cat", "dog"], [0, 1, 1], [1, 0]),
        ("breeds", ["Abyssinian", "american_bulldog", "american_pit_bull_terrier"], [0, 1, 2], [1, 0]),
    ],
)
def test_oxford_pet_is_labelled_by_species_or_breed(finder, classes, names, train, test):
    find, _, _ = finder("oxford_pet", OxfordPet(kind="oxford_pet", classes=classes, image_size=224))
    listing = find()
    assert listing.classes == names
    assert listing.masks == "trimap"
    for split, labels in (("train", train), ("test", test)):
        own = [line.split()[0] for line in PETS[split]]
        assert listing.splits[split] == [
            ImageFile(
                f"images/images/{name}.jpg",
                label,
                (f"annotations/annotations/trimaps/{name}.png",),
                ((333, 72, 425, 158),) if name == "Abyssinian_100" else (),
            )
            for name, label in zip(own, labels, strict=True)
        ]


def test_voc_images_have_all_their_classes_once_and_the_union_of_their_objects(finder):
    find, _, _ = finder("voc_2007")
    listing = find()
    assert len(listing.classes) == 20
    assert [file.label for file in listing.splits["train"]] == [(8, 14), (6,), ()]  # difficult objects count
    assert [file.label for file in listing.splits["test"]] == [(11, 14), (18,)]
    first, second, _ = listing.splits["train"]
    place = "VOCtrainval_06-Nov-2007/VOCdevkit/VOC2007"
    assert first.masks == (f"{place}/SegmentationClass/000005.png",)
    assert second.masks == (None,)
    assert first.boxes == ((1, 2, 30, 20),) * 3
    (part,) = read_images(listing, "train", 32, "bilinear")
    assert part.labels.dtype == bool
    assert part.labels.sum(axis=1).tolist() == [2, 1, 0]
    assert part.masks[0].mean() == pytest.approx(36 / 1200, abs=0.01)  # the void border is no object
    assert not part.masks[1:].any()


def test_a_voc_annotation_of_an_unknown_class_is_named(finder):
    find, folder, _ = finder("voc_2007")
    find()
    path = folder / "VOCtest_06-Nov-2007/VOCdevkit/VOC2007/Annotations/000002.xml"
    path.write_bytes(voc_annotation(["unicorn"]))
    with pytest.raises(BlaError, match=re.escape(f"{path}: 'unicorn' is no class of VOC; delete")):
        find()


def test_coco_images_without_annotations_have_no_class(finder):
    find, _, _ = finder("coco_2014")
    listing = find()
    assert listing.classes == ["person", "dog", "toothbrush"]  # by their ids, 1, 18 and 90
    found = {file.name: file.label for split in ("train", "test") for file in listing.splits[split]}
    assert found == {
        "train2014/train2014/COCO_train2014_000000000009.jpg": (1,),
        "train2014/train2014/COCO_train2014_000000000025.jpg": (),
        "train2014/train2014/COCO_train2014_000000000030.jpg": (0, 2),
        "val2014/val2014/COCO_val2014_000000000042.jpg": (0,),
        "val2014/val2014/COCO_val2014_000000000073.jpg": (),
    }
    assert listing.splits["test"][0].boxes == ((1, 2, 11, 22),)
    (part,) = read_images(listing, "test", (30, 40), "bilinear")
    assert part.labels.tolist() == [[True, False, False], [False, False, False]]
    expected = np.zeros((30, 40), bool)
    expected[2:22, 1:11] = True  # the polygon's pixels, those of its outline included
    assert part.masks is not None
    np.testing.assert_array_equal(part.masks[:, 0], [expected, np.zeros((30, 40), bool)])


@pytest.mark.parametrize(
    ("outlines", "expected"),
    [
        ([{"size": [2, 3], "counts": [1, 2, 3]}], [[0, 1, 0], [1, 0, 0]]),  # column by column: 0 1 | 1 0 | 0 0
        ([{"size": [2, 3], "counts": [0, 1, 5]}, [[2, 1, 2, 1, 2, 1]]], [[1, 0, 0], [0, 0, 1]]),  # a crowd and a point
        ([[[0, 0, 2, 0, 0, 0], [0, 1, 0, 1]]], [[1, 1, 1], [1, 0, 0]]),  # an object of two polygons
    ],
)
def test_a_coco_mask_is_the_union_of_the_outlines(tmp_path, outlines, expected):
    name = coco_2014._mask(tmp_path, "masks/val2014/1.png", {"width": 3, "height": 2}, outlines)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / name)) // 255, expected)
    assert coco_2014._mask(tmp_path, name, {}, []) == name  # drawn once


@pytest.mark.parametrize("outlines", [[], [{"size": [2, 3], "counts": [6]}], [[]]])
def test_coco_objects_without_a_pixel_have_no_mask(tmp_path, outlines):
    assert coco_2014._mask(tmp_path, "1.png", {"width": 3, "height": 2}, outlines) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "outline", [{"size": [2, 3], "counts": [7]}, {"size": [3, 3], "counts": [9]}, {"size": [30, 40]}, [["x"]], None]
)
def test_coco_annotations_with_a_damaged_outline_are_refused(finder, outline):
    find, folder, _ = finder("coco_2014")
    find()
    (path,) = folder.rglob("instances_val2014.json")
    data = json.loads(path.read_text())
    data["annotations"][0]["segmentation"] = outline
    path.write_text(json.dumps(data))
    for mask in folder.glob("masks/val2014/*"):
        mask.unlink()
    with pytest.raises(BlaError, match=r"instances_val2014.json: not readable annotations .*; delete .* and run again"):
        find()
    assert not list(folder.glob("masks/val2014/*"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"categories": [], "images": [{}], "annotations": []}'])
def test_coco_annotations_that_cannot_be_read_are_named(content, finder):
    find, folder, _ = finder("coco_2014")
    find()
    path = folder / "annotations_trainval2014/annotations/instances_train2014.json"
    path.write_bytes(content)
    with pytest.raises(BlaError, match=re.escape(f"{path}: not readable annotations")):
        find()


LAUGHS = b"""<!DOCTYPE a [<!ENTITY a "1"><!ENTITY b "&a;&a;&a;&a;">]>
<annotation><object><bndbox><xmin>&b;</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>"""
EXTERNAL = b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no element found"),
        (pascal((1, 2, 3, 4))[:-9], "unclosed token"),
        (pascal((1, 2, 3, "wide")), "could not convert string to float: 'wide'"),
        (pascal((1, 2, 3, 4)).replace(b"<xmax>3</xmax>", b""), "could not convert string to float: ''"),
        (LAUGHS, "it has a document type"),
        (EXTERNAL, "it has a document type"),
        (LAUGHS.decode().encode("utf-16"), "it has a document type"),
        (pascal((1, 2, 3, "&b;")), "undefined entity"),
        (None, "No such file"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_named(content, reason, tmp_path):
    path = tmp_path / "n02085620_5927"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BlaError) as error:
        stanford_dogs.object_boxes(path)
    assert str(error.value).startswith(f"{path}: not a readable annotation")
    assert reason in str(error.value)
    assert "delete the folder" in str(error.value)


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def digits(serve, monkeypatch):
    """MNIST with ten training and five test images, whose grey level is their index; the labels; the requests."""
    labels = {"train": np.array([3, 8, 1, 3, 0, 8, 8, 9, 3, 5]), "t10k": np.array([8, 1, 3, 3, 2])}
    contents = {}
    for split, own in labels.items():
        grey = np.arange(len(own))[:, None, None] + np.zeros((1, 28, 28))
        contents |= {f"{split}-images-idx3-ubyte.gz": idx(grey), f"{split}-labels-idx1-ubyte.gz": idx(own)}
    requests = serve(mnist, {name: gzip.compress(content) for name, content in contents.items()})
    hashes = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(mnist, "CONTENTS", hashes)
    return contents, requests


def test_mnist_keeps_the_digits_of_the_classes(digits, tmp_path):
    _, requests = digits
    spec = Mnist(kind="mnist", classes=(8, 3), image_size=28)
    train = mnist.load(spec, tmp_path / "raw", "train")
    assert train.sources == ["0", "1", "3", "5", "6", "8"]
    assert train.labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert (train.images.shape, train.images.dtype, train.labels.dtype) == ((6, 28, 28, 3), np.uint8, np.int64)
    assert (train.images == np.array([0, 1, 3, 5, 6, 8])[:, None, None, None]).all()
    assert train.masks is None
    assert requests == ["/train-images-idx3-ubyte.gz", "/train-labels-idx1-ubyte.gz"]
    assert mnist.load(spec, tmp_path / "raw", "test").sources == ["0", "2", "3"]
    mnist.load(spec, tmp_path / "raw", "train")
    assert len(requests) == 4


def test_validation_images_of_mnist_are_the_last_training_images(digits, tmp_path):
    spec = Mnist(kind="mnist", classes=(8, 3), image_size=28)
    whole = mnist.load(spec, tmp_path / "raw", "train").sources
    held_out = replace(spec, validation_images=1)
    assert mnist.load(held_out, tmp_path / "raw", "train").sources == whole[:-1]
    assert mnist.load(held_out, tmp_path / "raw", "test").sources == whole[-1:]
    assert not [name for name in digits[1] if "t10k" in name]  # the test images are not even downloaded
    with pytest.raises(BlaError, match=r"validation_images: .* leave none to train on"):
        mnist.load(replace(spec, validation_images=len(whole)), tmp_path / "raw", "train")


@pytest.mark.parametrize("resize", ["bilinear", "bilinear_antialias"])
def test_mnist_is_resized_as_every_image_is(resize, tmp_path, digits, monkeypatch):
    grey = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    name = "t10k-images-idx3-ubyte.gz"
    (tmp_path / name).write_bytes(gzip.compress(idx(grey)))
    monkeypatch.setitem(mnist.CONTENTS, name, hashlib.md5(idx(grey)).hexdigest())
    test = mnist.load(Mnist(kind="mnist", classes=(1, 2), image_size=45, resize=resize), tmp_path, "test")
    assert test.images.shape == (2, 45, 45, 3)
    for image, number in zip(test.images, (1, 4), strict=True):
        rgb = np.repeat(grey[number].astype(np.uint8)[..., None], 3, axis=2)
        assert (image == resize_image(rgb, 45, resize)).all()


def test_mnist_in_another_compression_is_accepted(digits, tmp_path):
    contents, requests = digits
    for name, content in contents.items():
        (tmp_path / name).write_bytes(gzip.compress(content, compresslevel=0))
    assert len(mnist.load(Mnist(kind="mnist", classes=(3, 8), image_size=28), tmp_path, "test").labels) == 3
    assert requests == []


def test_mnist_with_other_content_is_refused_with_both_hashes(digits, tmp_path):
    contents, _ = digits
    name = "t10k-labels-idx1-ubyte.gz"
    other = idx(np.array([8, 1, 3, 3, 3]))
    (tmp_path / name).write_bytes(gzip.compress(other))
    with pytest.raises(BlaError) as error:
        mnist.load(Mnist(kind="mnist", classes=(3, 8), image_size=28), tmp_path, "test")
    found, right = (hashlib.md5(content).hexdigest() for content in (other, contents[name]))
    assert re.search(rf"^{re.escape(str(tmp_path / name))}: .*{found}.*{right}; delete it", str(error.value))


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[5:], lambda data: b""])
def test_truncated_mnist_is_refused(digits, damage, tmp_path):
    contents, _ = digits
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(contents[path.name])))
    with pytest.raises(BlaError, match=re.escape(str(path))):
        mnist.load(Mnist(kind="mnist", classes=(3, 8), image_size=28), tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0\x09\x01" + bytes(4), "not an idx file"),
        (b"", "not an idx file"),
        (idx(np.zeros((5, 28, 28)))[:-1], r"3,919 values.*\(5, 28, 28\)"),
    ],
)
def test_an_idx_header_must_fit_the_file(digits, content, reason, tmp_path, monkeypatch):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    monkeypatch.setitem(mnist.CONTENTS, path.name, hashlib.md5(content).hexdigest())
    with pytest.raises(BlaError, match=f"^{re.escape(str(path))}: {reason}"):
        mnist.load(Mnist(kind="mnist", classes=(3, 8), image_size=28), tmp_path, "test")


@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason=f"the real MNIST is not in {DATA / 'mnist'}")
@pytest.mark.parametrize(("split", "count"), [("train", 11_982), ("test", 1_984)])
def test_the_real_mnist_has_the_papers_sizes(split, count):
    digits = mnist.load(Mnist(kind="mnist", classes=(3, 8), image_size=28), DATA / "mnist", split)
    assert len(digits.labels) == count
    assert set(digits.labels.tolist()) == {0, 1}
    ink = digits.images[..., 0].mean((1, 2))
    assert ink[digits.labels == 1].mean() > ink[digits.labels == 0].mean()  # an 8 takes more ink than a 3


WNIDS = ["n01440764", "n01443537", "n02085620"]
SPEC = ImageNet(kind="imagenet", path="imagenet", image_size=224)


def tar(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def official(tmp_path):
    """The three archives of ImageNet with two training images per class and five validation images."""
    folder = tmp_path / "imagenet"
    folder.mkdir()
    classes = {f"{wnid}.tar": tar({f"{wnid}_{i}.JPEG": picture() for i in (18, 10026)}) for wnid in WNIDS}
    pack(folder / "ILSVRC2012_img_train.tar", classes)
    # The devkit does not number classes in the order of wnids, and also has inner nodes of WordNet.
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(1, WNIDS[2], "Chihuahua", 0), (2, WNIDS[0], "tench", 0), (3, WNIDS[1], "goldfish", 0)]
    synsets = np.array([*rows, (1001, "n00001740", "entity", 3)], fields)[:, None]
    inside = "ILSVRC2012_devkit_t12/data"
    pack(
        folder / "ILSVRC2012_devkit_t12.tar.gz",
        {
            f"{inside}/meta.mat": matlab(synsets=synsets),
            f"{inside}/ILSVRC2012_validation_ground_truth.txt": b"3\n1\n2\n1\n3\n",
        },
    )
    validation = {f"ILSVRC2012_val_{i:08}.JPEG": picture() for i in (2, 1, 3, 5, 4)}
    pack(folder / "ILSVRC2012_img_val.tar", validation)
    return folder


TRAIN = [ImageFile(f"train/{w}/{w}_{i}.JPEG", label) for label, w in enumerate(WNIDS) for i in (10026, 18)]
VALIDATION = [
    ImageFile(f"val/{WNIDS[label]}/ILSVRC2012_val_{number:08}.JPEG", label)
    for label, number in ((0, 3), (1, 1), (1, 5), (2, 2), (2, 4))
]


def test_the_archives_of_imagenet_are_unpacked_once(official, capsys):
    listing = imagenet.find(SPEC, official)
    assert listing.classes == WNIDS
    assert listing.splits == {"train": TRAIN, "test": VALIDATION}
    said = capsys.readouterr().out
    assert re.search("6 train images.* 1,281,167", said)
    assert re.search("5 test images.* 50,000", said)
    for archive in official.glob("ILSVRC*"):
        archive.unlink()
    assert sorted(path.name for path in official.iterdir()) == ["train", "val"]
    assert imagenet.find(SPEC, official) == listing


@pytest.mark.parametrize("broken", ["n01440764.tar", "n01443537.tar", "ILSVRC2012_img_val.tar"])
def test_unpacking_imagenet_resumes_where_it_stopped(official, broken, monkeypatch):
    unpack, done = imagenet.unpack, []

    def failing(archive, folder):
        if archive.name == broken and broken not in done:
            done.append(broken)
            raise KeyboardInterrupt
        assert archive.name not in done
        unpack(archive, folder)
        done.append(archive.name)

    monkeypatch.setattr(imagenet, "unpack", failing)
    with pytest.raises(KeyboardInterrupt):
        imagenet.find(SPEC, official)
    done.remove(broken)
    monkeypatch.setattr(
        imagenet, "unpack", lambda archive, folder: (done.append(archive.name), unpack(archive, folder))
    )
    assert imagenet.find(SPEC, official).splits == {"train": TRAIN, "test": VALIDATION}
    assert len(set(done)) == len(done) == 6
    assert sorted(path.name for path in official.iterdir() if path.is_dir()) == ["train", "val"]


def test_missing_parts_of_imagenet_are_named(official):
    (official / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(BlaError) as error:
        imagenet.find(SPEC, official)
    assert str(error.value).startswith(f"{official}: ")
    assert "ILSVRC2012_devkit_t12.tar.gz" in str(error.value)
    assert not (official / "train").exists()
    with pytest.raises(BlaError, match=r"elsewhere: .*put here \{train,val\}/<wnid>/\*\.JPEG"):
        imagenet.find(SPEC, official / "elsewhere")


def unpacked(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_subset_of_imagenet_is_accepted(tmp_path):
    names = [f"{part}/{wnid}/{wnid}_1.JPEG" for part in ("train", "val") for wnid in WNIDS[:2]]
    unpacked(tmp_path, *names, "train/n01440764/._n01440764_1.JPEG", "train/n01440764/notes.txt")
    listing = imagenet.find(SPEC, tmp_path)
    assert [file.name for split in ("train", "test") for file in listing.splits[split]] == names


def test_the_splits_of_imagenet_must_have_the_same_classes(tmp_path):
    names = [f"{part}/{wnid}/1.JPEG" for part in ("train", "val") for wnid in WNIDS]
    unpacked(tmp_path, *names[:-1])
    with pytest.raises(BlaError, match=r"only one of them has n02085620$"):
        imagenet.find(SPEC, tmp_path)
    (tmp_path / "val/n02085620").mkdir()
    with pytest.raises(BlaError, match=r"val/n02085620: no \.JPEG image"):
        imagenet.find(SPEC, tmp_path)
