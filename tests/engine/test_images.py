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


def test_pictures_of_a_list_keep_their_sizes_and_their_order(images):
    batches = [torch.rand(2, 20, 30, 3), torch.rand(1, 40, 16, 1)]
    checked = images.check_pictures(batches, "Face Embed")
    assert [tuple(one.shape) for one in checked] == [(20, 30, 3), (20, 30, 3), (40, 16, 3)]
    assert torch.equal(checked[1], batches[0][1]) and torch.equal(checked[2][..., 2], batches[1][0, ..., 0])


def test_the_bad_picture_of_a_list_is_named_by_its_place_among_all(images):
    with pytest.raises(BadImageError, match="picture 3 of 3"):
        images.check_pictures([torch.rand(2, 32, 32, 3), torch.full((1, 32, 32, 3), float("nan"))], "Face Embed")


@pytest.mark.parametrize("nothing", [None, [], ["anna.png"]])
def test_no_picture_at_all_is_a_sentence(images, nothing):
    with pytest.raises(BadImageError, match="^Face Embed got an image of the shape .*expected at least one picture"):
        images.check_pictures(nothing, "Face Embed")


def test_a_drawing_becomes_an_image(images):
    from PIL import Image

    made = images.to_image(Image.new("L", (8, 4), 255))
    assert made.shape == (1, 4, 8, 3) and made.eq(1).all() and made.dtype == torch.float32


def test_a_thumbnail_is_a_small_jpeg(images):
    from PIL import Image

    kind, data = images.to_data_url(torch.rand(2, 600, 900, 3)).split(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64" and picture.size == (256, 171)
