"""Files out of packages of Debian: only what is pinned is unpacked, nothing is run, what is missing is said."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import urllib.error
from types import SimpleNamespace

import pytest

from fusedrnn.data import debian, sources
from fusedrnn.data.reading import DataError

CONTENT = b"what is wanted" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEMBER = "/usr/share/thing/f.bin"


def tarred(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def deb(files, name="data.tar.xz"):
    """A package as dpkg-deb writes it: members of odd length are followed by a line end."""
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, tarred(files))]
    whole = b"!<arch>\n"
    for title, content in parts:
        whole += f"{title:16}{'0':12}{'0':6}{'0':6}{'100644':8}{len(content):<10}`\n".encode()
        whole += content + b"\n" * (len(content) % 2)
    return whole


GOOD = deb({"./usr/share/doc/thing": b"x", f".{MEMBER}": CONTENT})
PACKAGE = debian.Package("t/thing/thing_1.0-2+deb12u1_all.deb", hashlib.sha256(GOOD).hexdigest())


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """An empty cache; ``mirrors[url]`` is what comes from there, all else is not found. No apt-get."""
    served, asked = {}, []
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path / "cache"))

    def urlopen(url, timeout):
        asked.append(url)
        if url not in served:
            raise urllib.error.URLError("no such host")
        return io.BytesIO(served[url])

    def run(*rest, **named):
        raise FileNotFoundError(2, "No such file or directory", "apt-get")

    monkeypatch.setattr(debian, "urlopen", urlopen)
    monkeypatch.setattr(debian, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))
    served["asked"] = asked
    return served


def url(mirror):
    return f"{mirror}/pool/main/t/thing/thing_1.0-2%2Bdeb12u1_all.deb"


def fetch(say=lambda line: None, package=PACKAGE, member=MEMBER):
    path = sources.cache_folder() / "thing" / "f.bin"
    return debian.fetched_file(path, SHA256, package, member, "a thing", say)


def test_a_file_is_taken_out_of_its_package_once(mirrors):
    mirrors[url(debian.MIRRORS[0])] = GOOD
    said = []
    assert fetch(said.append) == CONTENT
    assert said == [f"fetching a thing, package thing==1.0-2+deb12u1, into {sources.cache_folder() / 'thing'}"]
    assert fetch(pytest.fail) == CONTENT
    assert len(mirrors["asked"]) == 1


def test_the_second_mirror_has_what_the_first_dropped_or_changed(mirrors):
    mirrors[url(debian.MIRRORS[0])] = deb({f".{MEMBER}": b"another version"})
    mirrors[url(debian.MIRRORS[1])] = GOOD
    assert fetch() == CONTENT


def test_apt_is_asked_where_no_mirror_answers(mirrors, monkeypatch):
    def run(command, cwd, **rest):
        assert command == ["apt-get", "download", "-q", "thing=1.0-2+deb12u1"]
        (cwd / "thing_1.0-2+deb12u1_all.deb").write_bytes(GOOD)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(debian.subprocess, "run", run)
    assert fetch() == CONTENT


def test_what_is_missing_is_said_and_what_to_run(mirrors, monkeypatch):
    message = (
        r"could not fetch a thing, of thing==1\.0-2\+deb12u1: http://deb\.debian\.org/.*: no such host; .*apt-get.*"
        r"On a Debian system: apt-get install thing=1\.0-2\+deb12u1; "
        r"else put its file /usr/share/thing/f\.bin at .*f\.bin"
    )
    with pytest.raises(DataError, match=message):
        fetch()
    refused = SimpleNamespace(returncode=100, stderr="W: slow\nE: Unable to locate package thing\n")
    monkeypatch.setattr(debian.subprocess, "run", lambda *rest, **named: refused)
    with pytest.raises(DataError, match=r"apt-get download .*: E: Unable to locate package thing\."):
        fetch()


def test_what_is_not_pinned_is_not_unpacked(mirrors, monkeypatch):
    other = deb({f".{MEMBER}": CONTENT, "./more": b""})
    for mirror in debian.MIRRORS:
        mirrors[url(mirror)] = other
    monkeypatch.setattr(debian, "unpack", lambda *rest: pytest.fail("unpacked"))
    with pytest.raises(DataError, match="has not the hash that is pinned"):
        fetch()


def test_an_installed_package_counts_if_it_is_the_pinned_one(mirrors, tmp_path):
    installed = tmp_path / "f.bin"
    installed.write_bytes(CONTENT)
    assert fetch(pytest.fail, member=str(installed)) == CONTENT
    installed.write_bytes(b"of another version")
    with pytest.raises(DataError, match="no such host"):
        fetch(member=str(installed))


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"PK\x03\x04", "not a package of Debian, it begins with 50 4b 03 04"),
        (b"", "not a package of Debian, it begins with nothing"),
        (GOOD[:100], r"damaged at byte 72"),
        (GOOD[:-100], "it ends within a member"),
        (deb({}, "data.tar.zst"), r"expected a member data\.tar\.xz, got none"),
        (deb({"./usr/other": b""}), r"usr/share/thing/f\.bin"),
        (GOOD[:260] + bytes(64) + GOOD[324:], "cannot be read"),
    ],
)
def test_damaged_packages(archive, message):
    with pytest.raises(DataError, match=f"it: .*{message}"):
        debian.unpack(archive, MEMBER, "it")
