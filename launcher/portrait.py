"""The main job: from one photograph, or from a saved identity, to a portrait, through a real host, as an artist would do it in the browser."""
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

FROM_PHOTO = CHECKOUT / "example_workflows" / "1 - one photo to portraits.json"
FROM_IDENTITY = CHECKOUT / "example_workflows" / "2 - use a saved identity.json"
TRIGGER = "<anna>"  # in the prompts of the example workflows
PHOTO = CHECKOUT / "example_workflows" / "anna.png"
RANDOM_WEIGHTS = "demo checkpoint with random weights: the picture is noise-like and only proves that everything runs"
PATIENCE = 6 * 3600  # seconds; a real checkpoint on a CPU takes hours

# A rehearsal is done in a minute on two cores; otherwise the workflow's own values stand.
REHEARSAL = {
    "IDEA_TrainIDEA": {"steps": 3, "batch": 1, "resolution": 128},
    "EmptyLatentImage": {"width": 256, "height": 256},
    "KSampler": {"steps": 4},
}


@dataclass(frozen=True)
class PortraitRequest:
    """What the person at the terminal asked for; None stands for the demo model."""

    photo: Path
    output: Path
    checkpoint: Path | None
    face_pack: Path | None
    identity: Path | None
    rehearse: bool


@dataclass(frozen=True)
class ModelNames:
    """The models as the host lists them; a face pack, or else an identity."""

    checkpoint: str
    face_pack: str | None = None
    identity: str | None = None


def make_portrait(request: PortraitRequest, process: HostProcess, names: ModelNames, search: HostSearch, say=print) -> dict:
    """Run an example workflow on a started host; write `portrait.png` and `report.json` and return the report. Raises LauncherError."""
    client = Client(process.address)
    if names.identity:
        prompt = load_workflow(FROM_IDENTITY, client.object_info())
        prompt = override(prompt, "IDEA_LoadIdentity", identity=names.identity, trigger=TRIGGER)
    else:
        prompt = load_workflow(FROM_PHOTO, client.object_info())
        prompt = override(prompt, "LoadImage", image=client.upload_picture(request.photo))
        prompt = override(prompt, "IDEA_LoadFaceModel", pack=names.face_pack)
    prompt = override(prompt, "CheckpointLoaderSimple", ckpt_name=names.checkpoint)
    present = {node["class_type"] for node in prompt.values()}
    for class_type, values in REHEARSAL.items() if request.rehearse else ():
        if class_type in present:
            prompt = override(prompt, class_type, **values)
    started = time.time()
    execution = client.run(prompt, on_message=Narrator(prompt, say), timeout=PATIENCE)
    report = {
        "host": process.host.id, "host_version": process.host.version, "host_found_as": process.host.found_as,
        "hosts_found": [str(host) for host in search.found], "hosts_not_found": list(search.missing),
        "base_model": RANDOM_WEIGHTS if request.checkpoint is None else str(request.checkpoint),
        **_sources(request), "rehearsal": request.rehearse, "device": "cpu" if process.cpu else "gpu", "seconds": round(time.time() - started, 2),
        "node_seconds": _timings(prompt, execution), "identity": str(request.identity or _identity_file(process.base, started)),
        "pictures": _keep_pictures(client, prompt, execution, request.output),
    }
    (request.output / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _sources(request: PortraitRequest) -> dict[str, str]:
    """Say where the person comes from."""
    if request.identity:
        return {}
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


def _keep_pictures(client: Client, prompt: dict, execution: Execution, output: Path) -> dict[str, str]:
    """Copy the portrait and the previews out of the host; return their paths by what they show."""
    output.mkdir(parents=True, exist_ok=True)
    kept = {}
    saving = [node_id for node_id, node in prompt.items() if node["class_type"] == "SaveImage"]
    for index, picture in enumerate(picture for node_id in saving for picture in execution.pictures(node_id)):
        path = output / ("portrait.png" if index == 0 else f"portrait-{index + 1}.png")
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
    written = [file for file in files if file.stat().st_mtime >= since - 2]
    return str(max(written, key=lambda file: file.stat().st_mtime)) if written else None
