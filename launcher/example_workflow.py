"""The example workflows on the model that ships: what the tests run, and what the thumbnails show."""
import copy
from pathlib import Path

from .portrait import TRIGGER
from .requirements import CHECKOUT


def number_of(path: Path) -> int:
    """The number an example workflow begins with: 10 comes after 9."""
    return int(path.stem.split(" — ")[0])


EXAMPLES = tuple(sorted((CHECKOUT / "example_workflows").glob("*.json"), key=number_of))
DEMO_PACK = "Portrait World (demo)"
NATIVE = 128  # pixels of the Portrait World's pictures
_LOADERS = ("CheckpointLoaderSimple", "UNETLoader")
# The Portrait World's own words: it passes over what it does not know, and a good negative prompt for it is none.
_PROMPT, _NEGATIVE = f"a photo of {TRIGGER} smiling wearing a red shirt on a beach", ""


def example(number: int) -> Path:
    """The example workflow of a number."""
    return next(path for path in EXAMPLES if number_of(path) == number)


def needs_a_download(prompt: dict) -> bool:
    """Whether a graph asks for a model that does not ship with the pack."""
    return any(node["class_type"] in _LOADERS for node in prompt.values())


def on_demo_model(prompt: dict, photo: str = "", identity: str = "") -> dict:
    """A copy of a graph in which the Portrait World stands for everything that would have to be downloaded.

    Args:
        prompt: in API format. One that needs no download is returned as it is.
        photo: the name of an uploaded photograph, for Load Image.
        identity: the name of a saved identity of the Portrait World, for Load Identity.
    """
    changed = copy.deepcopy(prompt)
    if not needs_a_download(prompt):
        return changed
    texts = _texts(prompt)
    for number, node in changed.items():
        kind, inputs = node["class_type"], node["inputs"]
        if kind in _LOADERS:
            node.update(class_type="IDEA_LoadDemoModel", inputs={})  # MODEL, CLIP and VAE are its first outputs too
        elif kind == "LoadImage":
            inputs["image"] = photo
        elif kind == "IDEA_LoadIdentity":
            inputs["identity"] = identity
        elif kind == "IDEA_LoadFaceModel":
            inputs.update(pack=DEMO_PACK, detection_size=320)
        elif kind == "IDEA_FaceCLIPLoader":
            inputs["file"] = DEMO_PACK
        elif kind == "IDEA_FaceCLIPEncode":
            inputs.update(prompt=_PROMPT.replace(TRIGGER, "a person"), negative_prompt=_NEGATIVE, width=NATIVE, height=NATIVE)
        elif kind == "IDEA_TrainIDEA":
            inputs["resolution"] = NATIVE
        elif kind == "EmptyLatentImage":
            inputs.update(width=NATIVE, height=NATIVE)
        elif kind == "KSampler":
            inputs["cfg"] = 3.0
        elif number in texts:
            inputs["text"] = texts[number]
    return changed


def _texts(prompt: dict) -> dict[str, str]:
    """Text node → what it says to the Portrait World."""
    found = {}
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            found |= {node["inputs"][name][0]: text for name, text in (("negative", _NEGATIVE), ("positive", _PROMPT))}
    return {number: text for number, text in found.items() if prompt[number]["class_type"] == "CLIPTextEncode"}
