"""Bytes that others made, read within bounds: files, gzip, members of archives."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Protocol

LIMIT = 1 << 30  # bytes of one file, unpacked
_CHUNK = 1 << 20
TORN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError)


class DataError(RuntimeError):
    """Data that is missing, damaged or of the wrong kind; the message says what to run."""


def read_file(path: Path, name: str | None = None, limit: int = LIMIT, words: str = "") -> bytes:
    """The content of a plain file of at most `limit` bytes; one that is a pipe or a device is not waited for.

    DataError calls it `name`, else by its path, and adds `words` where it cannot be read.
    """
    name = str(path) if name is None else name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{name}: cannot be read (not a plain file){words}")
            if found.st_size > limit:
                raise DataError(f"{name}: expected at most {limit:,} bytes, got {found.st_size:,}")
            content = file.read(found.st_size + 1)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}){words}") from None
    except ValueError as error:  # a path that no file can have, such as one with a zero byte
        raise DataError(f"{name!a}: cannot be read ({error}){words}") from None
    if len(content) > found.st_size:
        raise DataError(f"{name}: cannot be read (not a plain file, or it grows){words}")
    return content


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_some(stream: _Readable, most: int) -> bytes:
    """Up to `most` bytes of a stream that may hold more; memory grows with what comes."""
    chunks: list[bytes] = []
    while most > 0 and (chunk := stream.read(min(most, _CHUNK))):
        chunks.append(chunk)
        most -= len(chunk)
    return b"".join(chunks)


def opened(content: bytes) -> gzip.GzipFile | io.BytesIO:
    """A stream over `content`, unpacked as it is read where that is gzip."""
    return gzip.GzipFile(fileobj=io.BytesIO(content)) if content[:2] == b"\x1f\x8b" else io.BytesIO(content)


def gunzip(content: bytes, name: str, limit: int = LIMIT) -> bytes:
    """Unpacked; DataError for what is damaged or larger than `limit`."""
    try:
        return _within(gzip.GzipFile(fileobj=io.BytesIO(content)), name, limit)
    except DataError:
        raise
    except TORN as error:
        raise DataError(f"{name}: cannot be read ({error})") from None


def members(archive: bytes, name: str, wanted: list[str] | None = None, limit: int = LIMIT) -> dict[str, bytes]:
    """Files of a zip or tar archive by their names in it, at most `limit` bytes together; None: all of a zip archive.

    Nothing is written anywhere, so what a member calls itself decides nothing; links are not followed. DataError for
    an archive that is damaged, lacks one of them or holds more.
    """
    try:
        if archive[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
                return _read_all({each: wheel.open(each) for each in wanted or wheel.namelist()}, name, limit)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return _read_all({each: _plain(tar, each) for each in wanted or ()}, name, limit)
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{name}: {error.args[0]}") from None
    except TORN as error:
        raise DataError(f"{name}: cannot be read ({error})") from None


def _plain(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    member = tar.getmember(name)
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None:
        raise KeyError(f"expected {name!r} to be a file, got a link or folder")
    return stream


def _read_all(streams: dict[str, IO[bytes]], name: str, limit: int) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for each, stream in streams.items():
        with stream:
            contents[each] = _within(stream, f"{name}: {each}", limit)
        limit -= len(contents[each])
    return contents


def _within(stream: _Readable, name: str, limit: int) -> bytes:
    content = read_some(stream, limit + 1)
    if len(content) > limit:
        raise DataError(f"{name}: expected at most {limit:,} bytes unpacked, got more")
    return content
