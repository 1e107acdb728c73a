"""What Train Identity and Refit Identity share: one training inside the graph, shown while it runs, ended by Stop, gone on with, kept when it has finished."""
from __future__ import annotations

from .sockets import FACE_MODEL

_SIDES, _SIDE = {"sdxl": 1024}, 512  # what the families were trained at
_VELOCITY_SIDE = 768  # SD 2.x that predicts v
_JUDGED_TIMES = 10  # in one training, unless preview_every says otherwise


# The optional inputs of a node that learns: what is drawn on the way, and who judges it.
PREVIEW_EVERY = ("INT", {"default": 0, "min": 0, "max": 10000, "tooltip": (
    "Shows the person in the strip below after every so many steps, always with the same seed. 0 = never; with a face model, ten times in "
    "the training. A preview takes as long as a picture of 12 steps."
)})
JUDGE = (FACE_MODEL, {"tooltip": (
    "Measures how alike each preview is to the photographs; the most alike step is returned instead of the last. Best another face "
    "model than Face Embed's, so that the training is not judged by its own measure."
)})


def training_backend(model, clip, vae, enhanced, node: str):
    """The engine's backend on the host's models; ``node`` is the learning node's name, for the sentence.

    Raises:
        FamilyMismatchError: ID Enhancer was connected to a CLIP of another family, or the models are of families that do not go together.
    """
    from ..idea_engine.errors import FamilyMismatchError
    from .host.backend import ComfyBackend

    backend = ComfyBackend(model, clip, vae)
    if enhanced.family != backend.family:
        raise FamilyMismatchError(
            f"The ID Enhancer was connected to a CLIP of {enhanced.family.describe()}, {node} to one of {backend.family.describe()}. "
            f"Connect the CLIP of one checkpoint, the one that {node} gets, to both."
        )
    return backend


def training_side(backend, asked: int) -> int:
    """Side of the training pictures in pixels: the one asked for, or for 0 what the model was trained at."""
    if backend.family.name == "sd2" and backend.prediction == "V_PREDICTION":
        return asked or _VELOCITY_SIDE
    return asked or _SIDES.get(backend.family.name, _SIDE)


def base_rate(backend, recipe: str) -> float:
    """By what a check of this base model advises to multiply the recipe's rate, from models/idea/bases; 1 where there was none."""
    from ..idea_engine.judging.base_advice import advised_rate
    from .host.paths import advice_folders

    folders = advice_folders()
    return advised_rate(folders, backend.base_hash(), recipe) if folders else 1.0


def face_masks(masks, enhanced, photos):
    """One (H, W) mask per photograph: those connected, in their order, else Face Embed's where it saw these photographs, else None.

    Args:
        masks: MASK batches, or None.
    """
    from ..idea_engine.training.pictures import found_masks

    return found_masks(enhanced, photos) if masks is None else [mask for batch in masks for mask in batch]


def training_key(backend, enhanced, photos, config, masks=None) -> str:
    """Names the training by everything its result depends on: the trigger is only a name, and the face and the enhancer's seed count only where
    the recipe reads them."""
    from dataclasses import replace

    from ..idea_engine.files.fingerprint import content_key
    from ..idea_engine.identity.operations import content_hash

    anchors = [enhanced.anchor.rows[name] for name in backend.family.encoders]
    settings, recipe = replace(config, trigger=""), config.resolved()
    face = (enhanced.seed, enhanced.face) if recipe.reads_face else ()
    begun = () if enhanced.identity is None else (content_hash(enhanced.identity),)
    return content_key(
        "training 3", settings, recipe, backend.model_hash(), backend.text_hash, backend.clip.layer_idx,
        backend.vae_hash(), *face, *anchors, *photos, *(masks or ()), *begun,
    )


def learn(backend, enhanced, photos, config, key: str, *, masks=None, node_id=None, preview_every: int = 0, face_model=None, build=None):
    """The identity that these inputs give, trained or taken from an earlier training of the same, and what there is to say of it.

    Args:
        key: of :func:`training_key`, made longer by whatever else the result depends on.
        build: what makes the module that is trained, see :func:`idea_engine.training.loop.train`; None for the recipe's own.
    """
    from contextlib import closing

    from ..idea_engine.files.fingerprint import content_key
    from ..idea_engine.methods import build as build_module
    from ..idea_engine.training.checkpoint import Checkpoint
    from ..idea_engine.training.loop import train
    from .host.paths import training_cache, trim_training_cache
    from .host.progress import TrainingProgress

    steps = config.resolved().steps
    every = preview_every or (0 if face_model is None else max(1, steps // _JUDGED_TIMES))
    if face_model is not None:
        key = content_key("judged 1", key, every, face_model.recognizer)
    finished = training_cache() / f"{key}.safetensors"
    added = "; there were no face masks, so the whole picture counted" if masks is None and config.resolved().reads_masks else ""
    added += "".join(f"; {remark}" for remark in config.remarks())
    identity = _kept(finished, enhanced, config.trigger)
    if identity is not None:
        return identity, f"taken from an earlier training of the same inputs{added}"
    judge = None if face_model is None else _judge(face_model, photos)
    with closing(backend), TrainingProgress(node_id, steps, backend.model.model.latent_format) as progress:
        identity, report = train(
            backend, enhanced, list(photos), config, masks=masks, on_step=progress, previews=progress.previews(every, judge),
            checkpoint=Checkpoint(training_cache() / f"{key}.partial", trigger=config.trigger), stop=progress.stopping, build=build or build_module,
            keep=lambda identity: _keep(identity, finished),  # not called for what was stopped, which is not what these inputs give
        )
    trim_training_cache()
    return identity, _summary(report) + added


def course_chart(identity, title: str):
    """IMAGE of the training's losses and likenesses, as the identity remembers them."""
    from ..idea_engine.sheets.chart import loss_chart
    from .host.images import to_image

    course = identity.metadata.config
    return to_image(loss_chart(course["losses"], title=title, likenesses=course.get("likenesses", ())))


def _judge(face_model, photos):
    """Previews → mean cosine to the person in the photographs, as this face model sees both; a preview without a face counts 0."""
    from ..idea_engine.faces.embed import embed_faces
    from .evaluate import _face_rows

    person = embed_faces(face_model, list(photos), on_missing="skip").mean()
    return lambda pictures: float((_face_rows(face_model, pictures)[0] @ person).mean())


def _kept(path, enhanced, trigger):
    """The identity of an earlier training, as it was when it was made; None when there is none, or none that can be read."""
    import logging
    from dataclasses import replace

    from ..idea_engine.errors import IdentityFileError
    from ..idea_engine.files.cache_folder import used
    from ..idea_engine.identity.file import load_identity
    from ..idea_engine.identity.operations import rounded

    if not path.is_file():
        return None
    try:
        # The face is not kept on disk, but it is among the inputs, and Save Identity may be asked to store it.
        kept = load_identity(path)
        # So may the recognizer be another one, where the recipe does not read what it says.
        metadata = replace(kept.metadata, recognizer=enhanced.recognizer, licence=enhanced.licence)
        identity = rounded(replace(kept, face=enhanced.face, metadata=metadata)).with_trigger(trigger)
    except IdentityFileError as error:
        logging.getLogger(__name__).warning("An earlier training cannot be used and is done again: %s", error)
        return None
    used(path)
    return identity


def _keep(identity, path) -> bool:
    """Keep a finished training for the next session; False where that fails, and the artist still gets the identity."""
    import logging

    from ..idea_engine.errors import IdentityFileError
    from ..idea_engine.identity.file import save_identity

    try:
        save_identity(identity, path, store_face=False)
    except IdentityFileError as error:
        logging.getLogger(__name__).warning("The finished training could not be kept for the next session: %s", error)
        return False
    return True


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
