"""LoadFaceModel and FaceEmbed: photograph → face embedding."""
from __future__ import annotations

from ..idea_engine.errors import FaceModelError
from ..idea_engine.faces.embed import CHOICES, ON_MISSING, doubts, embed_faces, search_photos
from ..idea_engine.faces.execution_provider import PROVIDERS
from ..idea_engine.faces.pack import DEMO_DETECTION_SIZE
from ..idea_engine.faces.preview import draw_preview
from .host import paths
from .host.images import check_pictures, to_image
from .host.lists import as_lists, one_person
from .sockets import CATEGORY, FACE, FACE_MODEL


class LoadFaceModel:
    """Pack folder, provider, detection size → face model."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Opens a face pack of insightface: a detector and a recognizer. Packs are found in every insightface model folder, at any depth. "
        "The packs that insightface publishes are for non-commercial research only; the licence of the chosen pack is the second output."
    )
    FUNCTION = "load"
    RETURN_TYPES = (FACE_MODEL, "STRING")
    RETURN_NAMES = ("face_model", "licence")
    OUTPUT_TOOLTIPS = ("The opened face pack, for Face Embed.", "The licence of the pack in words. It is stored in every identity made with it.")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "pack": (
                    paths.face_pack_names(),
                    {"tooltip": "A folder with a face detector and a face recognizer (.onnx) below models/insightface, such as buffalo_l or antelopev2. "
                     f"'{paths.DEMO}' comes with this node pack; it knows drawn faces only, those of Load Demo Model."},
                ),
                "provider": (
                    list(PROVIDERS),
                    {"default": "auto", "tooltip": "Where the face models run. auto takes the fastest that really works here and falls back to the CPU."},
                ),
                "detection_size": (
                    "INT",
                    {
                        "default": 640,
                        "min": 64,
                        "max": 2048,
                        "step": 32,
                        "tooltip": "Photographs are fitted to this size before faces are looked for. Larger finds smaller faces and takes longer. "
                        f"The Portrait World's pack is never asked for more than {DEMO_DETECTION_SIZE}, which its faces need.",
                    },
                ),
            },
            "optional": {
                "allow_download": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "Off: nothing is ever downloaded. On: a missing pack is fetched from insightface (about 300 MB, non-commercial research only).",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, pack, allow_download=False):
        # Naming `pack` here replaces the host's own 'value not in list', so that the user reads where packs are expected.
        if allow_download or pack is None or allow_download is None:  # None = connected: known when the graph runs
            return True
        try:
            paths.face_pack_folder(pack)
        except FaceModelError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, pack, provider, detection_size, allow_download=False):
        if pack is None:  # connected: which pack it will be cannot be asked before the graph runs
            return float("nan")
        folder = paths.face_packs().get(pack)
        if folder is None:
            return "missing"
        from ..idea_engine.files.fingerprint import content_key

        # Size and time stand for the content: a pack is hundreds of megabytes and this is asked at every queue.
        files = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file())
        return content_key(str(folder), files)

    def load(self, pack, provider, detection_size, allow_download=False):
        from ..idea_engine.faces.insightface_encoder import download_face_pack, load_face_model

        if allow_download and pack not in paths.face_packs():
            folder = download_face_pack(pack, paths.face_folders()[0])
        else:
            folder = paths.face_pack_folder(pack)
        text = ""
        if pack == paths.DEMO and detection_size > DEMO_DETECTION_SIZE:
            detection_size = DEMO_DETECTION_SIZE
            text = f" Faces are looked for at {detection_size}, the size this pack was made for."
        encoder = load_face_model(folder, provider, detection_size, paths.face_folders())
        return {"ui": {"text": [f"Licence: {encoder.licence}{text}"]}, "result": (encoder, encoder.licence)}


class FaceEmbed:
    """Face model, photographs → face embedding, aligned crops, masks, numbered preview."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Finds the face in each photograph and measures who it is. Several photographs of one person are averaged, sharp and confident ones "
        "counting more. Where no face is found it looks again: padded, at smaller sizes, turned. The preview numbers every face. The node says "
        "so where it is not certain that it is a face."
    )
    FUNCTION = "embed"
    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (False, False, True, False)
    RETURN_TYPES = (FACE, "IMAGE", "MASK", "IMAGE")
    RETURN_NAMES = ("face", "crops", "masks", "preview")
    OUTPUT_TOOLTIPS = (
        "The person, for ID Enhancer.",
        "The chosen faces, upright, 112×112, as the recognizer sees them.",
        "A soft mask of the chosen face, one per photograph in which it was found; a list where the photographs have different sizes.",
        "The photographs with numbered boxes, no larger than 1024 pixels; the chosen face is green.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "face_model": (FACE_MODEL, {"tooltip": "From Load Face Model."}),
                "image": ("IMAGE", {"tooltip": "One photograph, or several of the same person, as a batch or as a list of any sizes."}),
                "choose": (
                    list(CHOICES),
                    {
                        "default": "largest",
                        "tooltip": "Which face of a photograph is meant: the largest, the most certain, number `index` counted from the left, "
                        "or number `index` in reading order (rows from the top, each from the left).",
                    },
                ),
                "index": (
                    "INT",
                    {"default": 0, "min": 0, "max": 999, "tooltip": "Number of the face, as in the preview, from 0. Used by left to right and by index."},
                ),
                "on_missing": (
                    list(ON_MISSING),
                    {
                        "default": "error",
                        "tooltip": "A photograph without the face: error stops and names it, skip leaves it out as long as one photograph remains.",
                    },
                ),
            }
        }

    @one_person("Face Embed", pictures=("image",))
    def embed(self, face_model, image, choose, index, on_missing):
        photos = check_pictures(image, "Face Embed")
        found = search_photos(face_model, photos, choose, index)
        face = embed_faces(face_model, photos, choose, index, on_missing, found)
        measured = f"{len(face)} face{'s' if len(face) > 1 else ''} measured, of {len(photos)} photograph{'s' if len(photos) > 1 else ''}."
        return {"ui": {"text": [doubts(found) or measured]}, "result": (face, face.crops, as_lists(face.masks), to_image(draw_preview(photos, found)))}
