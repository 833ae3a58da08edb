"""Archives that would fill the disk, overwrite their own files or confuse the reader: refused, with nothing written."""

import gzip
import io
import tarfile
import zipfile

import pytest

from bla.base.download import LARGEST_RATIO, unpack
from bla.base.errors import BlaError

ZEROS = 60_000_000


def tar_of(path, members, mode="w:gz", **options):
    """A tar of (name, content) members."""
    with tarfile.open(path, mode, **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members:
            zipped.writestr(name, content)
    return path


def nameless_zip(path):
    """A zip whose one member has a name of no letters, which zipfile refuses to write."""
    content = zip_of(path, [("a", b"1")]).read_bytes()
    for start, length, name in ((b"PK\1\2", 28, 46), (b"PK\3\4", 26, 30)):  # its entry in the list, then its header
        at = content.index(start)
        content = content[: at + length] + bytes(2) + content[at + length + 2 : at + name] + content[at + name + 1 :]
    end = content.index(b"PK\5\6")
    size, offset = end - content.index(b"PK\1\2"), content.index(b"PK\1\2")
    path.write_bytes(
        content[: end + 12] + size.to_bytes(4, "little") + offset.to_bytes(4, "little") + content[end + 20 :]
    )
    return path


def claimed(path, size):
    """A tar whose header claims a size that its data do not have."""
    info = tarfile.TarInfo("large.bin")
    info.size = size
    path.write_bytes(gzip.compress(info.tobuf() + bytes(10240)))
    return path


def sparse(path):
    """A GNU sparse member: a file of a terabyte with no data."""
    info = tarfile.TarInfo("sparse.bin")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 2**32
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(10240))
    return path


def chained(path):
    """A thousand long-name headers, one after the other."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 5
    path.write_bytes((name.tobuf(tarfile.GNU_FORMAT) + b"a.txt".ljust(512, b"\0")) * 3000 + bytes(10240))
    return path


def of_another_time(path, when):
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"mtime": when}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO())
    return path


def many(path, count):
    """A tar of empty files, of which the unpacked headers alone are large."""
    info = tarfile.TarInfo()
    with gzip.open(path, "wb") as file:
        for number in range(count):
            info.name = str(number)
            file.write(info.tobuf())
        file.write(bytes(10240))
    return path


def with_a_large_header(path, kind, content=bytes(ZEROS)):
    """A tar with a name, or with attributes, of 60 MB, which tarfile would read at once."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, len(content)
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(10240), 1))
    return path


def with_many_headers(path):
    """A tar whose many small headers are all large together."""
    name, file = tarfile.TarInfo("././@LongLink"), tarfile.TarInfo("a")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 4096
    with gzip.open(path, "wb", 1) as tar:
        for number in range(4000):
            tar.write(name.tobuf(tarfile.GNU_FORMAT) + f"{number}".encode().ljust(4096, b"\0") + file.tobuf())
        tar.write(bytes(10240))
    return path


def with_folder(path, name, place):
    """A tar of the file `a` with a folder of this name before (0) or after it (1)."""
    folder, file = tarfile.TarInfo(name), tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    members = [file]
    members.insert(place, folder)
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO())
    return path


BELOW = [("a", b"1"), ("a/b.txt", b"2")]
LETTER = [("a", b"1"), ("a", b"2")]
SAME, CASES = [("a.txt", b"1"), ("a.txt", b"2")], [("A/b.txt", b"1"), ("a/B.TXT", b"2")]
CASES_OF = {
    "tar bomb": (lambda folder: tar_of(folder / "x.tar.gz", [("zeros", bytes(ZEROS))]), f"{LARGEST_RATIO} times the archive"),
    "zip bomb": (lambda folder: zip_of(folder / "x.zip", [("zeros", bytes(ZEROS))]), f"{LARGEST_RATIO} times the archive"),
    "many small bombs": (
        lambda folder: zip_of(folder / "x.zip", [(f"{n}", bytes(ZEROS // 20)) for n in range(20)]),
        f"{LARGEST_RATIO} times the archive",
    ),
    "claimed size": (lambda folder: claimed(folder / "x.tar.gz", 10**9), f"{LARGEST_RATIO} times the archive"),
    "sparse": (lambda folder: sparse(folder / "x.tar"), "refused"),
    "same name, tar": (lambda folder: tar_of(folder / "x.tar", SAME, "w"), "'a.txt' is refused, because 'a.txt' has the same"),
    "same name, zip": (lambda folder: zip_of(folder / "x.zip", SAME), "'a.txt' is refused, because 'a.txt' has the same"),
    "same letter, tar": (lambda folder: tar_of(folder / "x.tar", LETTER, "w"), "'a' is refused, because 'a' has the same"),
    "same letter, zip": (lambda folder: zip_of(folder / "x.zip", LETTER), "'a' is refused, because 'a' has the same"),
    "a folder and a file, tar": (lambda folder: with_folder(folder / "x.tar", "a", 0), "'a' is refused, because 'a' has the same"),
    "a file and a folder, tar": (lambda folder: with_folder(folder / "x.tar", "a", 1), "'a' is refused, because 'a' has the same"),
    "a file and a folder, other case": (lambda folder: with_folder(folder / "x.tar", "A", 1), "'A' is refused, because 'a' has the same"),
    "a file and a folder, zip": (lambda folder: zip_of(folder / "x.zip", [("a", b"1"), ("a/", b"")]), "'a/' is refused, because 'a' has"),
    "same letters, tar": (lambda folder: tar_of(folder / "x.tar", CASES, "w"), "'a/B.TXT' is refused"),
    "same letters, zip": (lambda folder: zip_of(folder / "x.zip", CASES), "'a/B.TXT' is refused"),
    "a file as a folder, tar": (lambda folder: tar_of(folder / "x.tar", BELOW, "w"), "'a/b.txt' is refused, because 'a' is a file"),
    "a file as a folder, zip": (lambda folder: zip_of(folder / "x.zip", BELOW), "'a/b.txt' is refused, because 'a' is a file"),
    "a folder, then a file": (lambda folder: tar_of(folder / "x.tar", BELOW[::-1], "w"), "because 'a' is a file, not a folder"),
    "same path, tar": (lambda folder: tar_of(folder / "x.tar", [("a/b", b"1"), ("a/./b", b"2")], "w"), "'a/./b' is refused"),
    "same path, zip": (lambda folder: zip_of(folder / "x.zip", [("a/b", b"1"), ("a//b", b"2")]), "'a//b' is refused"),
    "same look": (lambda folder: tar_of(folder / "x.tar", [("\u00e9", b"1"), ("e\u0301", b"2")], "w"), "has the same name on some"),
    "a dot at the end, tar": (lambda folder: tar_of(folder / "x.tar", [("a", b"1"), ("a.", b"2")], "w"), "'a.' is refused, because 'a' has"),
    "a dot at the end, zip": (lambda folder: zip_of(folder / "x.zip", [("a.", b"1"), ("a", b"2")]), "'a' is refused, because 'a.' has"),
    "a space at the end": (lambda folder: zip_of(folder / "x.zip", [("b/a", b"1"), ("b /A. .", b"2")]), "'b /A. .' is refused"),
    "a file as a folder with a dot": (lambda folder: zip_of(folder / "x.zip", [("a", b"1"), ("a./b", b"2")]), "because 'a' is a file"),
    "dots alone": (lambda folder: zip_of(folder / "x.zip", [("...", b"1")]), "'...' is refused"),
    "no name": (lambda folder: tar_of(folder / "x.tar", [("", b"1")], "w"), "'' is refused"),
    "no name, zip": (lambda folder: nameless_zip(folder / "x.zip"), "'' is refused"),
    "the folder itself": (lambda folder: zip_of(folder / "x.zip", [(".", b"1")]), "'.' is refused"),
    "long name, tar": (lambda folder: tar_of(folder / "x.tar", [("a" * 300, b"1")], "w"), "no disk takes a name of 300 letters"),
    "long name, zip": (lambda folder: zip_of(folder / "x.zip", [("é" * 150, b"1")]), "no disk takes a name of 150 letters"),
    "many empty files": (lambda folder: many(folder / "x.tar.gz", 50_000), f"{LARGEST_RATIO} times the archive"),
    "long-name bomb": (lambda folder: with_a_large_header(folder / "x.tar.gz", tarfile.GNUTYPE_LONGNAME), "a header of 60,000,000 bytes is refused"),
    "attribute bomb": (lambda folder: with_a_large_header(folder / "x.tar.gz", tarfile.XHDTYPE), "a header of 60,000,000 bytes is refused"),
    "digits": (lambda folder: with_a_large_header(folder / "x.tar.gz", tarfile.XHDTYPE, b"9" * 900_096), "a header of 900,096 bytes is refused"),
    "digits for all": (lambda folder: with_a_large_header(folder / "x.tar.gz", tarfile.XGLTYPE, b"1" * 51_200), "a header of 51,200 bytes is refused"),
    "digits of Solaris": (lambda folder: with_a_large_header(folder / "x.tar.gz", tarfile.SOLARIS_XHDTYPE, b"0" * 10_240), "a header of 10,240 bytes"),
    "many headers": (lambda folder: with_many_headers(folder / "x.tar.gz"), f"{LARGEST_RATIO} times the archive"),
    "deep, tar": (lambda folder: tar_of(folder / "x.tar", [("/".join(["abcdefgh"] * 450), b"1")], "w"), "no disk takes a name of 4049 letters"),
    "deep, zip": (lambda folder: zip_of(folder / "x.zip", [("a/" * 2500 + "b", b"1")]), "no disk takes a name of 5001 letters"),
    "chained names": (lambda folder: chained(folder / "x.tar"), "damaged archive"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("make", "reason"), CASES_OF.values(), ids=CASES_OF.keys())
def test_an_archive_that_would_do_harm_is_refused_and_nothing_is_written(make, reason, tmp_path):
    archive = make(tmp_path)
    with pytest.raises(BlaError) as error:
        unpack(archive, tmp_path / "pets")
    assert str(archive) in str(error.value)
    assert reason in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


@pytest.mark.parametrize("when", ["1e300", "-1e300", "nan", "inf"])
def test_a_time_beyond_all_dates_is_one_message_or_no_matter(when, tmp_path):
    archive = of_another_time(tmp_path / "x.tar", when)
    message = ""
    try:
        unpack(archive, tmp_path / "pets")
    except BlaError as error:
        message = str(error)
    assert (tmp_path / "pets/a.txt").is_file() == (message == "")
    assert not message or message.startswith(f"{archive}: damaged archive")


def test_an_archive_of_text_that_compresses_well_is_unpacked(tmp_path):
    members = [(f"{n}.txt", b"label,1\n" * 10_000) for n in range(50)]
    unpack(tar_of(tmp_path / "x.tar.gz", members), tmp_path / "pets")
    assert len(list((tmp_path / "pets").iterdir())) == 50


@pytest.mark.parametrize("folders", [["a", "a"], ["A", "a"], [".", "a"], ["./a", "a"]])
def test_a_folder_may_be_listed_twice(folders, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("a/b"))
    unpack(tmp_path / "x.tar", tmp_path / "pets")
    assert (tmp_path / "pets/a/b").is_file()
