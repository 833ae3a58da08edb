"""Downloads and archives; no other module uses the network.

    folder = provide(Source("pets.tar.gz", ("https://example.org/pets.tar.gz",), 791918971, "sha256:..."), Path("data/raw"))

An interrupted download resumes where it stopped. A file or folder gets its final name only when it is complete and,
if it was downloaded, its hash is right.
"""

import errno
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path, PureWindowsPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from bla.base.errors import BlaError

LARGEST_RATIO = 20
"""An archive whose files are more than this many times as large is refused (archives of images: up to three times)."""
ATTEMPTS = 5
"""Attempts per address before the next address is tried."""
BACKOFF = 1.0
"""Seconds before the second attempt; the wait doubles with each further attempt."""
TIMEOUT = 30.0
"""Seconds without data after which a connection counts as broken."""

HEADERS = {"User-Agent": "bla", "Accept-Encoding": "identity"}
LOOPBACK = ("127.0.0.1", "::1", "localhost")
CHUNK = 1 << 18
LONGEST_NAME = 255
"""Bytes of a file's name on common disks."""
LONGEST_PATH = 3000
"""Bytes of a file's path in an archive; with the folder before it, common disks take 4,095."""
LONGEST_HEADER = 5000
"""Bytes of a tar's extra header, which holds a path or a few attributes; tarfile searches it in quadratic time (1 MB: an hour)."""

DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError),
    *(RecursionError, OverflowError),  # names chained thousandfold, times beyond all dates
)
"""What the archive modules raise for damaged bytes; they also raise some OSErrors that are not disk errors."""


@dataclass(frozen=True)
class Source:
    """A file to download.

    Its name on disk, the addresses to try in order, its size in bytes (None if unknown), and `sha256:...` or `md5:...`.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None
    checksum: str


def provide(source: Source, root: Path) -> Path:
    """The unpacked archive as a folder in `root`, named like the archive; downloaded and unpacked if it is missing.

    An existing folder is trusted. Raises what `fetch` and `unpack` raise.
    """
    folder = root / re.sub(r"\.(tar|tar\.gz|tgz|zip)$", "", source.name)
    if not folder.is_dir():
        unpack(fetch(source, root), folder)
    return folder


def fetch(source: Source, folder: Path) -> Path:
    """The file `folder/source.name` with the right size and hash; downloaded if it is missing.

    Raises BlaError if an existing file has the wrong size or hash (it is not touched), if an address is not https, or
    if no address yields the right file. A full disk is an OSError. `<name>.part` is kept after an interruption, and the
    next call resumes from it.
    """
    path = folder / source.name
    if path.exists():
        if wrong := _difference(path, source):
            raise BlaError(f"{path}: {wrong}; delete it and run again")
        return path
    for url in source.urls:
        if not _is_protected(url):
            raise BlaError(f"{source.name}: {url} is refused, because it is not https")
    size = "" if source.size is None else f" ({max(source.size / 1e6, 1):.0f} MB)"
    print(f"downloading {source.name}{size}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{source.name}.part"
    _download(source, part, f"put the file by hand at {path}")
    if wrong := _difference(part, source):
        part.unlink()
        raise BlaError(f"{source.name}: the download {wrong}; run again, or put the file by hand at {path}")
    part.replace(path)
    return path


def _difference(path: Path, source: Source) -> str:
    """What is wrong with a file's size or hash; empty if both are right."""
    if not path.is_file():  # reading a pipe might never end
        return "is not a file"
    kind = source.checksum.partition(":")[0]
    with path.open("rb") as file:
        checksum = f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
    size = path.stat().st_size
    expected = size if source.size is None else source.size
    if (size, checksum) == (expected, source.checksum):
        return ""
    return f"has {size} bytes with {checksum}, not {expected} bytes with {source.checksum}"


class _NetworkError(Exception):
    """A network error, with the HTTP status if there is one; not an OSError, so that disk errors stay apart."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def _download(source: Source, part: Path, remedy: str) -> None:
    """Complete `part` from the first URL that works; raises BlaError if none does."""
    reason = "it has no address"
    for url in source.urls:
        for attempt in range(ATTEMPTS):
            if attempt > 0:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            try:
                _transfer(url, source, part)
                return
            except _NetworkError as error:
                reason = f"{url}: {error}"
                print(reason, flush=True)
                if error.status == 416:
                    part.unlink(missing_ok=True)
                elif error.status not in (None, 429) and error.status < 500:
                    break
    raise BlaError(f"{source.name}: cannot be downloaded ({reason}); check the connection, or {remedy}")


def _transfer(url: str, source: Source, part: Path) -> None:
    """Download the rest of `part`, or all of it if the server cannot resume.

    Stops early if the server sends more bytes than the file has. Raises _NetworkError.
    """
    start = part.stat().st_size if part.exists() else 0
    if 0 < start == source.size:
        return
    if source.size is not None and start > source.size:
        start = 0
    request = Request(url, headers=HEADERS | ({"Range": f"bytes={start}-"} if start else {}))
    with _network_errors():
        response: HTTPResponse = build_opener(_ProtectedRedirects).open(request, timeout=TIMEOUT)
    with response:
        content_range = response.getheader("Content-Range", "")
        if response.status != 206:
            start = 0
        elif not content_range.startswith(f"bytes {start}-"):
            raise _NetworkError(f"sends {content_range or 'an unknown range'}, not from {start}", 416)
        total = source.size if response.length is None else start + response.length
        bar = tqdm(desc=source.name, initial=start, total=total, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                bar.update(len(chunk))
                if source.size is not None and file.tell() > source.size:
                    return
            if total is not None and file.tell() < total:
                raise _NetworkError(f"the connection broke off after {file.tell()} of {total} bytes")
            file.flush()
            os.fsync(file.fileno())


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    with _network_errors():  # errors of reading only; errors in the caller's loop do not come through here
        while chunk := response.read(CHUNK):
            yield chunk


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _NetworkError(str(error), error.code) from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: redirected to an invalid address
        reason = error.reason if isinstance(error, URLError) else error
        raise _NetworkError(str(reason) or type(error).__name__) from error


class _ProtectedRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not _is_protected(newurl):
            raise HTTPError(req.full_url, code, f"redirected to {newurl}, refused because it is not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_protected(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def unpack(archive: Path, folder: Path) -> None:
    """Extract a .tar, .tar.gz, .tgz or .zip into `folder`, which must not exist; it appears only when complete.

    Raises BlaError, and writes nothing, if the archive is damaged or a member is anything but a file or folder within
    `folder`. A full disk is an OSError.
    """
    if folder.exists():
        raise BlaError(f"{folder}: already exists; delete it to unpack {archive} again")
    part = folder.with_name(f"{folder.name}.part")
    if part.exists():
        shutil.rmtree(part)
    try:
        part.mkdir(parents=True)
        if archive.suffix == ".zip":
            _extract_zip(archive, part)
        else:
            _extract_tar(archive, part)
        part.rename(folder)
    except (OSError, *DAMAGE) as error:
        # a disk error: gzip and bz2 errors have no errno, and a zip with a negative offset gives EINVAL
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise BlaError(f"{archive}: damaged archive ({error}); delete it and run again") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


class _Member(tarfile.TarInfo):
    """A member of a tar whose extra header is refused if it would fill the memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > LONGEST_HEADER and self.type in b"LKxgX":
            raise BlaError(
                f"{tar.name!s}: a header of {self.size:,} bytes is refused; delete the archive and run again"
            )
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "r:*", tarinfo=_Member) as tar:
        members = _members(archive, tar)
        # a tar ends with two blocks of zeros; tarfile also stops, without an error, at a damaged header or a cut
        if tar.fileobj is None or tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it breaks off")
        _check_all(archive, [(m.name, m.isdir(), m.isreg() and not m.issparse(), m.size) for m in members])
        for member in tqdm(members, f"unpacking {archive.name}", disable=None):
            tar.extract(member, folder, filter="data")


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = []
        for member in zipped.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if packed on Windows
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not member.flag_bits & 1  # 1: encrypted
            is_folder = member.filename.endswith("/")  # is_dir() fails for ""
            members.append((member.filename, is_folder, plain, member.file_size))
        _check_all(archive, members)
        for member in tqdm(zipped.infolist(), f"unpacking {archive.name}", disable=None):
            zipped.extract(member, folder)


def _members(archive: Path, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The members of a tar, as far as they are not too large together."""
    members = []
    for member in tar:
        members.append(member)
        _check_size(archive, tar.offset)  # the end of the member's data, all headers included
    return members


def _check_all(archive: Path, members: list[tuple[str, bool, bool, int]]) -> None:
    """Raise BlaError unless all members (name, is a folder, is a plain file, size) are files and folders inside, each once."""
    names: dict[tuple[str, ...], str] = {(): "."}
    files = set()
    _check_size(archive, sum(size for *_, size in members))
    for name, is_folder, plain, _ in members:
        _check(archive, name, plain or is_folder)
        place = _place(name)
        if place in files or (place in names and not is_folder):
            raise BlaError(
                f"{archive}: {name!r} is refused, because {names[place]!r} has the same name on some systems"
            )
        names.setdefault(place, name)
        if not is_folder:
            files.add(place)
    for place, name in names.items():
        if above := next((place[:end] for end in range(1, len(place)) if place[:end] in files), None):
            raise BlaError(f"{archive}: {name!r} is refused, because {names[above]!r} is a file, not a folder")


def _place(name: str) -> tuple[str, ...]:
    """The parts of a member's path; equal for names that are one file on some systems."""
    parts = PureWindowsPath(unicodedata.normalize("NFC", name).casefold()).parts
    return tuple(short for part in parts if (short := part.rstrip(". ")))  # Windows drops dots and spaces at the end


def _check_size(archive: Path, total: int) -> None:
    """Raise BlaError if the unpacked files are larger than any archive of images."""
    largest = LARGEST_RATIO * archive.stat().st_size + 10_000_000
    if total > largest:
        raise BlaError(
            f"{archive}: more than {largest:,} bytes unpacked, {LARGEST_RATIO} times the archive; it is refused"
        )


def _check(archive: Path, name: str, plain: bool) -> None:
    path = PureWindowsPath(name)  # understands both kinds of slash, and drive letters
    if not plain:
        raise BlaError(f"{archive}: {name!r} is refused, because it is not a regular file or folder")
    if path.anchor or ".." in path.parts:
        raise BlaError(f"{archive}: {name!r} is refused, because it points outside the folder")
    if len(os.fsencode(name)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise BlaError(f"{archive}: {name[:50]!r}... is refused, because no disk takes a name of {len(name)} letters")
