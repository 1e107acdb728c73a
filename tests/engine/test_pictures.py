"""Picture files: what is opened, what is refused, and what they cost."""
import os
import stat
import struct
import sys
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from idea_engine.errors import BadImageError
from idea_engine.files.pictures import MAX_PIXELS, read_photo
from peak_memory import peak_memory

unix = pytest.mark.skipif(sys.platform == "win32", reason="measured with a Unix system call")


def grey_png(path, width, height, bits=8):
    """A PNG of one grey value; a few hundred kilobytes for any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\x80" * (width * bits // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def test_a_program_that_calls_itself_a_picture_is_not_run(tmp_path, monkeypatch):
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    marker = tmp_path / "was-run"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    photo = tmp_path / "anna.png"
    photo.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop\n%%EOF\n")
    started = time.monotonic()
    with pytest.raises(BadImageError, match="anna.png cannot be read as a picture"):
        read_photo(photo)
    assert not marker.exists() and time.monotonic() - started < 5


@pytest.mark.parametrize("ending", ["PPM", "TGA", "PCX", "SGI", "ICO", "QOI", "DDS"])
def test_only_formats_of_photographs_are_read(tmp_path, ending):
    path = tmp_path / "anna.png"
    Image.new("RGB", (32, 32), "red").save(path, ending)
    with pytest.raises(BadImageError, match="cannot be read as a picture"):
        read_photo(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "MPO"])
def test_photographs_of_every_usual_format_are_read(tmp_path, kind):
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "anna", kind)
    photo = read_photo(tmp_path / "anna")
    assert photo.shape == (30, 40, 3) and photo.dtype == torch.float32
    torch.testing.assert_close(photo[5, 5], torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)


@unix
def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = grey_png(tmp_path / "anna.png", 13_100, 13_000)
    assert path.stat().st_size < 600_000
    started = time.monotonic()
    grown, said = peak_memory("from idea_engine.files.pictures import read_photo", f"read_photo({str(path)!r})")
    assert said.startswith("BadImageError") and "13100 × 13000 pixels, expected at most 64 million" in said
    assert grown < 50e6 and time.monotonic() - started < 20


@unix
def test_the_largest_picture_takes_no_more_than_its_pixels(tmp_path):
    path = tmp_path / "anna.jpg"
    Image.new("RGB", (8000, 8000), "red").save(path)
    grown, said = peak_memory("from idea_engine.files.pictures import read_photo; import PIL.JpegImagePlugin", f"assert read_photo({str(path)!r}).shape == (8000, 8000, 3)")
    assert not said and grown < 20 * MAX_PIXELS


def test_a_telephones_largest_photograph_is_read_at_half_its_size(tmp_path):
    path = tmp_path / "anna.jpg"
    Image.new("L", (12_240, 12_000), 128).save(path, quality=30)
    assert read_photo(path).shape == (6000, 6120, 3)
    Image.new("L", (12_240, 12_000), 128).save(path, quality=30, progressive=True)
    with pytest.raises(BadImageError, match="expected at most 64 million"):
        read_photo(path)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_photographs_of_sixteen_bits_keep_their_greys(tmp_path, ending):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(32, 0)
    Image.fromarray(ramp).save(tmp_path / f"anna.{ending}")
    photo = read_photo(tmp_path / f"anna.{ending}")
    assert photo.shape == (32, 64, 3)
    torch.testing.assert_close(photo[0, :, 0], torch.linspace(0, 1, 64), atol=1e-4, rtol=0)
    dark = (ramp // 100).astype(np.uint16)
    Image.fromarray(dark).save(tmp_path / f"dark.{ending}")
    assert read_photo(tmp_path / f"dark.{ending}").max() < 0.02  # a dark picture stays dark


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_grey_photographs_of_numbers_with_a_point_are_read(tmp_path, scale):
    Image.fromarray((np.linspace(0, 1, 64, dtype=np.float32) * scale)[None].repeat(32, 0)).save(tmp_path / "anna.tif")
    torch.testing.assert_close(read_photo(tmp_path / "anna.tif")[0, :, 0], torch.linspace(0, 1, 64), atol=1e-4, rtol=0)


def test_values_that_are_no_numbers_are_black(tmp_path):
    Image.fromarray(np.array([[np.nan, np.inf], [-np.inf, 1.0]], dtype=np.float32).repeat(16, 0).repeat(16, 1)).save(tmp_path / "anna.tif")
    photo = read_photo(tmp_path / "anna.tif")
    assert photo[0, 0].tolist() == photo[0, -1].tolist() == photo[-1, 0].tolist() == [0.0] * 3 and photo[-1, -1].tolist() == [1.0] * 3


@pytest.mark.parametrize("bits", [8, 16])
def test_a_photograph_stands_upright_as_the_camera_noted_it(tmp_path, bits):
    pixels = np.zeros((20, 40), np.uint8 if bits == 8 else np.uint16)
    pixels[:, 30:] = 2**bits - 1
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    picture.save(tmp_path / "anna.png", exif=exif)
    photo = read_photo(tmp_path / "anna.png")
    assert photo.shape == (40, 20, 3) and photo[35:].min() == 1 and photo[:25].max() == 0


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture", b"GIF89a\xff\xff\xff\xff", b"BM" + b"\xff" * 60])
def test_what_is_no_picture_is_refused_with_a_sentence(tmp_path, content):
    path = tmp_path / "anna.png"
    path.write_bytes(content)
    with pytest.raises(BadImageError, match="anna.png (cannot be read as a picture|has .* pixels)") as error:
        read_photo(path)
    assert len(str(error.value)) < 500


def test_a_missing_photograph_is_named(tmp_path):
    with pytest.raises(BadImageError, match="anna.png cannot be opened: No such file"):
        read_photo(tmp_path / "anna.png")
