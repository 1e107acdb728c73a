"""ReferenceDoctor: which photographs are worth training on."""
from __future__ import annotations

from .host.lists import as_lists, one_person
from .sockets import CATEGORY, FACE, FACE_MODEL

KEEP = ("usable", "flawless")
_ADVICE = {"usable": ". Use other photographs", "flawless": ". Use other photographs, or set keep in Reference Doctor to usable"}


class ReferenceDoctor:
    """Photographs → contact sheet, report, and the good ones with their faces, crops and masks."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Looks at photographs that should show one person before a minute of training is wasted: size, blur, pose, covered parts, light, "
        "duplicates, another person among them. Says what to do about each, and passes the good ones on with their faces, crops and masks. Where "
        "none is good, the sheet says why, and what is connected to the other outputs is not run."
    )
    FUNCTION = "examine"
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (False, False, True, False, False, True)
    RETURN_TYPES = ("IMAGE", "STRING", "IMAGE", FACE, "IMAGE", "MASK")
    RETURN_NAMES = ("sheet", "report", "good", "face", "crops", "masks")
    OUTPUT_TOOLTIPS = (
        "Every photograph, numbered: green is good, orange is kept but worth a look, red is left out.",
        "The same as a list, with what was measured and what to do.",
        "The photographs that passed, for Train Identity; a list where they have different sizes.",
        "The person from the photographs that passed, for ID Enhancer; crops and masks are inside.",
        "The faces of the photographs that passed, upright, 112×112, as the recognizer sees them.",
        "A soft mask of the face for each photograph that passed, for masks of Train Identity; a list where they have different sizes.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "face_model": (FACE_MODEL, {"tooltip": "From Load Face Model."}),
                "image": ("IMAGE", {"tooltip": "Photographs of one person, as a batch or as a list of any sizes. The largest face of each is meant."}),
                "keep": (list(KEEP), {"default": KEEP[0], "tooltip": (
                    "usable: everything but the photographs with a serious fault. flawless: only photographs about which there is nothing to say."
                )}),
            }
        }

    @one_person("Reference Doctor", pictures=("image",))
    def examine(self, face_model, image, keep):
        from ..idea_engine.errors import FaceNotFoundError
        from ..idea_engine.faces.doctor import examine_photos, only_rows, report_text
        from ..idea_engine.sheets.numbered import BAD, DOUBTFUL, GOOD, Tile, draw_sheet
        from .host.images import check_pictures, not_run, some_pictures, to_image

        photos = check_pictures(image, "Reference Doctor")
        examined = examine_photos(face_model, photos)
        verdicts = examined.verdicts
        report = report_text(verdicts, keep)
        good = [verdict.number - 1 for verdict in verdicts if verdict.kept(keep)]
        tiles = [
            Tile(photo, verdict.number, BAD if not verdict.kept(keep) else DOUBTFUL if verdict.findings else GOOD,
                 tuple(one.short for one in verdict.findings) or ("good",))
            for photo, verdict in zip(photos, verdicts)
        ]
        sheet = to_image(draw_sheet(tiles, f"{len(good)} of {len(photos)} photographs are good to use"))
        if good:
            face = only_rows(examined.faces, good)
            passed = (some_pictures(photos, good), face, face.crops, as_lists(face.masks))
        else:
            report = f"None of the photographs can be used{_ADVICE[keep]}:\n{report}"
            stopped = not_run(4)
            if stopped is None:
                raise FaceNotFoundError(report)
            passed = ([stopped[0]], *stopped[1:3], [stopped[3]])
        return {"ui": {"text": [report]}, "result": (sheet, report, *passed)}
