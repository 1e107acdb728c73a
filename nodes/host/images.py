"""What a host calls IMAGE and MASK: batches, checked before the engine sees them and made from what it returns."""
from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

from ...idea_engine.errors import BadImageError
from ...idea_engine.faces.photo import check_photo
from .lists import as_lists

_THUMBNAIL_SIDE = 256  # pixels; about 15 kB in the header of an identity file


def check_pictures(images: Sequence[Tensor] | None, node: str) -> list[Tensor]:
    """Every picture of a list of IMAGE batches, whatever their sizes, as :func:`check_images` gives them: (H, W, 3) each, in their order.

    Raises:
        BadImageError: see :func:`check_images`; a picture is named by its place among all of them.
    """
    pictures = [picture for image in images or [None] for picture in _batch(image, node)]
    return [check_photo(picture, f"{node}: picture {number} of {len(pictures)}") for number, picture in enumerate(pictures, 1)]


def check_images(image: Tensor, node: str) -> Tensor:
    """An IMAGE batch that the engine can use.

    Args:
        image: (B, H, W, 1 | 3 | 4) float, 0..1.
        node: display name, for the sentence.

    Returns:
        (B, H, W, 3) float32 in 0..1: grey is repeated, transparency is dropped.

    Raises:
        BadImageError: no batch, wrong channels, smaller than 16 pixels a side, or not finite.
    """
    return torch.stack(check_pictures([image], node))


def _batch(image: Tensor, node: str) -> Tensor:
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[0] == 0:
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise BadImageError(
            f"{node} got an image of the shape {shape}, expected at least one picture as batch × height × width × channels. "
            "Connect an IMAGE output such as that of Load Image."
        )
    return image


def to_image(pictures) -> Tensor:
    """One picture, or several of any sizes, as an IMAGE (B, H, W, 3) float32 in 0..1.

    Args:
        pictures: (H, W, 3) tensor in 0..1 or PIL image, or a list of them; smaller ones keep their pixels and gain black to the right
            and below.
    """
    pictures = [_to_tensor(picture) for picture in (pictures if isinstance(pictures, (list, tuple)) else [pictures])]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    batch = torch.zeros(len(pictures), height, width, pictures[0].shape[2])
    for row, picture in zip(batch, pictures):
        row[: picture.shape[0], : picture.shape[1]] = picture
    return batch


def some_pictures(pictures: Sequence[Tensor], chosen: Sequence[int]) -> list:
    """The chosen pictures (H, W, 3), for an output that is a list. When there are none, whatever is connected is not run. Hosts
    of 2024 cannot do that, and their nodes cannot take an empty batch: there it is one black picture."""
    if chosen:
        return as_lists([pictures[index] for index in chosen])
    blocked = not_run(1)
    return [torch.zeros_like(pictures[0])[None]] if blocked is None else [blocked[0]]


def not_run(outputs: int) -> tuple | None:
    """Values for outputs of which the host does not run what is connected to them; None where it cannot do that, as hosts of 2024."""
    try:
        from comfy_execution.graph_utils import ExecutionBlocker
    except ImportError:
        try:
            from comfy_execution.graph import ExecutionBlocker  # where ComfyUI had it until the summer of 2025
        except ImportError:
            return None
    return (ExecutionBlocker(None),) * outputs


def _to_tensor(picture) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    import numpy as np

    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0)


def to_data_url(image: Tensor) -> str:
    """The first picture of an IMAGE as a small JPEG ``data:`` URL, for the header of an identity file.

    Raises:
        BadImageError: see :func:`check_images`.
    """
    import base64
    import io

    from PIL import Image

    pixels = (check_images(image, "Save Identity")[0] * 255.0).round().to("cpu", torch.uint8).numpy()
    picture = Image.fromarray(pixels)
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
