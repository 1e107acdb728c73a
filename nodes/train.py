"""TrainIDEA: learn one person."""
from __future__ import annotations

from .sockets import CATEGORY, ENHANCED, FACE_MODEL, IDENTITY

RECIPES = ("balanced", "fast", "best", "paper", "released", "sefi")
ATTENTION = {"recipe's own": "", "off": "off", "face word": "face_word", "face mask": "mask"}
_SDXL_RESOLUTION, _RESOLUTION = 1024, 512  # what the families were trained at
_JUDGED_TIMES = 10  # in one training, unless preview_every says otherwise


class TrainIDEA:
    """Trains an identity on one or a few photographs, inside the graph."""

    DESCRIPTION = (
        "Learns the person as pseudo-tokens (and, by recipe, an adapter and keys and values) while the checkpoint stays frozen. "
        "Cancel keeps the work: queue again and training goes on where it stopped. Stop, in the strip below, ends it with the best so far, and the "
        "graph goes on. A finished training is kept on disk, so the same inputs are never trained twice, not even after a restart."
    )
    CATEGORY = CATEGORY
    FUNCTION = "train"
    OUTPUT_NODE = True
    RETURN_TYPES = (IDENTITY, "IMAGE")
    RETURN_NAMES = ("identity", "chart")
    OUTPUT_TOOLTIPS = ("The learned person, for Apply ID Adapter and Save Identity.", "The loss of every training step, and the likeness where it was measured.")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The checkpoint to learn on. It is not changed."}),
                "clip": ("CLIP", {"tooltip": "The text encoder of the same checkpoint. It is not changed."}),
                "vae": ("VAE", {"tooltip": "Encodes each photograph once."}),
                "image": ("IMAGE", {"tooltip": "One or a few photographs of the person; the largest centred square of each is used."}),
                "enhanced": (ENHANCED, {"tooltip": "From ID Enhancer, made with the same CLIP."}),
                "trigger": ("STRING", {"default": "<anna>", "tooltip": "The word that stands for the person in your prompts. One word, best in angle brackets."}),
                "recipe": (list(RECIPES), {"default": RECIPES[0], "tooltip": (
                    "balanced: 40 steps, our own; learns the face and leaves the rest of the prompt alone. fast: half of it. best: twice of it. "
                    "paper: 320 steps, everything the paper trains, including the cross-attention's key and value weights, so other prompts change too. "
                    "released: 320 steps, what the authors' script really does. sefi: 320 steps, SeFi-IDE: five stages of the sampling, each with "
                    "words of its own; it needs no face recognizer and changes no weight."
                )}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 10000, "tooltip": "Training steps; 0 = the recipe's own number."}),
                "batch": ("INT", {"default": 0, "min": 0, "max": 64, "tooltip": (
                    "Pictures per step; 0 = the recipe's own. If they do not fit into memory at once, they are taken in smaller portions."
                )}),
                "lr": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.0001, "round": False, "tooltip": (
                    "Learning rate per picture of the batch; 0 = the recipe's own. Lower it if the loss explodes."
                )}),
                "resolution": ("INT", {"default": 0, "min": 0, "max": 2048, "step": 8, "tooltip": (
                    "Side of the training pictures in pixels; 0 = 512, and 1024 for SDXL. Smaller is faster and needs less memory."
                )}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "tooltip": "The same seed and inputs give the same identity."}),
            },
            "optional": {
                "masks": ("MASK", {"tooltip": (
                    "Where the face is in each photograph, from Face Embed. Unconnected: what Face Embed found, if it saw the same photographs. "
                    "Read where a recipe weighs the face more than the rest, and by the attention target 'face mask'."
                )}),
                "stages": ("INT", {"default": 0, "min": 0, "max": 20, "tooltip": (
                    "Into how many stages the sampling is divided, each with words of its own for the person (SeFi-IDE); works with every recipe. "
                    "0 = the recipe's own: five for sefi, none for the others."
                )}),
                "attention": (list(ATTENTION), {"default": "recipe's own", "tooltip": (
                    "Teaches the person's word to look at the face, so that the rest of the prompt keeps its place; works with every recipe. "
                    "face word: where the checkpoint itself looks for 'face' (a third slower). face mask: inside the masks of Face Embed. "
                    "recipe's own: face word for sefi, off for the others."
                )}),
                "caption": ("STRING", {"default": "", "multiline": True, "tooltip": (
                    "What else the photographs show, such as: smiling, wearing a blue shirt, in a forest. What is said here is not learned as a part of the "
                    "person. One line for all photographs, or one line for each."
                )}),
                "preview_every": ("INT", {"default": 0, "min": 0, "max": 10000, "tooltip": (
                    "Shows the person in the strip below after every so many steps, always with the same seed. 0 = never; with a face model, ten times in "
                    "the training. A preview takes as long as a picture of 12 steps."
                )}),
                "face_model": (FACE_MODEL, {"tooltip": (
                    "Measures how alike each preview is to the photographs; the most alike step is returned instead of the last. Best another face "
                    "model than Face Embed's, so that the training is not judged by its own measure."
                )}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def train(self, model, clip, vae, image, enhanced, trigger, recipe, steps, batch, lr, resolution, seed, masks=None, stages=0,
              attention="recipe's own", caption="", preview_every=0, face_model=None, node_id=None):
        from ..idea_engine.chart import loss_chart
        from ..idea_engine.checkpoint import Checkpoint
        from ..idea_engine.errors import FamilyMismatchError
        from ..idea_engine.fingerprint import content_key
        from ..idea_engine.tokens import check_trigger
        from ..idea_engine.train import train
        from ..idea_engine.train_config import TrainConfig
        from .host.backend import ComfyBackend
        from .host.images import check_images, to_image
        from .host.paths import training_cache, trim_training_cache
        from .host.progress import TrainingProgress

        backend = ComfyBackend(model, clip, vae)
        if enhanced.family != backend.family:
            raise FamilyMismatchError(
                f"The ID Enhancer was connected to a CLIP of {enhanced.family.describe()}, the Train node to one of {backend.family.describe()}. "
                "Connect the CLIP of one checkpoint to both."
            )
        trigger = check_trigger(trigger, backend.word_ids)
        photos = check_images(image, "Train Identity")
        config = TrainConfig(
            recipe=recipe, trigger=trigger, steps=steps, batch=batch, lr=lr, seed=seed, stages=stages, attention=ATTENTION[attention],
            captions=tuple(line.strip() for line in caption.splitlines() if line.strip()),
            resolution=resolution or (_SDXL_RESOLUTION if backend.family.name == "sdxl" else _RESOLUTION),
        )
        faces = _face_masks(masks, enhanced, photos) if config.resolved().reads_masks else None
        every = preview_every or (0 if face_model is None else max(1, config.resolved().steps // _JUDGED_TIMES))
        key = _content_key(backend, enhanced, photos, config, faces)
        if face_model is not None:
            key = content_key("judged 1", key, every, face_model.recognizer)
        finished = training_cache() / f"{key}.safetensors"
        identity = _kept(finished, enhanced, trigger)
        if identity is not None:
            note = "taken from an earlier training of the same inputs"
        else:
            judge = None if face_model is None else _judge(face_model, photos)
            with TrainingProgress(node_id, config.resolved().steps, model.model.latent_format) as progress:
                identity, report = train(
                    backend, enhanced, list(photos), config, masks=faces, on_step=progress, previews=progress.previews(every, judge),
                    checkpoint=Checkpoint(training_cache() / f"{key}.partial"), stop=progress.stopping,
                )
            if not report.stopped:  # what was stopped is not what these inputs give
                _keep(identity, finished)
            trim_training_cache()
            note = _summary(report)
        course = identity.metadata.config
        losses = course["losses"]
        finite = [loss for loss in losses if loss is not None] or [float("nan")]  # a step whose loss was not finite was skipped
        chart = loss_chart(losses, title=f"{trigger} · {recipe}", likenesses=course.get("likenesses", ()))
        return {"ui": {"text": [f"{trigger}: {len(losses)} steps, loss {finite[0]:.4f} → {finite[-1]:.4f}; {note}."]},
                "result": (identity, to_image(chart))}


def _judge(face_model, photos):
    """Previews → mean cosine to the person in the photographs, as this face model sees both; a preview without a face counts 0."""
    from ..idea_engine.face import embed_faces
    from .evaluate import _face_rows

    person = embed_faces(face_model, list(photos), on_missing="skip").mean()
    return lambda pictures: float((_face_rows(face_model, pictures)[0] @ person).mean())


def _face_masks(masks, enhanced, photos):
    """One (H, W) mask per photograph: those connected, else Face Embed's where they belong to these photographs, else None."""
    if masks is not None:
        return list(masks)
    found = list(enhanced.masks)
    return found if [mask.shape for mask in found] == [photo.shape[:2] for photo in photos] else None


def _content_key(backend, enhanced, photos, config, masks=None) -> str:
    """Names the training by everything its result depends on; the trigger is only a name."""
    from dataclasses import replace

    from ..idea_engine.fingerprint import content_key, fingerprint

    anchors = [enhanced.anchor.rows[name] for name in backend.family.encoders]
    settings = replace(config, trigger="")
    vae = fingerprint(backend.vae.first_stage_model.state_dict().items())
    return content_key(
        "training 1", settings, config.resolved(), backend.model_hash(), backend.text_hash, backend.clip.layer_idx, vae,
        enhanced.seed, enhanced.face, *anchors, *photos, *(masks or ()),
    )


def _kept(path, enhanced, trigger):
    """The identity of an earlier training, as it was when it was made; None when there is none, or none that can be read."""
    import logging
    from dataclasses import replace

    from ..idea_engine.errors import IdentityFileError
    from ..idea_engine.identity import rounded
    from ..idea_engine.identity_file import load_identity

    if not path.is_file():
        return None
    try:
        # The face is not kept on disk, but it is among the inputs, and Save Identity may be asked to store it.
        identity = rounded(replace(load_identity(path), face=enhanced.face)).with_trigger(trigger)
    except IdentityFileError as error:
        logging.getLogger(__name__).warning("An earlier training cannot be used and is done again: %s", error)
        return None
    path.touch()  # used again, so it is not the next to be trimmed
    return identity


def _keep(identity, path) -> None:
    """Keep a finished training for the next session; without room on the disk the artist still gets the identity."""
    import logging

    from ..idea_engine.errors import IdentityFileError
    from ..idea_engine.identity_file import save_identity

    try:
        save_identity(identity, path, store_face=False)
    except IdentityFileError as error:
        logging.getLogger(__name__).warning("The finished training could not be cached: %s", error)


def _summary(report) -> str:
    parts = [f"{report.seconds:.0f} s"]
    if report.stopped:
        parts.append("ended by Stop")
    if report.likenesses:
        parts.append(f"best at step {report.best_step} with a likeness of {dict(report.likenesses)[report.best_step]:.2f}")
    if report.resumed_at:
        parts.append(f"resumed at step {report.resumed_at}")
    if report.skipped:
        parts.append(f"{report.skipped} steps with a bad loss skipped")
    if report.checkpointing:
        parts.append(f"{report.micro_batch} pictures at a time to fit into memory")
    return ", ".join(parts)
