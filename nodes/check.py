"""CheckModel: do our recipes' rates fit this checkpoint?"""
from __future__ import annotations

from .host.lists import one_person
from .sockets import CATEGORY, ENHANCED, FACE_MODEL

RECIPES = ("fast", "balanced", "best")  # those whose rates are ours to adjust


class CheckModel:
    """Learns one person at three rates on the connected checkpoint, draws and judges them, and says which rate fits."""

    DESCRIPTION = (
        "Learns one person with a recipe at half, once and twice its rate, draws the first evaluation prompts with each, judges likeness and prompt, and says in "
        "words whether the recipe's rate fits this checkpoint, is too hot or too cold. With keep_advice Train Identity and Refit Identity follow what it says on "
        "this checkpoint. It takes as long as three trainings; nothing of the person is kept."
    )
    CATEGORY = CATEGORY
    FUNCTION = "check"
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("sheet", "verdict")
    OUTPUT_TOOLTIPS = ("The photograph and the prompts without the person, then a row for each rate.", "Whether the rate fits, and the figures, in words.")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The checkpoint to check. It is not changed."}),
                "clip": ("CLIP", {"tooltip": "The text encoder of the same checkpoint. It is not changed."}),
                "vae": ("VAE", {"tooltip": "The checkpoint's VAE."}),
                "enhanced": (ENHANCED, {"tooltip": "From ID Enhancer, made with the same CLIP. Its enhancer file, if there is one, is left aside."}),
                "image": ("IMAGE", {"tooltip": (
                    "Photographs of one person, as a batch or as a list of any sizes, best three or more: the first is learned from, the others are compared with."
                )}),
                "face_model": (FACE_MODEL, {"tooltip": "Judges likeness; best another face model than Face Embed's, which flatters every rate alike."}),
                "recipe": (list(RECIPES), {"default": RECIPES[0], "tooltip": "Whose rate is tried. fast is the quickest check; advice counts only for the recipe that was checked."}),
                "resolution": ("INT", {"default": 0, "min": 0, "max": 2048, "step": 8, "tooltip": (
                    "Side of the training pictures, and of those that are drawn, in pixels; 0 = 512, 768 for SD 2.x that predicts v, 1024 for SDXL."
                )}),
                "keep_advice": ("BOOLEAN", {"default": False, "tooltip": (
                    "Writes what is advised for this checkpoint into models/idea/bases, in place of an earlier check, and Train Identity and Refit Identity follow it "
                    "from then on. Turned on after a check, it keeps that check without doing it again."
                )}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "tooltip": "The same seed and inputs give the same trainings and pictures."}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @one_person("Check Model", pictures=("image",))
    def check(self, model, clip, vae, enhanced, image, face_model, recipe, resolution, keep_advice, seed, node_id=None):
        from dataclasses import replace

        from ..idea_engine.files.fingerprint import content_key
        from ..idea_engine.judging.base_advice import keep_advice as keep
        from ..idea_engine.training.base_check import check_config, said
        from ..idea_engine.training.pictures import prepare_photos
        from .host.images import check_pictures, to_image
        from .host.paths import advice_home
        from .learning import face_masks, training_backend, training_key, training_side

        backend = training_backend(model, clip, vae, enhanced, "Check Model")
        photos = check_pictures(image, "Check Model")
        enhanced = replace(enhanced, identity=None)  # the rates are those of a training from the average
        config = check_config(recipe, 1.0, training_side(backend, resolution), seed)
        masks = face_masks(None, enhanced, photos[:1])
        prepare_photos(photos[:1], config.resolution, masks)  # says what does not fit before anything is drawn
        key = content_key("check 1", training_key(backend, enhanced, photos, config, masks), face_model.recognizer)
        if key not in _last:
            done = _tried(backend, enhanced, photos, face_model, config, masks, node_id)
            facts = done.facts(backend.family.context_width, face_model.recognizer, backend.precision)
            (advice, results), = done.advice().values()
            lines = [advice.says, *(said(recipe, result) for result in results), *done.notes]
            base = backend.base_hash()
            _last.clear()
            _last[key] = to_image(done.sheet()), lines, base, done.kept(base, backend.family.name, facts)
        sheet, lines, base, kept = _last[key]
        if face_model.recognizer == enhanced.recognizer:
            lines = [*lines, "Likeness is judged by the face model that Face Embed used, which flatters every rate alike."]
        if keep_advice:
            lines = [*lines, f"Kept as {keep(advice_home(), base, kept)}"]
        verdict = "\n".join(lines)
        return {"ui": {"text": [verdict]}, "result": (sheet, verdict)}


_last: dict = {}  # key → what the last check gave, so that keeping its advice costs no second one


def _tried(backend, enhanced, photos, face_model, config, masks, node_id):
    """The check with every rate tried. Cancel ends it, and nothing is left behind."""
    from contextlib import closing
    from dataclasses import replace

    from ..idea_engine.applying.applied import STARTS_AT
    from ..idea_engine.judging.base_advice import RATES
    from ..idea_engine.prompts.evaluation import evaluation_prompts
    from ..idea_engine.training.base_check import PROMPTS, BaseCheck, check_config, learn_and_paint
    from ..idea_engine.training.previews import paint
    from .evaluate import _face_rows
    from .host.progress import TrainingProgress, check_interrupt

    steps = config.resolved().steps

    def measure(picture):
        rows, found = _face_rows(face_model, [picture])
        return rows[0] if found[0] else None

    def draw(text: str, seed: int):
        check_interrupt()
        return paint(backend, text, config.resolution, config.seed + seed)

    with closing(backend), TrainingProgress(node_id, len(RATES) * steps, backend.model.model.latent_format) as progress:
        check = BaseCheck(photos[0], photos[1:], evaluation_prompts()[:PROMPTS], measure=measure, encoder=face_model, draw=draw)
        for number, rate in enumerate(RATES):
            check.try_rate(config.recipe, rate, lambda: learn_and_paint(  # called at once
                backend, enhanced, photos[0], check_config(config.recipe, rate, config.resolution, config.seed), check.seeded(), masks=masks,
                on_step=lambda event: progress(replace(event, step=number * steps + event.step, steps=len(RATES) * steps)), before_picture=check_interrupt, start=STARTS_AT,
            ))
    return check
