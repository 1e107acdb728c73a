"""Does a graphics card learn the same where ComfyUI manages memory dynamically? Takes less than five minutes.

    python quickstart.py run python benchmarks/gpu_check.py [--host ID] [--stand-in] [--json FILE]

Starts ComfyUI on the card three times: with --disable-dynamic-vram, as an artist starts it, and with next to all of the
card's memory reserved. Each time a picture is drawn and then a person is learned, on the model that ships with the pack
(workflow 0) and on a reduced SD1.5 checkpoint with random weights and a LoRA. What is learned must be the same, up to
the rounding of the card; where there is room, so must the content hashes by which a training is found again.

--stand-in tries the script itself on the CPU, with tests/host/dynamic_vram_pack in place of a card.
"""
from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from fresh_host import ROOT, arguments, found_hosts, started
from launcher.client import Client
from launcher.environment import Environment
from launcher.errors import LauncherError
from launcher.example_workflow import DEMO_PACK, example
from launcher.hosts import Host
from launcher.server import PACK_NAME, HostProcess
from launcher.stand_ins import demo_checkpoint
from launcher.workflow import load_workflow, override
from result import print_table, write_json

STEPS = 6
LEFT_GB = 1.5  # what the start with little memory may use of the card
# Of what is learned. A LoRA that is mixed in layer by layer rounds otherwise, by 0.005 with the stand-in; wrong
# gradients make more than 1 of it.
ROUNDING = 0.05
STAND_IN = ROOT / "tests" / "host" / "dynamic_vram_pack"
PREPARED = "prepared for dynamic VRAM loading"  # the host's log says so of every model that is dynamic
LORA = "gpu_check.safetensors"
COLUMNS = ("start", "model", "seconds", "losses", "difference")


@dataclass(frozen=True)
class Start:
    """One way of starting the host; ``stand_in``: what the stand-in plays instead, see its `play`."""

    name: str
    dynamic: bool
    stand_in: dict
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learned:
    """One training: by which content hash it is kept, its losses, and every number that was learned."""

    key: str
    losses: list[float]
    tensors: dict
    seconds: float


def main() -> int:
    import torch

    parser = arguments(__doc__)
    parser.add_argument("--stand-in", action="store_true", help="try the script on the CPU, without a card")
    chosen = parser.parse_args()
    if not chosen.stand_in and not torch.cuda.is_available():
        print("PyTorch finds no graphics card here, so nothing was checked. --stand-in tries the script on the CPU.")
        return 2
    host = next((one for one in found_hosts(chosen.host) if _has_dynamic_vram(one)), None)
    if host is None:
        print("No ComfyUI with dynamic VRAM was found, so nothing was checked. It came with 0.16, in March 2026.")
        return 2
    device = "the CPU, with a stand-in for the card" if chosen.stand_in else torch.cuda.get_device_name()
    print(f"{host} on {device}", flush=True)
    begun, found, faults = time.perf_counter(), {}, []
    for start in _starts(host, chosen.stand_in):
        try:
            with _running(host, start, chosen.stand_in) as process:
                found[start.name] = {name: learn(process, name) for name in ("demo model", "checkpoint")}
                prepared = process.log_text().count(PREPARED)
        except LauncherError as error:
            faults.append(f"{start.name}: {error}")
            continue
        if bool(prepared) != start.dynamic:
            faults.append(f"{start.name}: the host prepared {prepared} models for dynamic VRAM.")
    rows, gaps = [], []
    for name, trainings in found.items():
        for kind, one in trainings.items():
            reference = None if name == "plain" else found.get("plain", {}).get(kind)
            gap = None if reference is None else difference(one, reference)
            gaps.append(gap or 0.0)
            losses = " ".join(f"{loss:.5f}" for loss in one.losses)
            rows.append([name, kind, one.seconds, losses, "-" if gap is None else f"{gap:.1e}"])
            # The anchor is computed on the model, so where a LoRA rounds otherwise, it is another one.
            if name == "dynamic" and reference is not None and one.key != reference.key:
                faults.append(f"{name}, {kind}: kept under another content hash than plain, so it is trained again.")
            if gap is not None and not gap <= ROUNDING:
                faults.append(f"{name}, {kind}: what is learned differs by {gap:.1e} of its size, more than rounding.")
    print_table(COLUMNS, rows)
    for fault in faults:
        print(f"  {fault}")
    seconds = time.perf_counter() - begun
    verdict = "FAILED" if faults else "the same up to rounding" if any(gaps) else "the same bit for bit"
    print(f"Verdict: {verdict}, in {seconds:.0f} s.")
    trainings = [dict(zip(COLUMNS, row)) for row in rows]
    write_json(chosen.json, {"host": host.id, "on": device, "verdict": verdict, "faults": faults, "seconds": seconds,
                             "trainings": trainings})
    return 1 if faults else 0


def difference(one: Learned, other: Learned) -> float:
    """The largest difference of a learned number, relative to its tensor's largest; infinite if they do not match."""
    if one.tensors.keys() != other.tensors.keys():
        return float("inf")
    gaps = [0.0]
    for name, tensor in one.tensors.items():
        expected = other.tensors[name].float()
        gaps.append(float((tensor.float() - expected).abs().max() / expected.abs().max().clamp_min(1e-12)))
    return max(gaps)


def learn(process: HostProcess, kind: str) -> Learned:
    """Draw a picture on one of the models, then learn a person on it."""
    client = Client(process.address)
    prompt = workflow_zero(client) if kind == "demo model" else checkpoint_graph(process)
    first = {key: node for key, node in prompt.items() if key in _needed(prompt, "draw")}
    client.run(first, timeout=300)  # dynamic weights are on the card now, as after the artist's first picture
    before = set(_kept(process))
    began = time.perf_counter()
    client.run(prompt, timeout=300)
    seconds = time.perf_counter() - began
    (path,) = set(_kept(process)) - before
    return _read(path, seconds)


def workflow_zero(client: Client) -> dict:
    """The example that needs no download, with a short training, and a picture without the person to draw first."""
    prompt = override(load_workflow(example(0), client.object_info()), "IDEA_TrainIDEA", steps=STEPS)
    prompt = override(prompt, "KSampler", steps=4)
    (loader,) = (key for key, node in prompt.items() if node["class_type"] == "IDEA_LoadDemoModel")
    return {**prompt, **_drawing([loader, 0], [loader, 1], [loader, 2])}


def checkpoint_graph(process: HostProcess) -> dict:
    """A photograph learned on a checkpoint of the host's own loader, with a LoRA on both halves."""
    name = process.base.add_checkpoint(demo_checkpoint(Environment(Path(sys.prefix))))
    write_lora(process.base.root / "models" / "loras" / LORA)
    model, clip, vae = ["lora", 0], ["lora", 1], ["loader", 2]
    return {
        "loader": _node("CheckpointLoaderSimple", ckpt_name=name),
        "lora": _node(
            "LoraLoader", model=["loader", 0], clip=["loader", 1], lora_name=LORA, strength_model=0.8, strength_clip=0.8
        ),
        "demo": _node("IDEA_LoadDemoModel"),
        "faces": _node("IDEA_LoadFaceModel", pack=DEMO_PACK, provider="CPU", detection_size=320),
        "face": _node(
            "IDEA_FaceEmbed", face_model=["faces", 0], image=["demo", 4], choose="largest", index=0, on_missing="error"
        ),
        "start": _node(
            "IDEA_IDEnhancer", face=["face", 0], clip=clip, names="words", names_text="human face", enhancer_seed=0
        ),
        "train": _node(
            "IDEA_TrainIDEA", model=model, clip=clip, vae=vae, image=["demo", 4], enhanced=["start", 0],
            trigger="<anna>", recipe="balanced", steps=STEPS, batch=2, lr=0.0, resolution=128, seed=0,
        ),
        **_drawing(model, clip, vae),
    }


def write_lora(path: Path) -> None:
    """A LoRA for a projection, a convolution and a layer of the text encoder of the reduced SD1.5 checkpoint."""
    import torch
    from safetensors.torch import save_file

    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, up, down in (
        ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k", (320, 4), (4, 768)),
        ("lora_unet_input_blocks_1_0_in_layers_2", (320, 4, 1, 1), (4, 320, 3, 3)),
        ("lora_te_text_model_encoder_layers_1_mlp_fc1", (3072, 4), (4, 768)),
    ):
        tensors[f"{name}.lora_up.weight"] = torch.randn(up, generator=generator) * 0.1
        tensors[f"{name}.lora_down.weight"] = torch.randn(down, generator=generator) * 0.1
        tensors[f"{name}.alpha"] = torch.tensor(4.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def _drawing(model: list, clip: list, vae: list) -> dict:
    settings = dict(seed=1, steps=4, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    return {
        "said": _node("CLIPTextEncode", clip=clip, text="a photo of a person"),
        "empty": _node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "drawn": _node(
            "KSampler", model=model, positive=["said", 0], negative=["said", 0], latent_image=["empty", 0], **settings
        ),
        "decoded": _node("VAEDecode", samples=["drawn", 0], vae=vae),
        "draw": _node("PreviewImage", images=["decoded", 0]),
    }


def _node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def _needed(prompt: dict, node: str) -> set[str]:
    """The ids of a node and of all that it reads from."""
    links = [value[0] for value in prompt[node]["inputs"].values() if isinstance(value, list) and value[0] in prompt]
    return {node}.union(*(_needed(prompt, link) for link in links))


def _kept(process: HostProcess) -> list[Path]:
    return sorted((process.base.root / "user").rglob("idea/cache/*.safetensors"))


def _read(path: Path, seconds: float) -> Learned:
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        losses = json.loads(file.metadata()["idea.config"])["losses"]
        return Learned(path.stem, losses, {name: file.get_tensor(name) for name in file.keys()}, seconds)


def _has_dynamic_vram(host: Host) -> bool:
    patchers = host.root and host.root / "comfy" / "model_patcher.py"
    return bool(patchers) and "class ModelPatcherDynamic" in patchers.read_text(encoding="utf-8")


def _starts(host: Host, stand_in: bool) -> list[Start]:
    known = (host.root / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    reserved: tuple[str, ...] = ()
    if not stand_in:
        import torch

        rest = f"{max(0.0, torch.cuda.mem_get_info()[0] / 2**30 - LEFT_GB):.2f}"
        options = (option for option in ("--reserve-vram", "--vram-headroom") if f'"{option}"' in known)
        reserved = tuple(word for option in options for word in (option, rest))
    return [
        Start("plain", False, {"mode": "resident", "dynamic": False}, () if stand_in else ("--disable-dynamic-vram",)),
        Start("dynamic", True, {"mode": "resident"}),
        Start("little memory", True, {"mode": "evicted", "short": True}, reserved),
    ]


@contextmanager
def _running(host: Host, start: Start, stand_in: bool) -> Iterator[HostProcess]:
    packs = {PACK_NAME: ROOT}
    variables = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # else sums on a card come in any order
    if stand_in:
        packs["dynamic_vram_pack"] = STAND_IN
        threads = os.environ.get("OMP_NUM_THREADS", "1")  # else sums come in another order from time to time
        variables |= {"IDEA_DYNAMIC_VRAM": json.dumps(start.stand_in), "OMP_NUM_THREADS": threads}
    with started(host, packs, variables, cpu=stand_in, options=("--deterministic", *start.options)) as process:
        yield process


if __name__ == "__main__":
    sys.exit(main())
