"""IDEnhancer: a face beside its textual anchor, and the person at once where an enhancer learned from many people is at hand."""
from __future__ import annotations

from .sockets import CATEGORY, ENHANCED, FACE

NAMES = ("celebrities", "my list", "words")
AUTOMATIC, NAMES_ONLY = "automatic", "names only"


class IDEnhancer:
    """Finds where an average name lands in this checkpoint's text encoder, puts the face beside it, and reads the person in the photographs."""

    DESCRIPTION = (
        "Computes the textual anchor of the connected CLIP (where an average person's name lands after its text encoder) and joins it with "
        "the face. With an enhancer file, learned from many people for this very CLIP, the result is the person at once: feed it to Apply ID Adapter to "
        "draw without any training, or to Train Identity to refine it. Without one it is where training starts."
    )
    CATEGORY = CATEGORY
    FUNCTION = "enhance"
    RETURN_TYPES = (ENHANCED,)
    RETURN_NAMES = ("enhanced",)
    OUTPUT_TOOLTIPS = ("The face and its textual anchor, and with an enhancer file the person at once, for Train Identity or Apply ID Adapter.",)

    @classmethod
    def INPUT_TYPES(cls):
        from .host.paths import enhancers

        return {
            "required": {
                "clip": ("CLIP", {"tooltip": "The text encoder of the checkpoint you will train and generate with."}),
                "names": (list(NAMES), {"default": NAMES[0], "tooltip": (
                    "What the anchor is averaged from: the shipped celebrity names, your own list (one name per line in names_text), or a few "
                    "plain words such as 'human face' in names_text."
                )}),
            },
            "optional": {
                "face": (FACE, {"tooltip": "The person, from Face Embed. Only the recipe sefi of Train Identity can do without."}),
                "names_text": ("STRING", {"default": "", "multiline": True, "tooltip": "Your names, one per line, or your words. Unused with 'celebrities'."}),
                "enhancer_seed": ("INT", {"default": 0, "min": 0, "max": 2**31 - 1, "tooltip": "Seeds the enhancer's random start weights."}),
                "enhancer": ([AUTOMATIC, NAMES_ONLY, *enhancers()], {"default": AUTOMATIC, "tooltip": (
                    "What reads the person in the photographs, learned from many people: automatic takes the file of models/idea/enhancers that was made for "
                    "this CLIP and this face recognizer, if there is one. names only: no file; an average person, where training starts. Or one file."
                )}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, enhancer=AUTOMATIC):
        # Naming `enhancer` here replaces the host's own 'value not in list', so that the user reads where files are expected.
        from ..idea_engine.errors import EnhancerFileError
        from .host.paths import enhancer_path

        if enhancer in (AUTOMATIC, NAMES_ONLY, None):  # None = connected: known when the graph runs
            return True
        try:
            enhancer_path(enhancer)
        except EnhancerFileError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, enhancer=AUTOMATIC, **others):
        from .host.paths import enhancers

        if enhancer is None:  # connected: which it will be cannot be asked before the graph runs
            return float("nan")
        known = {} if enhancer == NAMES_ONLY else enhancers()
        # Size and time stand for the content.
        return repr([(name, (told := path.stat()).st_size, told.st_mtime_ns) for name, path in known.items() if enhancer in (AUTOMATIC, name)])

    def enhance(self, clip, names, face=None, names_text="", enhancer_seed=0, enhancer=AUTOMATIC):
        from contextlib import closing

        from ..idea_engine.enhancer.person import person_at_once
        from ..idea_engine.errors import FaceNotFoundError
        from ..idea_engine.identity.enhanced import EnhancedIdentity
        from .host.backend import TextBackend

        backend = TextBackend(clip)
        anchor = _anchor(backend, _chosen(names, names_text))
        if face is None:
            if enhancer not in (AUTOMATIC, NAMES_ONLY):
                raise FaceNotFoundError(
                    f"The enhancer {enhancer} reads a person in photographs, but none is connected. Connect Face Embed to face of the ID Enhancer node, or "
                    f"set enhancer to {NAMES_ONLY}."
                )
            return (EnhancedIdentity(family=backend.family, face=None, anchor=anchor, seed=enhancer_seed),)
        with closing(backend):
            path = _chosen_file(enhancer, backend, face)
            identity = None if path is None else person_at_once(_file(path), backend, face, anchor)
        made = EnhancedIdentity(
            family=backend.family, face=face.mean(), anchor=anchor, seed=enhancer_seed, recognizer=face.recognizer,
            licence=face.licence if identity is None else identity.metadata.licence, masks=face.masks, photographs=face.photographs, identity=identity,
        )
        if identity is None:
            said = "Names only." if enhancer == NAMES_ONLY else "No enhancer was learned for this CLIP and this face recognizer."
            return {"ui": {"text": [f"{said} An average person, where training starts."]}, "result": (made,)}
        said = f"Read by the enhancer {path.stem}: the person at once, to draw or to refine."
        return {"ui": {"text": [said]}, "result": (made,)}


def _chosen(names: str, text: str) -> list[str]:
    from ..idea_engine.identity.anchor import celebrity_names, parse_names

    if names == "celebrities":
        return celebrity_names()
    return [" ".join(text.split())] if names == "words" and text.strip() else parse_names(text)


_anchors: dict = {}  # (text encoder, names) → anchor; a few kilobytes each


def _anchor(backend, names: list[str]):
    from contextlib import closing

    from ..idea_engine.identity.anchor import compute_anchor

    key = (backend.text_hash, backend.clip.layer_idx, tuple(names))
    if key not in _anchors:
        with closing(backend):
            backend.load()
            _anchors[key] = compute_anchor(backend, names)
    return _anchors[key]


def _chosen_file(enhancer: str, backend, face):
    """The path of the enhancer to use, or None for names only."""
    import logging

    from ..idea_engine.enhancer.file import read_label
    from ..idea_engine.errors import EnhancerFileError
    from .host.paths import enhancer_path, enhancers

    if enhancer == NAMES_ONLY:
        return None
    backend.load()
    if enhancer != AUTOMATIC:
        return enhancer_path(enhancer)
    for name, path in enhancers().items():
        try:
            if face.heads is not None and read_label(path).fits(backend, face.recognizer):
                return path
        except EnhancerFileError as error:
            logging.getLogger(__name__).warning("The enhancer %s is passed over: %s", name, error)
    return None


_files: dict = {}  # the enhancer used last: (path, size, time) → file


def _file(path):
    from ..idea_engine.enhancer.file import load_enhancer

    told = path.stat()
    key = (path, told.st_size, told.st_mtime_ns)
    if key not in _files:
        _files.clear()
        _files[key] = load_enhancer(path)
    return _files[key]
