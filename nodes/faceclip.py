"""FaceCLIPLoader and FaceCLIPEncode: one face and one prompt, read together; no training."""
from __future__ import annotations

from ..idea_engine.errors import BadImageError, FaceCLIPInputError
from .host.faceclip import DEMO, PRECISIONS, files
from .sockets import CATEGORY, FACECLIP, IMAGE_OR_FACE

SEVERAL = ("blend into one person", "one picture each")
_NEARLY_SQUARE = 1.1  # longer side through shorter; a face stretched further is another face
_LARGE = 256  # pixels; Face Embed's crops have 112, so what is larger came from elsewhere


class FaceCLIPLoader:
    """File, precision → FaceCLIP encoder."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Loads a FaceCLIP encoder, which takes the place of SDXL's text encoders and reads a face together with the prompt. The published weights "
        "(face_clip_encoder.pt of ByteDance/FaceCLIP, in models/faceclip) are CC BY-NC 4.0: non-commercial use only. Load their UNet with "
        f"Load Diffusion Model. '{DEMO}' ships with this pack and belongs to Load Demo Model."
    )
    FUNCTION = "load"
    RETURN_TYPES = (FACECLIP, "STRING")
    RETURN_NAMES = ("faceclip", "licence")
    OUTPUT_TOOLTIPS = ("The encoder, for FaceCLIP Encode.", "The licence of the weights in words.")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "file": (files(), {"tooltip": (
                    "A file in models/faceclip: the published face_clip_encoder.pt, or a .safetensors converted from it. Published weights are "
                    "CC BY-NC 4.0."
                )}),
                "precision": (list(PRECISIONS), {"default": PRECISIONS[0], "tooltip": (
                    "How the weights are held and computed. auto: bf16 where the device is good at it, else fp16, and fp32 on a CPU. "
                    "Published in bf16 (3.1 GB)."
                )}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file):
        # Naming `file` here replaces the host's own 'value not in list', so that the user reads where files are expected.
        from ..idea_engine.errors import IdeaError
        from .host.faceclip import state

        if file is None:  # connected: known when the graph runs
            return True
        try:
            state(file)
        except IdeaError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, file, precision):
        from .host.faceclip import state

        return float("nan") if file is None else state(file)  # connected: asked anew each time, and answered from memory

    def load(self, file, precision):
        from .host.faceclip import load

        loaded = load(file, precision)
        return {"ui": {"text": [f"Licence: {loaded.licence}"]}, "result": (loaded, loaded.licence)}


class FaceCLIPEncode:
    """FaceCLIP, face, prompt → conditioning."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Reads a face and a prompt together and gives ordinary CONDITIONING for the FaceCLIP UNet: combine it, mask it, limit it in time, add a "
        "ControlNet. Write the prompt as if the person were anybody: 'a woman in a blue shirt on a desert plateau'. Nothing is trained."
    )
    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    OUTPUT_TOOLTIPS = ("The person in the scene of the prompt.", "The negative prompt, without a face: what the weights were published with.")

    @classmethod
    def INPUT_TYPES(cls):
        pixels = {"min": 0, "max": 16384, "step": 8}
        return {
            "required": {
                "faceclip": (FACECLIP, {"tooltip": "From Load FaceCLIP."}),
                "prompt": ("STRING", {"default": "", "multiline": True, "dynamicPrompts": True, "tooltip": (
                    "The scene. (word:1.2) weighs words; prompts longer than 77 tokens are read in several pieces that all know the face."
                )}),
                "negative_prompt": ("STRING", {"default": "", "multiline": True, "dynamicPrompts": True, "tooltip": (
                    "What should not be there; read without a face."
                )}),
                "width": ("INT", {"default": 864, **pixels, "tooltip": "SDXL's size condition: the width you generate at."}),
                "height": ("INT", {"default": 1152, **pixels, "tooltip": "SDXL's size condition: the height you generate at."}),
                "crop_w": ("INT", {"default": 0, **pixels, "tooltip": "SDXL's crop condition; 0 = nothing is cut off at the left."}),
                "crop_h": ("INT", {"default": 0, **pixels, "tooltip": "SDXL's crop condition; 0 = nothing is cut off at the top."}),
                "target_width": ("INT", {"default": 0, **pixels, "tooltip": "SDXL's target size; 0 = width."}),
                "target_height": ("INT", {"default": 0, **pixels, "tooltip": "SDXL's target size; 0 = height."}),
                "several": (list(SEVERAL), {"default": SEVERAL[0], "tooltip": (
                    "Several faces: blend them into one person (photographs of one person, or a mix of people), or give one row each, for a "
                    "batch of latents with one person per picture."
                )}),
            },
            "optional": {
                "face": (IMAGE_OR_FACE, {"tooltip": (
                    "The face or crops output of Face Embed, or a square picture of an upright face that fills it. Without it the prompt is read alone."
                )}),
                "face_weights": ("STRING", {"default": "", "tooltip": (
                    "How much each face counts when blending, such as 0.7, 0.3. Empty = equally; faces of Face Embed by their quality."
                )}),
            },
        }

    def encode(
        self, faceclip, prompt, negative_prompt, width, height, crop_w, crop_h, target_width, target_height, several, face=None, face_weights=""
    ):
        pixels, weights = _faces(face)
        blended = pixels is not None and several == SEVERAL[0]
        blend = _weights(face_weights, weights) if blended else None
        size = {"width": width, "height": height, "crop_w": crop_w, "crop_h": crop_h,
                "target_width": target_width or width, "target_height": target_height or height}
        outputs = []
        for faces, text, shares in ((pixels, prompt, blend), (None, negative_prompt, None)):
            fused, pooled = faceclip.encode(faces, text, shares)
            outputs.append([[fused, {"pooled_output": pooled, **size}]])
        return {"ui": {"text": [_said(pixels, blended, face_weights)]}, "result": tuple(outputs)}


def _said(pixels, blended: bool, face_weights: str) -> str:
    """What was read, and what of the settings did not count."""
    count = 0 if pixels is None else len(pixels)
    people = ", blended into one person" if blended else ", one picture each"
    lines = ["Read without a face." if not count else "Read with one face." if count == 1 else f"Read with {count} faces{people}."]
    if face_weights.strip() and not blended:
        why = f"several is '{SEVERAL[1]}'" if count else "no face is connected"
        lines.append(f"face_weights did not count, because {why}.")
    if count and max(pixels.shape[-2:]) > _LARGE:
        height, width = pixels.shape[-2:]
        lines.append(
            f"The picture of {width} × {height} pixels was taken as an upright face that fills it. If it is a whole photograph, connect the crops "
            "output of Face Embed instead."
        )
    return "\n".join(lines)


def _faces(face):
    """(F, 3, H, W) in 0..1 and a weight per face, from what is connected; None and no weights from nothing.

    Raises:
        BadImageError: a picture is far from square.
    """
    from ..idea_engine.faces.embedding import FaceEmbedding
    from .host.images import check_images

    if face is None:
        return None, []
    if isinstance(face, FaceEmbedding):
        return face.crops.permute(0, 3, 1, 2).float(), face.weights.tolist()
    pictures = check_images(face, "FaceCLIP Encode")
    height, width = pictures.shape[1:3]
    if max(height, width) > _NEARLY_SQUARE * min(height, width):
        raise BadImageError(
            f"FaceCLIP Encode got a picture of {width} × {height} pixels, expected a square one that an upright face fills. Connect the crops "
            "output of Face Embed, or crop the picture."
        )
    return pictures.permute(0, 3, 1, 2), [1.0] * len(pictures)


def _weights(text: str, default: list[float]) -> list[float]:
    """'0.7, 0.3' → [0.7, 0.3].

    Raises:
        FaceCLIPInputError: no numbers, another number of them than of faces, or none of them positive.
    """
    if not text.strip():
        return default
    try:
        weights = [float(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        weights = []
    if len(weights) != len(default) or any(not 0 <= weight < 1e6 for weight in weights) or not sum(weights):
        raise FaceCLIPInputError(
            f"face_weights is '{text}', but {len(default)} face{'s are' if len(default) > 1 else ' is'} connected: expected as many numbers, 0 or "
            "more and not all 0, with commas between them. Empty counts all faces alike."
        )
    return weights
