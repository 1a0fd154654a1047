"""The files of a published data set: found, checked against their sha256, and downloaded."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import tarfile
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from depthscale.answers import InputError
from depthscale.files import whole
from depthscale.practice.images.sources import SOURCES, Content, Download, Source

PIECE = 1 << 20
WAIT = 60  # seconds without a byte after which a server is given up


class Readable(Protocol):
    """A file or an answer of a server, as far as it is read here."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        ...


def places(source: Source, name: str, folder: str | Path | None) -> list[Path]:
    """Return the folders in which a data set is looked for, best first.

    ``folder``, ``$DEPTHSCALE_DATA/<name>``, the user's cache, those of the system's packages.
    """
    given = [] if folder is None else [Path(folder).expanduser()]
    return [*given, *_own(name), *source.system]


def _own(name: str) -> Iterator[Path]:
    shared = os.environ.get("DEPTHSCALE_DATA")
    if shared:
        yield Path(shared).expanduser() / name
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    yield (cache if cache.is_absolute() else Path("~/.cache").expanduser()) / "depthscale" / name


def read(source: Source, folder: Path) -> dict[str, bytes] | None:
    """Return the checked bytes of every file of a data set in ``folder``, None where one is absent.

    Files may be unpacked, or packed as published; unpacked ones come first.

    Raises:
        InputError: a file that is damaged, or not the one published under its name.
    """
    if missing(source, folder):
        return None
    found: dict[str, bytes] = {}
    for download in source.downloads:
        loose = _loose(source, folder, download)
        for path, content in zip(loose, download.contents, strict=False):
            with _reported(path), path.open("rb") as file:
                found[content.name] = _take(file, content, str(path))
        packed = _file(source, folder, download.packed)
        if not loose and packed is not None:
            found.update(_unpack(packed, download))
    return found


def missing(source: Source, folder: Path) -> list[Download]:
    """Return the downloads of which ``folder`` holds neither the packed nor all unpacked files."""
    return [
        download
        for download in source.downloads
        if not _loose(source, folder, download) and not _file(source, folder, download.packed)
    ]


def fetch(address: str, packed: Content, folder: Path) -> Path:
    """Download one file into ``folder``, and return its path there.

    It is written under another name and takes its own once its length and sha256 are right, so that
    a file that is there is whole, also where several processes fetch it at once. What is not right
    is deleted.

    Raises:
        InputError: no answer, a foreign file, or a folder that cannot be written to.
    """
    url, path = address + packed.name, folder / packed.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            with urllib.request.urlopen(url, timeout=WAIT) as answer, partial.open("xb") as file:
                size, sha256 = _copy(answer, file, packed.size)
            if (size, sha256) != (packed.size, packed.sha256):
                more = " or more" if size > packed.size else ""
                raise InputError(
                    f"data: {url} sent {size:,}{more} bytes with sha256 {sha256}; expected "
                    f"{packed.size:,} with {packed.sha256}. Nothing was kept; try again, or get "
                    "the file from elsewhere"
                )
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"data: {url} could not be downloaded into {folder} ({error or type(error).__name__}); "
            "try again, or put the file there yourself"
        ) from error
    return path


def _copy(answer: Readable, file: IO[bytes], most: int) -> tuple[int, str]:
    """Copy up to one piece more than ``most`` bytes; return how many, and their sha256."""
    digest, size = hashlib.sha256(), 0
    while size <= most and (piece := answer.read(PIECE)):
        digest.update(piece)
        size += file.write(piece)
    return size, digest.hexdigest()


def _loose(source: Source, folder: Path, download: Download) -> list[Path]:
    """Return the unpacked files of a download, none of them where one is absent."""
    paths = [_file(source, folder, content) for content in download.contents]
    return [path for path in paths if path is not None] if None not in paths else []


def _file(source: Source, folder: Path, content: Content) -> Path | None:
    candidates = (folder / inside / content.name for inside in source.inside)
    return next((path for path in candidates if path.is_file()), None)


def _unpack(path: Path, download: Download) -> dict[str, bytes]:
    """Read the contents of a .gz or .tar.gz file; nothing is written, and no path is followed."""
    if not path.name.endswith(".tar.gz"):
        (only,) = download.contents
        with _reported(path), gzip.open(path) as file:
            return {only.name: _take(file, only, str(path))}
    wanted = {content.name: content for content in download.contents}
    found: dict[str, bytes] = {}
    with _reported(path), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            content = wanted.get(member.name.rpartition("/")[2])
            packed = archive.extractfile(member) if content and member.isreg() else None
            if content is None or packed is None:
                continue
            found[content.name] = _take(packed, content, f"{content.name} in {path}")
            if len(found) == len(wanted):
                return found
    raise InputError(
        f"data: {path} lacks {', '.join(sorted(set(wanted) - set(found)))}; it is not the file "
        "that was published under this name, get it again"
    )


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what a damaged or unreadable file raises into an InputError with its path."""
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(
            f"data: {path} cannot be read, it is damaged or incomplete "
            f"({error or type(error).__name__}); delete it and get it again"
        ) from error


def _take(file: Readable, content: Content, where: str) -> bytes:
    """Read a file of known length and sha256, at most a byte more than it should hold."""
    data = file.read(content.size + 1)
    if len(data) != content.size:
        held = f"{len(data):,}" if len(data) < content.size else f"more than {content.size:,}"
        raise InputError(
            f"data: {where} holds {held} bytes, the published file {content.size:,}; delete it and "
            "get it again"
        )
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != content.sha256:
        raise InputError(
            f"data: {where} has the sha256 {sha256}, expected {content.sha256}: it "
            f"{_foreign(sha256)}"
        )
    return data


def _foreign(sha256: str) -> str:
    """Say what a file is that is not the one expected."""
    for name, source in SOURCES.items():
        if sha256 in [content.sha256 for content in source.contents]:
            return f"is that of {source.title}; load {name!r} from this folder, or name another one"
    return (
        "differs from the published file; delete it and get it again, or load a file of your own "
        "by its path"
    )
