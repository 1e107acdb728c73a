"""Every picture file that we open ourselves is opened here: only as a picture, never larger than memory allows, upright."""
from __future__ import annotations

import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

import torch
from torch import Tensor

from ..errors import BadImageError
from .foreign_text import shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif", ".mpo", ".heic", ".heif")
# Pillow chooses the reader by a file's content, and some of its readers start programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "MPO", "HEIF")
MAX_PIXELS = 64_000_000  # decoded: 16 bytes a pixel until the end; cameras of 2026 make 50 as a rule
MAX_JPEG_PIXELS = 4 * MAX_PIXELS  # a JPEG can be decoded at half its sides without the whole; telephones make 200 million
_BIT_DEPTHS = (1.0, 255.0, 65535.0, 2.0**31 - 1)  # full white, of grey pictures with more than eight bits


@contextmanager
def open_picture(path: Path | str) -> Iterator:
    """The PIL picture of a file, not decoded yet; a JPEG of more than MAX_PIXELS is going to be decoded at half its sides.

    Raises:
        BadImageError: the file is no picture of FORMATS, or one of too many pixels; also while it is decoded inside the ``with``.
    """
    from PIL import Image

    with suppress(ImportError):
        import pillow_heif  # iPhones' pictures, where somebody has installed it

        pillow_heif.register_heif_opener()
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decompression bombs: we have limits of our own
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as picture:
                _limit(picture)
                yield picture
    except BadImageError:
        raise
    except OSError as error:
        if error.strerror is not None:  # missing, no permission
            raise BadImageError(f"{shown(path)} cannot be opened: {error.strerror}.") from error
        raise _unreadable(path, error) from error
    except Exception as error:  # Pillow raises its own classes, and those of every decoder
        raise _unreadable(path, error) from error


def read_photo(path: Path | str) -> Tensor:
    """(H, W, 3) float32 in 0..1, upright as the camera noted it; transparency is dropped, of several pictures in a file the first is taken.

    Raises:
        BadImageError: the file is not a readable picture, or one of too many pixels.
    """
    import numpy as np
    from PIL import ImageOps

    with open_picture(path) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        upright = picture
        if upright.mode == "F" or upright.mode.startswith("I"):  # convert("RGB") would cut everything above 255 to white
            grey = np.nan_to_num(np.asarray(upright).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
            white = next((depth for depth in _BIT_DEPTHS if grey.max() <= depth), float(grey.max()))
            white = white if upright.mode == "F" else max(white, 65535.0)
            return torch.from_numpy(grey).div_(white).clamp_(0.0, 1.0)[:, :, None].repeat(1, 1, 3)
        upright = upright if upright.mode == "RGB" else upright.convert("RGB")
        return torch.from_numpy(np.asarray(upright).astype(np.float32)).div_(255.0)


def _limit(picture) -> None:
    """Raises: BadImageError: too many pixels to be decoded."""
    pixels = picture.width * picture.height
    # A progressive JPEG is held whole while it is decoded, at whatever size.
    if picture.format in ("JPEG", "MPO") and MAX_PIXELS < pixels <= MAX_JPEG_PIXELS and not picture.info.get("progressive"):
        picture.draft(None, (picture.width // 2, picture.height // 2))
    if picture.width * picture.height > MAX_PIXELS:
        raise BadImageError(
            f"{shown(picture.filename)} has {picture.width} × {picture.height} pixels, expected at most {MAX_PIXELS // 1_000_000} million. "
            "Save it smaller: faces and trainings need no more than 2048 a side."
        )


def _unreadable(path: Path | str, error: Exception) -> BadImageError:
    heic = " HEIC files need the Python package pillow-heif." if str(path).lower().endswith((".heic", ".heif")) else ""
    return BadImageError(f"{shown(path)} cannot be read as a picture ({shown(error, 120)}). Save it again as PNG or JPEG.{heic}")
