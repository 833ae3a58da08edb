"""Downloads from a server on loopback, and valid and malicious archives."""

import errno
import hashlib
import io
import os
import re
import resource
import stat
import subprocess
import sys
import tarfile
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import bla.base.download
from bla.base.download import Source, fetch, provide, unpack
from bla.base.errors import BlaError

ROOT = Path(__file__).resolve().parents[2]
DATA = bytes(range(256)) * 4000  # 1 MB, several chunks
HALF = len(DATA) // 2
FILES = {Path("a/x.txt"): b"x" * 3000, Path("a/deep/y.txt"): b"y" * 70_000, Path("empty"): b""}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Server:
    """A server on loopback. Each path has a list of answers; the last one is repeated."""

    def __init__(self):
        self.answers, self.requests, self.headers = {}, [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, self.headers["Range"]))
                outer.headers.append(dict(self.headers))
                answers = outer.answers[self.path]
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path, *answers):
        """The address of a new path with these answers."""
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.http.server_port}{path}"


def respond(handler, status, body=b"", **headers):
    handler.send_response(status)
    for name, value in ({"Content_Length": len(body)} | headers).items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    try:
        handler.wfile.write(body)
    except ConnectionError:  # the client closed the connection
        handler.server.cut_off = True


def whole(data):
    """Answers 200 with the whole content, whatever range is requested."""
    return lambda handler: respond(handler, 200, data)


def status(code, **headers):
    return lambda handler: respond(handler, code, **headers)


def ranges(data, stop=None):
    """Answers the request, with 206 for a range; the connection breaks at byte `stop`."""

    def answer(handler):
        asked = handler.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and start >= len(data):
            return respond(handler, 416, Content_Range=f"bytes */{len(data)}")
        headers = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        return respond(handler, 206 if asked else 200, data[start:stop], Content_Length=len(data) - start, **headers)

    return answer


def another_range(handler):
    respond(handler, 206, DATA[5:], Content_Range=f"bytes 5-{len(DATA) - 1}/{len(DATA)}")


def without_length(data):
    return lambda handler: respond(handler, 200, data, Content_Length=None)


def half_chunked(handler):
    handler.protocol_version = "HTTP/1.1"
    respond(
        handler,
        200,
        b"%x\r\n%b\r\n%x\r\nbreaks" % (HALF, DATA[:HALF], HALF),
        Content_Length=None,
        Transfer_Encoding="chunked",
    )
    handler.close_connection = True


def silence(handler):
    if not handler.server.patience.wait(5):  # the client waits forever
        respond(handler, 200, DATA)


def hang_up(handler):
    handler.connection.close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(bla.base.download, "BACKOFF", 0)
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    server.http.patience = threading.Event()
    server.http.cut_off = False
    yield server
    server.http.patience.set()
    server.http.shutdown()
    server.http.server_close()


def source(*urls, data=DATA, name="file.bin", **changes):
    return Source(**{"name": name, "urls": urls, "size": len(data), "checksum": sha256(data)} | changes)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_fetched(server, tmp_path, wanted, *requested):
    """The file is downloaded by requests with these ranges (None: no range); the folder contains nothing else."""
    path = fetch(wanted, tmp_path / "new")
    assert path == tmp_path / "new/file.bin"
    assert contents(tmp_path / "new") == {Path("file.bin"): DATA}
    assert [asked for _, asked in server.requests] == list(requested)


def half_part(tmp_path, data=DATA[:HALF]):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file.bin.part").write_bytes(data)


REST = f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "downloading file.bin (1 MB)\n"),
        ({"size": None}, "downloading file.bin\n"),
        ({"checksum": "md5:" + hashlib.md5(DATA).hexdigest()}, "downloading file.bin (1 MB)\n"),
    ],
)
def test_a_download(changes, line, server, tmp_path, capsys):
    assert_fetched(server, tmp_path, source(server.url("/a", whole(DATA)), **changes), None)
    assert capsys.readouterr() == (line, "")
    assert server.headers[0]["User-Agent"] == "bla"
    assert server.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("size", [len(DATA), None])
def test_an_empty_file_and_a_file_without_content_length_are_downloaded(size, server, tmp_path):
    assert_fetched(server, tmp_path, source(server.url("/a", without_length(DATA)), size=size), None)
    empty = source(server.url("/b", whole(b"")), data=b"", name="empty")
    assert fetch(empty, tmp_path).read_bytes() == b""


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_partial_download_is_resumed(size, server, tmp_path):
    half_part(tmp_path)
    assert_fetched(server, tmp_path, source(server.url("/a", ranges(DATA)), size=size), REST)


@pytest.mark.parametrize(
    ("answer", "requested"),
    [(whole(DATA), [REST]), (another_range, [REST, None]), (status(416), [REST, None])],
    ids=["ignores the range", "sends another range", "416"],
)
def test_a_server_that_cannot_resume_sends_the_whole_file(answer, requested, server, tmp_path):
    half_part(tmp_path)
    assert_fetched(server, tmp_path, source(server.url("/a", answer, ranges(DATA))), *requested)


def test_a_partial_file_that_is_too_long_is_downloaded_again(server, tmp_path):
    half_part(tmp_path, DATA + b"more")
    assert_fetched(server, tmp_path, source(server.url("/a", ranges(DATA))), None)


def test_a_complete_part_of_unknown_size_is_downloaded_again(server, tmp_path):
    half_part(tmp_path, DATA)
    wanted = source(server.url("/a", ranges(DATA)), size=None)
    assert_fetched(server, tmp_path, wanted, f"bytes={len(DATA)}-", None)


def test_a_complete_part_needs_no_request(server, tmp_path):
    half_part(tmp_path, DATA)
    assert_fetched(server, tmp_path, source(server.url("/a", status(500))))


def test_a_broken_connection_is_resumed(server, tmp_path):
    url = server.url("/a", ranges(DATA, stop=HALF), ranges(DATA, stop=HALF + 9), ranges(DATA))
    assert_fetched(server, tmp_path, source(url), None, REST, f"bytes={HALF + 9}-")


@pytest.mark.parametrize("answer", [half_chunked, without_length(DATA[:HALF]), silence, hang_up])
def test_other_interruptions_are_resumed(answer, server, tmp_path, monkeypatch):
    monkeypatch.setattr(bla.base.download, "TIMEOUT", 0.5)
    url = server.url("/a", answer, ranges(DATA))
    fetch(source(url), tmp_path)
    assert contents(tmp_path) == {Path("file.bin"): DATA}
    assert len(server.requests) == 2


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_busy_server_is_asked_again_after_increasing_pauses(code, server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(bla.base.download, "BACKOFF", 3)
    monkeypatch.setattr(bla.base.download.time, "sleep", pauses.append)
    url = server.url("/a", status(code), status(code), status(code), whole(DATA))
    assert_fetched(server, tmp_path, source(url), None, None, None, None)
    assert pauses == [3, 6, 12]


@pytest.mark.parametrize("code", [403, 404])
def test_a_file_missing_on_one_server_is_requested_from_the_next_at_once(code, server, tmp_path):
    wanted = source(server.url("/a", status(code)), server.url("/b", whole(DATA)), server.url("/c", status(500)))
    assert_fetched(server, tmp_path, wanted, None, None)
    assert [path for path, _ in server.requests] == ["/a", "/b"]


def test_the_next_server_resumes_the_part_from_the_first(server, tmp_path):
    first = server.url("/a", ranges(DATA, stop=HALF), status(404))
    assert_fetched(server, tmp_path, source(first, server.url("/b", ranges(DATA))), None, REST, REST)


def test_if_all_servers_fail_one_message_says_what_to_do(server, tmp_path):
    wanted = source(server.url("/a", status(404)), last := server.url("/b", status(503)))
    with pytest.raises(BlaError, match=r"^file\.bin: .*503.*check the connection") as caught:
        fetch(wanted, tmp_path)
    assert last in str(caught.value)
    assert str(caught.value).endswith(f"{tmp_path}/file.bin")  # the message says where to put the file
    assert [path for path, _ in server.requests] == ["/a"] + ["/b"] * bla.base.download.ATTEMPTS
    assert contents(tmp_path) == {}


def test_an_unreachable_server_is_an_error(server, tmp_path):
    url = server.url("/a")
    server.http.server_close()
    with pytest.raises(BlaError, match=r"file\.bin: .*Connection refused.*check the connection"):
        fetch(source(url), tmp_path)


@pytest.mark.parametrize(
    "sent", [DATA[::-1], DATA[:HALF], DATA + b"!", b""], ids=["other bytes", "truncated", "too long", "empty"]
)
@pytest.mark.parametrize("answer", [whole, ranges])
def test_a_file_with_the_wrong_hash_is_an_error(sent, answer, server, tmp_path):
    with pytest.raises(BlaError) as caught:
        fetch(source(server.url("/a", answer(sent)), server.url("/b", answer(sent))), tmp_path)
    message = str(caught.value)
    assert message.startswith("file.bin: ")
    for part in (f"{len(sent)} bytes with {sha256(sent)}", f"not {len(DATA)} bytes with {sha256(DATA)}", "run again"):
        assert part in message
    assert message.endswith(f"{tmp_path}/file.bin")
    assert contents(tmp_path) == {}


def test_a_wrong_part_is_not_resumed_again_and_again(server, tmp_path):
    half_part(tmp_path, b"!" * HALF)
    wanted = source(server.url("/a", ranges(DATA)))
    with pytest.raises(BlaError, match=sha256(DATA)):
        fetch(wanted, tmp_path / "new")
    assert_fetched(server, tmp_path, wanted, REST, None)


@pytest.mark.parametrize("answer", [whole, without_length])
def test_a_server_that_sends_too_much_is_cut_off(answer, server, tmp_path):
    with pytest.raises(BlaError, match="not 10 bytes") as error:
        fetch(source(server.url("/a", answer(DATA * 50)), data=DATA[:10]), tmp_path)
    assert 10 < int(re.search(r"has (\d+) bytes", str(error.value))[1]) <= bla.base.download.CHUNK
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("url", ["http://example.invalid/a", "ftp://127.0.0.1/a", "file:///etc/hosts", "/etc/hosts"])
def test_remote_servers_need_https(url, server, tmp_path):
    first = server.url("/a", whole(DATA))
    with pytest.raises(BlaError, match=rf"^file\.bin: {url} .*https"):
        fetch(source(first, url), tmp_path)
    assert server.requests == []
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("url", ["http://example.invalid/a", "ftp://example.invalid/a", "file:///etc/hosts"])
def test_a_redirect_to_anything_but_https_is_refused(url, server, tmp_path):
    first = server.url("/a", status(302, Location=url))
    with pytest.raises(BlaError, match=rf"file\.bin: .*{url}.*check the connection"):
        fetch(source(first), tmp_path)
    assert_fetched(server, tmp_path, source(first, server.url("/b", whole(DATA))), None, None, None)


def test_a_redirect_keeps_the_range(server, tmp_path):
    half_part(tmp_path)
    there = server.url("/b", ranges(DATA))
    assert_fetched(server, tmp_path, source(server.url("/a", status(302, Location=there))), REST, REST)


@pytest.mark.parametrize("size", [len(DATA), None])
def test_an_existing_file_is_not_downloaded(size, server, tmp_path):
    (tmp_path / "file.bin").write_bytes(DATA)
    assert fetch(source(server.url("/a", whole(DATA)), size=size), tmp_path).read_bytes() == DATA
    assert server.requests == []


@pytest.mark.parametrize("there", [b"", DATA[:-1], DATA[::-1]])
def test_an_existing_file_with_another_hash_is_not_changed(there, server, tmp_path):
    (tmp_path / "file.bin").write_bytes(there)
    with pytest.raises(BlaError) as caught:
        fetch(source(server.url("/a", whole(DATA))), tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/file.bin: ")
    for part in (f"{len(there)} bytes with {sha256(there)}", f"not {len(DATA)} bytes with {sha256(DATA)}", "delete it"):
        assert part in message
    assert server.requests == []
    assert contents(tmp_path) == {Path("file.bin"): there}


def run_with_small_files(code, *words):
    """Run Python code with a limit of 300 kB per file; returns the errno of its OSError."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; import sys; from bla.base.download import *\n{code}",
            *words,
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    return done.returncode, done.stderr


FETCH = """
try: fetch(Source("file.bin", (sys.argv[1],), int(sys.argv[2]), sys.argv[3]), Path(sys.argv[4]))
except OSError as error: sys.exit(error.errno)
"""

UNPACK = """
try: unpack(Path(sys.argv[1]), Path(sys.argv[2]))
except OSError as error: sys.exit(error.errno)
"""


@pytest.mark.slow
def test_a_full_disk_is_not_reported_as_a_network_error(server, tmp_path):
    url = server.url("/a", ranges(DATA))
    assert run_with_small_files(FETCH, url, str(len(DATA)), sha256(DATA), str(tmp_path / "new")) == (errno.EFBIG, "")
    assert len(server.requests) == 1
    assert list(contents(tmp_path / "new")) == [Path("file.bin.part")]
    server.requests.clear()
    assert_fetched(server, tmp_path, source(url), "bytes=300000-")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_error_at_the_end_is_not_reported_as_a_network_error(number, server, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(bla.base.download.os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        fetch(source(server.url("/a", whole(DATA))), tmp_path)
    assert len(server.requests) == 1
    assert not (tmp_path / "file.bin").exists()


def test_an_interrupt_keeps_the_part_for_the_next_start(server, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    wanted = source(server.url("/a", ranges(DATA, stop=HALF), ranges(DATA)))
    monkeypatch.setattr(bla.base.download.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(wanted, tmp_path / "new")
    assert contents(tmp_path / "new") == {Path("file.bin.part"): DATA[:HALF]}
    assert_fetched(server, tmp_path, wanted, None, REST)


KINDS = [".tar", ".tar.gz", ".tgz", ".zip"]


def pack(archive, files=FILES, evil=()):
    """Pack the files, and then malicious members: TarInfo or ZipInfo without content."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.mkdir("folder")
            for name, data in files.items():
                zipped.writestr(str(name), data)
            for member in evil:
                zipped.writestr(member, b"")
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as tar:
            for name in (".", "folder"):
                member = tarfile.TarInfo(name)
                member.type, member.mode = tarfile.DIRTYPE, 0o000
                tar.addfile(member)
            for name, data in files.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size, member.mode = len(data), 0o7002
                tar.addfile(member, io.BytesIO(data))
            for member in evil:
                tar.addfile(member)
    return archive


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_becomes_a_folder(kind, tmp_path):
    folder = tmp_path / "new" / "pets"
    unpack(pack(tmp_path / f"pets{kind}"), folder)
    assert contents(folder) == FILES
    assert (folder / "folder").is_dir()
    assert names_in(tmp_path / "new") == ["pets"]
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o7022 == 0
        assert path.stat().st_mode & 0o600 == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_archive_is_an_empty_folder(kind, tmp_path):
    archive = tmp_path / f"pets{kind}"
    if kind == ".zip":
        zipfile.ZipFile(archive, "w").close()
    else:
        tarfile.open(archive, "w" if kind == ".tar" else "w:gz").close()
    unpack(archive, tmp_path / "pets")
    assert names_in(tmp_path / "pets") == []


@pytest.mark.parametrize("kind", [".tar", ".zip"])
def test_a_partial_folder_left_by_a_kill_is_replaced(kind, tmp_path):
    (tmp_path / "pets.part" / "a").mkdir(parents=True)
    (tmp_path / "pets.part" / "a" / "half.txt").write_text("ha")
    unpack(pack(tmp_path / f"archive{kind}"), tmp_path / "pets")
    assert contents(tmp_path / "pets") == FILES
    assert not (tmp_path / "pets.part").exists()


@pytest.mark.parametrize("inside", [(), ("mine.txt",)])
def test_an_existing_folder_is_not_changed(inside, tmp_path):
    archive = pack(tmp_path / "pets.tar")
    (tmp_path / "pets").mkdir()
    for name in inside:
        (tmp_path / "pets" / name).touch()
    with pytest.raises(BlaError, match=r"pets: .*delete it .*pets\.tar"):
        unpack(archive, tmp_path / "pets")
    assert names_in(tmp_path / "pets") == list(inside)


EVIL_NAMES = [
    "../evil",
    "a/../../evil",
    "a/..",
    "/tmp/evil",
    "C:\\evil",
    "C:evil",
    "c:/evil",
    "..\\evil",
    "a\\..\\evil",
]
EVIL_NAMES += ["\\evil", "\\\\host\\share\\evil", "//host/share/evil"]

EVIL_TYPES = {
    "symbolic link": (tarfile.SYMTYPE, stat.S_IFLNK),
    "hard link": (tarfile.LNKTYPE, None),
    "character device": (tarfile.CHRTYPE, stat.S_IFCHR),
    "block device": (tarfile.BLKTYPE, stat.S_IFBLK),
    "fifo": (tarfile.FIFOTYPE, stat.S_IFIFO),
    "socket": (None, stat.S_IFSOCK),
    "unknown": (b"Z", None),
}


def evil_members(kind):
    make = zipfile.ZipInfo if kind == ".zip" else tarfile.TarInfo
    for name in EVIL_NAMES:
        yield pytest.param(kind, make(name), id=f"{kind} {name}")
    for label, (tar_type, zip_mode) in EVIL_TYPES.items():
        member = make("evil")
        if kind == ".zip" and zip_mode is not None:
            member.external_attr = (zip_mode | 0o777) << 16
        elif kind != ".zip" and tar_type is not None:
            member.type, member.linkname = tar_type, "a/x.txt"
        else:
            continue
        yield pytest.param(kind, member, id=f"{kind} {label}")


@pytest.mark.parametrize(("kind", "member"), [*evil_members(".tar"), *evil_members(".tar.gz"), *evil_members(".zip")])
def test_a_malicious_member_is_refused_before_anything_is_written(kind, member, tmp_path, monkeypatch):
    extracted = []
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda *_, **__: extracted.append(1))
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_, **__: extracted.append(1))
    archive = pack(tmp_path / f"pets{kind}", evil=[member])
    name = member.filename if kind == ".zip" else member.name
    with pytest.raises(BlaError) as caught:
        unpack(archive, tmp_path / "deep" / "pets")
    assert str(caught.value).startswith(f"{archive}: {name!r} is refused")
    assert extracted == []
    assert list(contents(tmp_path)) == [Path(archive.name)]
    assert names_in(tmp_path / "deep") == []


def test_an_encrypted_member_is_refused(tmp_path):
    archive = pack(tmp_path / "pets.zip", files={"secret": b"s"})
    data = bytearray(archive.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flags in the central directory
    archive.write_bytes(data)
    with pytest.raises(BlaError, match=r"pets\.zip: 'secret'"):
        unpack(archive, tmp_path / "pets")
    assert list(contents(tmp_path)) == [Path("pets.zip")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 100, 0.3, 0.6, 0.9])
def test_a_truncated_archive_is_named(cut, kind, tmp_path):
    archive = pack(tmp_path / f"pets{kind}", {"a": os.urandom(20_000), "b": os.urandom(5_000)})
    data = archive.read_bytes().rstrip(b"\0")  # cut a .tar by more than its padding
    archive.write_bytes(data[: int(cut * len(data)) if isinstance(cut, float) else cut])
    with pytest.raises(BlaError) as caught:
        unpack(archive, tmp_path / "pets")
    assert str(caught.value).startswith(f"{archive}: damaged")
    assert "delete it" in str(caught.value)
    assert list(contents(tmp_path)) == [Path(archive.name)]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_a_wrong_byte_is_named(compression, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", compression) as zipped:
        zipped.writestr("a", os.urandom(1000))
    data = bytearray((tmp_path / "pets.zip").read_bytes())
    data[60:70] = bytes(255 - byte for byte in data[60:70])
    (tmp_path / "pets.zip").write_bytes(data)
    with pytest.raises(BlaError, match=r"pets\.zip: damaged .*delete it"):
        unpack(tmp_path / "pets.zip", tmp_path / "pets")
    assert list(contents(tmp_path)) == [Path("pets.zip")]


@pytest.mark.parametrize("kept", ["one member", "damaged second header"])
def test_a_tar_that_ends_between_two_members_is_damaged(kept, tmp_path):
    archive = pack(tmp_path / "pets.tar", {"a": b"a" * 512, "b": b"b" * 512})
    data = bytearray(archive.read_bytes())
    second = data.index(b"./b")
    if kept == "one member":
        del data[second:]
    else:
        data[second] = ord("?")  # its checksum is now wrong
    archive.write_bytes(data)
    with pytest.raises(BlaError, match=r"pets\.tar: damaged .*delete it"):
        unpack(archive, tmp_path / "pets")
    assert not (tmp_path / "pets").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".tar.gz", ".zip"])
def test_a_full_disk_leaves_no_folder(kind, tmp_path):
    archive = pack(tmp_path / f"pets{kind}", {"small": b"a", "large": DATA})
    assert run_with_small_files(UNPACK, str(archive), str(tmp_path / "pets")) == (errno.EFBIG, "")
    assert list(contents(tmp_path)) == [Path(archive.name)]
    assert names_in(tmp_path) == [archive.name]


@pytest.mark.parametrize("name", [f"pets.v1{kind}" for kind in KINDS])
def test_an_archive_is_downloaded_and_unpacked_once(name, server, tmp_path):
    data = pack(tmp_path / name).read_bytes()
    wanted = source(server.url("/a", whole(data)), data=data, name=name)
    root = tmp_path / "root"
    for _ in range(2):
        assert provide(wanted, root) == root / "pets.v1"
        assert contents(root / "pets.v1") == FILES
        (root / name).unlink(missing_ok=True)  # an existing folder needs no archive
    assert len(server.requests) == 1


def test_an_archive_placed_by_hand_is_unpacked_without_network(server, tmp_path):
    data = pack(tmp_path / "pets.zip").read_bytes()
    assert contents(provide(source("https://example.invalid/pets.zip", data=data, name="pets.zip"), tmp_path)) == FILES
    assert server.requests == []


def test_all_connections_and_files_are_closed(server, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        wanted = source(
            server.url("/a", status(503), ranges(DATA, stop=HALF), status(404)), server.url("/b", whole(DATA))
        )
        fetch(wanted, tmp_path)
