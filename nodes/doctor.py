"""ReferenceDoctor: which photographs are worth training on."""
from __future__ import annotations

from .sockets import CATEGORY, FACE, FACE_MODEL

KEEP = ("usable", "flawless")


class ReferenceDoctor:
    """Photographs → contact sheet, report, and the good ones with their faces."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Looks at photographs that should show one person before a minute of training is wasted: size, blur, pose, covered parts, light, "
        "duplicates, another person among them. Says what to do about each, and passes the good ones on with their faces."
    )
    FUNCTION = "examine"
    OUTPUT_NODE = True
    RETURN_TYPES = ("IMAGE", "STRING", "IMAGE", FACE)
    RETURN_NAMES = ("sheet", "report", "good", "face")
    OUTPUT_TOOLTIPS = (
        "Every photograph, numbered: green is good, orange is kept but worth a look, red is left out.",
        "The same as a list, with what was measured and what to do.",
        "The photographs that passed, for Train Identity.",
        "The person from the photographs that passed, for ID Enhancer; crops and masks are inside.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "face_model": (FACE_MODEL, {"tooltip": "From Load Face Model."}),
                "image": ("IMAGE", {"tooltip": "Photographs of one person, as a batch. The largest face of each is meant."}),
                "keep": (list(KEEP), {"default": KEEP[0], "tooltip": (
                    "usable: everything but the photographs with a serious fault. flawless: only photographs about which there is nothing to say."
                )}),
            }
        }

    def examine(self, face_model, image, keep):
        import torch

        from ..idea_engine.errors import FaceNotFoundError
        from ..idea_engine.photo_doctor import examine_photos, only_rows, report_text
        from ..idea_engine.photo_sheet import BAD, DOUBTFUL, GOOD, Tile, draw_sheet
        from .host.images import check_images, to_image

        photos = check_images(image, "Reference Doctor")
        examined = examine_photos(face_model, list(photos))
        verdicts = examined.verdicts
        report = report_text(verdicts, keep)
        good = [verdict.number - 1 for verdict in verdicts if verdict.kept(keep)]
        if not good:
            cure = "Use other photographs." if keep == KEEP[0] else "Use other photographs, or set keep in Reference Doctor to usable."
            raise FaceNotFoundError(f"None of the photographs can be used:\n{report}\n{cure}")
        tiles = [
            Tile(photo, verdict.number, BAD if not verdict.kept(keep) else DOUBTFUL if verdict.findings else GOOD,
                 tuple(one.short for one in verdict.findings) or ("good",))
            for photo, verdict in zip(photos, verdicts)
        ]
        sheet = draw_sheet(tiles, f"{len(good)} of {len(photos)} photographs are good to use")
        return {"ui": {"text": [report]}, "result": (to_image(sheet), report, torch.stack([photos[index] for index in good]), only_rows(examined.faces, good))}
