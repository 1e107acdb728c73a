"""What nodes take and give as IMAGE and MASK; needs no host."""
import base64
import io

import pytest
import torch
from bare_pack import bare_module

from idea_engine.errors import BadImageError


@pytest.fixture(scope="module")
def images():
    with bare_module("nodes.host.images") as module:
        yield module


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_colour_and_transparent_batches_become_rgb(images, channels):
    batch = torch.rand(2, 20, 30, channels)
    checked = images.check_images(batch, "Face Embed")
    assert checked.shape == (2, 20, 30, 3)
    assert torch.equal(checked, batch.expand(-1, -1, -1, 3) if channels == 1 else batch[..., :3])


@pytest.mark.parametrize(
    "image, words",
    [
        (torch.rand(20, 30, 3), "expected at least one picture"),
        (torch.rand(0, 20, 30, 3), "expected at least one picture"),
        ("anna.png", "the shape str"),
        (torch.rand(1, 20, 30, 2), "1, 3 or 4 channels"),
        (torch.rand(1, 1, 1, 3), "1×1 pixels"),
        (torch.rand(1, 15, 64, 3), "64×15 pixels"),
        (torch.full((1, 32, 32, 3), float("inf")), "not finite"),
    ],
)
def test_a_bad_batch_is_refused_in_the_name_of_the_node(images, image, words):
    with pytest.raises(BadImageError, match=f"^Face Embed.*{words}"):
        images.check_images(image, "Face Embed")


def test_the_bad_picture_of_a_batch_is_named(images):
    batch = torch.rand(3, 32, 32, 3)
    batch[1, 4, 4, 0] = float("nan")
    with pytest.raises(BadImageError, match="picture 2 of 3"):
        images.check_images(batch, "Face Embed")


def test_masks_of_different_sizes_share_a_batch_and_keep_their_pixels(images):
    masks = images.mask_batch([torch.ones(4, 6), torch.full((5, 3), 0.5)])
    assert masks.shape == (2, 5, 6)
    assert masks[0, :4].eq(1).all() and masks[0, 4].eq(0).all()
    assert masks[1, :, :3].eq(0.5).all() and masks[1, :, 3:].eq(0).all()


def test_a_drawing_becomes_an_image(images):
    from PIL import Image

    made = images.to_image(Image.new("L", (8, 4), 255))
    assert made.shape == (1, 4, 8, 3) and made.eq(1).all() and made.dtype == torch.float32


def test_a_thumbnail_is_a_small_jpeg(images):
    from PIL import Image

    kind, data = images.to_data_url(torch.rand(2, 600, 900, 3)).split(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64" and picture.size == (256, 171)
