"""Picture files of users: read within bounds, on white, at the size that a network wants."""

from __future__ import annotations

import io
import itertools
import warnings
from pathlib import Path

import numpy as np

from fusedrnn.data.reading import DataError, read_file
from fusedrnn.data.sources import Bytes
from fusedrnn.extras import needed_for

_LIMIT = 1 << 28  # bytes of a file


def read_picture(path: Path, shape: tuple[int, int, int]) -> Bytes:
    """Read a picture file of any kind that Pillow knows: uint8 of a shape (rows, columns, 1 or 3).

    What is transparent is white. The whole picture is shown in the middle of white paper of the shape's proportions.

    Raises:
        DataError: There is no such file, or it is no picture. ModuleNotFoundError: Pillow is missing.
    """
    with needed_for("a picture", "train"):
        from PIL import Image, ImageOps, UnidentifiedImageError
    content = read_file(path, limit=_LIMIT)
    rows, columns, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            found = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
            picture = found.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = "of no kind that Pillow knows" if isinstance(error, UnidentifiedImageError) else f"{error!s:.80}"
        raise DataError(f"{path}: expected a picture, got a file that cannot be read as one ({reason})") from None
    scale = max(picture.width / columns, picture.height / rows)
    paper = Image.new("RGBA", (max(1, round(scale * columns)), max(1, round(scale * rows))), "white")
    paper.alpha_composite(picture, ((paper.width - picture.width) // 2, (paper.height - picture.height) // 2))
    plain = paper.convert("RGB" if channels == 3 else "L")
    sized = plain.resize((columns, rows), Image.Resampling.BOX if scale >= 1 else Image.Resampling.BILINEAR)
    return np.asarray(sized).reshape(shape)


def free_path_beside(path: Path, ending: str) -> Path:
    """Return a path beside a file that nothing has: its name without suffix and an ending such as ``-attention.png``,
    if need be with a number."""
    stem, _, suffix = f"{path.stem}{ending}".rpartition(".")
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(other for name in names if not (other := path.with_name(f"{name}.{suffix}")).exists())
