"""The main job: from one photograph, or from a saved identity, to a portrait, through a real host, as an artist would do it in the browser."""
import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path

from .base_directory import BaseDirectory
from .client import Client, Execution
from .errors import LauncherError
from .hosts import HostSearch
from .requirements import CHECKOUT
from .server import HostProcess
from .workflow import load_workflow, override

FROM_PHOTO = CHECKOUT / "example_workflows" / "1 — one photo to portraits.json"
FROM_DEMO = CHECKOUT / "example_workflows" / "0 — try it with no download.json"
FROM_IDENTITY = CHECKOUT / "example_workflows" / "2 — use a saved identity.json"
TRIGGER = "<anna>"  # in the prompts of the example workflows
PHOTO = CHECKOUT / "example_workflows" / "anna.png"
PORTRAIT_WORLD = "the Portrait World: a small model of drawn people that ships with the pack"
RANDOM_WEIGHTS = "demo checkpoint with random weights: the picture is noise-like and only proves that everything runs"
DEMO_PHOTO = 4  # the output of IDEA_LoadDemoModel that is a photograph
SEEDED = ("IDEA_TrainIDEA", "KSampler")
PATIENCE = 6 * 3600  # seconds; a real checkpoint on a CPU takes hours

# A rehearsal is done in a minute on two cores; otherwise the workflow's own values stand.
REHEARSAL = {
    "IDEA_TrainIDEA": {"steps": 3, "batch": 1, "resolution": 128},
    "EmptyLatentImage": {"width": 256, "height": 256},
    "KSampler": {"steps": 4},
}
DEMO_REHEARSAL = {"IDEA_TrainIDEA": {"steps": 3, "batch": 1}, "KSampler": {"steps": 4}}  # its pictures are small already


@dataclass(frozen=True)
class PortraitRequest:
    """What the person at the terminal asked for; None stands for the demo model."""

    photo: Path
    output: Path
    checkpoint: Path | None
    face_pack: Path | None
    identity: Path | None
    rehearse: bool  # asked for; the models with random weights are never more than rehearsed

    @property
    def in_portrait_world(self) -> bool:
        """Nothing of one's own but perhaps a photograph: the model that ships with the pack is used."""
        return not (self.checkpoint or self.face_pack or self.identity)


@dataclass(frozen=True)
class ModelNames:
    """The models as the host lists them; a face pack, or else an identity. None of them: the Portrait World."""

    checkpoint: str | None = None
    face_pack: str | None = None
    identity: str | None = None


def make_portrait(request: PortraitRequest, process: HostProcess, names: ModelNames, search: HostSearch, say=print) -> dict:
    """Run an example workflow on a started host; write `portrait.png` and `report.json` and return the report. Raises LauncherError."""
    client = Client(process.address)
    if request.in_portrait_world:
        prompt = load_workflow(FROM_DEMO, client.object_info())
        if request.photo != PHOTO:
            prompt = with_photo(prompt, client.upload_picture(request.photo))
    elif names.identity:
        prompt = load_workflow(FROM_IDENTITY, client.object_info())
        prompt = override(prompt, "IDEA_LoadIdentity", identity=names.identity, trigger=TRIGGER)
    else:
        prompt = load_workflow(FROM_PHOTO, client.object_info())
        prompt = override(prompt, "LoadImage", image=client.upload_picture(request.photo))
        prompt = override(prompt, "IDEA_LoadFaceModel", pack=names.face_pack)
    if names.checkpoint:
        prompt = override(prompt, "CheckpointLoaderSimple", ckpt_name=names.checkpoint)
    else:
        prompt = with_demo_model(prompt)
    rehearse = request.rehearse or not (names.checkpoint is None or request.checkpoint)
    present = {node["class_type"] for node in prompt.values()}
    for class_type, values in (REHEARSAL if names.checkpoint else DEMO_REHEARSAL).items() if rehearse else ():
        if class_type in present:
            prompt = override(prompt, class_type, **values)
    started = time.time()
    execution = client.run(prompt, on_message=Narrator(prompt, say), timeout=PATIENCE)
    report = {
        "host": process.host.id, "host_version": process.host.version, "host_commit": process.host.commit,
        "host_found_as": process.host.found_as,
        "hosts_found": [str(host) for host in search.found], "hosts_not_found": list(search.missing),
        "base_model": PORTRAIT_WORLD if names.checkpoint is None else RANDOM_WEIGHTS if request.checkpoint is None else str(request.checkpoint),
        "seed": {kind: sorted({node["inputs"]["seed"] for node in prompt.values() if node["class_type"] == kind}) for kind in present if kind in SEEDED},
        **_sources(request), "rehearsal": rehearse, "device": "cpu" if process.cpu else "gpu", "seconds": round(time.time() - started, 2),
        "node_seconds": _timings(prompt, execution), "identity": str(request.identity or _identity_file(process.base, started)),
        "pictures": _keep_pictures(client, prompt, execution, request.output, "scene" if request.in_portrait_world else "portrait"),
        "prompts": [_prompt_of(prompt, node_id) for node_id in saving_nodes(prompt)],
    }
    write_report(report, request.output)
    return report


def write_report(report: dict, output: Path):
    """Write `report.json`."""
    (output / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def with_demo_model(prompt: dict) -> dict:
    """Return a copy in which the Portrait World stands for every checkpoint, in its own size of pictures."""
    changed = override(prompt, "EmptyLatentImage", width=128, height=128)
    for node in changed.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node.update(class_type="IDEA_LoadDemoModel", inputs={})  # MODEL, CLIP and VAE are its first outputs too
    return changed


def with_photo(prompt: dict, name: str) -> dict:
    """Return a copy of the demo's graph in which an uploaded photograph takes the place of the one that ships with the pack."""
    (demo,) = (node_id for node_id, node in prompt.items() if node["class_type"] == "IDEA_LoadDemoModel")
    changed, own = copy.deepcopy(prompt), str(max(map(int, prompt)) + 1)
    for node in changed.values():
        node["inputs"] = {key: [own, 0] if value == [demo, DEMO_PHOTO] else value for key, value in node["inputs"].items()}
    return {**changed, own: {"class_type": "LoadImage", "inputs": {"image": name}}}


def saving_nodes(prompt: dict) -> list[str]:
    """Return the ids of the nodes that save pictures, in the order in which they were put on the canvas."""
    return sorted((node_id for node_id, node in prompt.items() if node["class_type"] == "SaveImage"), key=int)


def _prompt_of(prompt: dict, node_id: str) -> str:
    """Return the positive prompt behind a saved picture: back through decoder and sampler to the text."""
    node = prompt[node_id]
    for name in ("images", "samples", "positive"):
        node = prompt[node["inputs"][name][0]]
    return node["inputs"].get("text", "")


def _sources(request: PortraitRequest) -> dict[str, str]:
    """Say where the person comes from."""
    if request.identity:
        return {}
    if request.in_portrait_world:
        return {"face_pack": "Portrait World (demo): ships with the pack", "photo": str(request.photo)}
    return {"face_pack": "demo face pack: a stand-in made by this repository" if request.face_pack is None else str(request.face_pack),
            "photo": str(request.photo)}


class Narrator:
    """Turns the server's messages into lines for the terminal: each node as it starts, and progress once a second."""

    def __init__(self, prompt: dict, say):
        self._prompt, self._say, self._spoke, self._node = prompt, say, 0.0, None

    def __call__(self, kind: str, data: dict):
        if kind == "executing" and data.get("node") in self._prompt:
            self._node = self._prompt[data["node"]]["class_type"]
            self._say(f"  {self._node}")
        elif kind == "progress" and time.monotonic() - self._spoke > 1 and data.get("max", 0) > 1:
            self._spoke = time.monotonic()
            self._say(f"    {self._node or ''} step {data['value']} of {data['max']}")
        elif kind == "idea.progress" and data.get("loss") is not None and time.monotonic() - self._spoke > 1:
            self._spoke = time.monotonic()
            self._say(f"    step {data.get('step')} of {data.get('steps', '?')}, loss {data['loss']:.4f}")


def _timings(prompt: dict, execution: Execution) -> dict[str, float]:
    """Return seconds by node type; types that occur twice get their node's number."""
    timings = {}
    for node_id, seconds in execution.seconds.items():
        kind = prompt.get(node_id, {}).get("class_type", "?")
        timings[kind if kind not in timings else f"{kind} {node_id}"] = round(seconds, 3)
    return timings


def _keep_pictures(client: Client, prompt: dict, execution: Execution, output: Path, stem: str) -> dict[str, str]:
    """Copy the portraits and the previews out of the host; return their paths by what they show."""
    output.mkdir(parents=True, exist_ok=True)
    kept = {}
    for index, picture in enumerate(picture for node_id in saving_nodes(prompt) for picture in execution.pictures(node_id)):
        path = output / (f"{stem}.png" if index == 0 else f"{stem}-{index + 1}.png")
        path.write_bytes(client.picture(picture))
        kept[path.stem] = str(path)
    if not kept:
        raise LauncherError("The host finished without a picture; the workflow's SaveImage node gave none.")
    for node_id, node in prompt.items():
        source = prompt.get(str((node["inputs"].get("images") or [None])[0]), {}).get("class_type") if node["class_type"] == "PreviewImage" else None
        name = {"IDEA_FaceEmbed": "face", "IDEA_TrainIDEA": "training"}.get(source)
        for picture in execution.pictures(node_id)[:1] if name else ():
            path = output / f"{name}.png"
            path.write_bytes(client.picture(picture))
            kept[name] = str(path)
    return kept


def _identity_file(base: BaseDirectory, since: float) -> str | None:
    """Return the identity file that this run wrote."""
    files = (base.root / "models" / "idea").glob("*.safetensors")
    written = [file for file in files if file.is_file() and file.stat().st_mtime >= since - 2]  # a link to what is gone is no file
    return str(max(written, key=lambda file: file.stat().st_mtime)) if written else None
