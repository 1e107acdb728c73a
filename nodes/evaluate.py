"""IdentityScore: generated pictures against reference photographs."""
from __future__ import annotations

from .host.lists import one_person
from .sockets import CATEGORY, FACE_MODEL


class IdentityScore:
    """How alike the pictures are to the person, on the scale of the person's own photographs."""

    DESCRIPTION = (
        "Compares generated pictures with photographs of the person: the cosine of the face recognizer, and the calibrated likeness, where 100 % is how "
        "alike the person's own photographs are to each other. A picture without a face counts zero. Pictures that copy one photograph are named. For a "
        "fair figure use a face model and photographs that took no part in the training."
    )
    CATEGORY = CATEGORY
    FUNCTION = "score"
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (False, False, True, True, False, False)
    RETURN_TYPES = ("FLOAT", "IMAGE", "IMAGE", "IMAGE", "STRING", "STRING")
    RETURN_NAMES = ("likeness", "sheet", "accepted", "rejected", "report", "csv")
    OUTPUT_TOOLTIPS = (
        "Mean calibrated likeness, missing faces counted as zero; with a single reference photograph the mean cosine.",
        "Every picture with its figures: green accepted, orange a copy, red too far or without a face.",
        "The pictures that reach the threshold and copy nothing; a list where they have different sizes.",
        "The other pictures, in the same way.",
        "The figures in words.",
        "One line per picture, for a spreadsheet.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "face_model": (FACE_MODEL, {"tooltip": "From Load Face Model; best another one than the training used."}),
                "image": ("IMAGE", {"tooltip": "The generated pictures, as a batch or as a list. The largest face of each counts."}),
                "references": ("IMAGE", {"tooltip": "Photographs of the person, as a batch or as a list of any sizes, at least two for the calibrated likeness; best such as were not trained on."}),
                "threshold": ("FLOAT", {"default": 0.7, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": (
                    "From which likeness a picture is accepted: calibrated, 1 = like the person's own photographs; with one reference photograph the cosine."
                )}),
            },
            "optional": {
                "strangers": ("IMAGE", {"tooltip": "Photographs of other people: they set the zero of the calibrated likeness."}),
                "training_photos": ("IMAGE", {"tooltip": "The photographs that were trained on, for the copy warning; left out: the references themselves."}),
                "clip_vision": ("CLIP_VISION", {"tooltip": "With clip and prompt: how well the pictures show the prompt."}),
                "clip": ("CLIP", {"tooltip": "The text half of the same CLIP as clip_vision, with its projection: from Load CLIP, or SDXL's with a bigG vision model."}),
                "prompt": ("STRING", {"default": "", "multiline": True, "tooltip": (
                    "What the pictures should show. The prompt they were drawn with will do: the person's word and weights are left out."
                )}),
            },
        }

    @one_person("Identity Score", pictures=("image", "references", "strangers", "training_photos"))
    def score(
        self, face_model, image, references, threshold, strangers=None, training_photos=None, clip_vision=None, clip=None, prompt="",
    ):
        from ..idea_engine.judging.likeness import COPYING_WARNING, copying, csv_text, likeness_rows, score_likeness
        from ..idea_engine.sheets.numbered import BAD, DOUBTFUL, GOOD, Tile, draw_sheet
        from .host.images import check_pictures, some_pictures, to_image

        pictures = check_pictures(image, "Identity Score")
        generated, found = _face_rows(face_model, pictures)
        known = {
            name: None if photos is None else _found_rows(face_model, check_pictures(photos, f"Identity Score, {name}"))
            for name, photos in (("references", references), ("strangers", strangers), ("training_photos", training_photos))
        }
        likeness = score_likeness(generated, found, known["references"], known["strangers"])
        trained = known["training_photos"]
        nearness = likeness.copying if trained is None or not len(trained) else copying(generated, found, trained, known["references"])
        prompts, note = _prompt_scores(clip_vision, clip, prompt, pictures)
        scale = likeness.per_image if likeness.calibrated_per_image is None else likeness.calibrated_per_image
        copies = [value >= COPYING_WARNING for value in nearness.tolist()]  # a missing face is NaN, which is not
        accepted = [here and value >= threshold and not copied for here, value, copied in zip(found.tolist(), scale.tolist(), copies)]
        tiles, rows = [], likeness_rows(likeness)
        for index, row in enumerate(rows):
            row.update(copying=_rounded(nearness[index]), copy_warning=int(copies[index]), accepted=int(accepted[index]))
            words = ["no face"] if not found[index] else [_figure(likeness, index)]
            words += ["copies a photograph"] if copies[index] else []
            if prompts is not None:
                row["prompt"] = _rounded(prompts[index])
                words.append(f"prompt {float(prompts[index]):.2f}")
            tiles.append(Tile(pictures[index], index + 1, GOOD if accepted[index] else DOUBTFUL if copies[index] else BAD, tuple(words)))
        instead = {"strangers": "a stranger is taken to have the cosine 0", "training_photos": "copies of the references are looked for"}
        notes = [
            f"No face was found in {name}, so {without}." for name, without in instead.items() if known[name] is not None and not len(known[name])
        ]
        report = _report(likeness, known["strangers"] is not None and len(known["strangers"]) > 0, accepted, copies, prompts, [*notes, note], threshold)
        chosen = [[index for index, good in enumerate(accepted) if good is wanted] for wanted in (True, False)]
        total = likeness.mean if likeness.calibrated is None else likeness.calibrated
        return {"ui": {"text": [report]}, "result": (
            total, to_image(draw_sheet(tiles, report.splitlines()[0])), some_pictures(pictures, chosen[0]), some_pictures(pictures, chosen[1]), report, csv_text(rows),
        )}


def _face_rows(face_model, pictures):
    """(N, 512) unit rows, zeros where no face was found, and (N,) bool whether one was."""
    import torch

    from ..idea_engine.faces.embed import embed_faces, search_photos

    photos = list(pictures)  # a batch, or a list of any sizes
    seen = search_photos(face_model, photos)
    rows, found = torch.zeros(len(photos), 512), torch.tensor([photo.chosen is not None for photo in seen])
    if found.any():
        faces = embed_faces(face_model, photos, on_missing="skip", found=seen)
        rows[list(faces.image_index)] = faces.vectors
    return rows, found


def _found_rows(face_model, photos):
    rows, found = _face_rows(face_model, photos)
    return rows[found]


def _prompt_scores(clip_vision, clip, prompt, pictures):
    """(N,) cosine of each picture to the prompt and '', or None and why there is none."""
    if clip_vision is None:
        return None, ""
    if clip is None or not prompt.strip():
        return None, "No prompt score: connect clip as well and write the prompt."
    from .host.clip_score import prompt_scores

    return prompt_scores(clip_vision, clip, prompt, pictures)


def _rounded(value):
    import math

    return round(float(value), 4) if math.isfinite(float(value)) else None


def _figure(likeness, index: int) -> str:
    raw = float(likeness.per_image[index])
    if likeness.calibrated_per_image is None:
        return f"cosine {raw:.2f}"
    return f"{float(likeness.calibrated_per_image[index]):.0%} alike · cosine {raw:.2f}"


def _report(likeness, measured_zero: bool, accepted, copies, prompts, notes: list[str], threshold: float) -> str:
    """``measured_zero``: whether there were strangers' faces to put the zero."""
    count = len(accepted)
    if likeness.calibrated is None:
        lines = [f"Cosine {likeness.mean:.2f}; {sum(accepted)} of {count} pictures accepted"]
        why = "give at least two reference photographs in which the face is found" if likeness.ceiling is None else "the references are no more alike than strangers are"
        lines.append(f"No calibrated likeness: {why}.")
    else:
        lines = [f"{likeness.calibrated:.0%} of how alike this person's own photos are; {sum(accepted)} of {count} pictures accepted"]
        zero = f"strangers {likeness.floor:.3f}" if measured_zero else "a stranger is taken to have 0"
        lines.append(f"Mean cosine {likeness.mean:.3f}; the person's own photographs among each other {likeness.ceiling:.3f}, {zero}.")
    missed = count - int(likeness.found.sum())
    if missed:
        without = "" if likeness.raw_mean_found is None else f"; without them the mean cosine is {likeness.raw_mean_found:.3f}"
        lines.append(f"No face was found in {missed} of {count} pictures; they count as zero{without}.")
    if any(copies):
        numbers = ", ".join(str(index + 1) for index, copied in enumerate(copies) if copied)
        lines.append(f"Copy warning: picture {numbers} repeats one photograph rather than showing the person. Train on more photographs, or for fewer steps.")
    if prompts is not None:
        lines.append(f"Prompt score (CLIP cosine): {float(prompts.mean()):.3f} on average.")
    lines += [note for note in notes if note]
    lines.append(f"Accepted from {threshold:.2f} on, of the {'cosine' if likeness.calibrated is None else 'calibrated likeness'}.")
    return "\n".join(lines)
