"""What is installed into the environment, as layers: an ordered list, each installed once and remembered by its content."""
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Layer:
    """Requirement lines that pip installs together.

    `with_dependencies=False` installs exactly these lines and replaces what lies there.
    `instead_of` names a distribution that is taken out first.
    `folder` is a place of its own inside the environment, which only a process that asks for it imports from.
    """

    name: str
    lines: tuple[str, ...]
    with_dependencies: bool = True
    instead_of: str = ""
    folder: str = ""

    @property
    def key(self) -> str:
        """Name and content of the layer, fit for a file name."""
        text = "\n".join((*self.lines, str(self.with_dependencies), self.instead_of, self.folder))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_lines(path: Path) -> tuple[str, ...]:
    """Return the requirement lines of a file, without comments and blank lines."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line)


# Torch and torchvision are resolved together, so that they match. Transformers 4.57.6 serves every host: the pip host
# needs < 5, current hosts accept it.
TORCH = Layer("torch", ("torch", "torchvision", "transformers==4.57.6", "tokenizers", "safetensors", "numpy", "Pillow"))

# Insightface asks for opencv-python, whose windows need libraries a bare server lacks; the headless build is the same cv2.
HEADLESS = Layer("opencv", ("opencv-python-headless",), with_dependencies=False, instead_of="opencv-python")

# The pip host is a fork of June 2024. Its declared dependencies include training and chat packages it never imports when it
# serves, so these are the ones it does import; it is yanked, hence the exact pin. It lies in a folder of its own: its package `comfy`
# has an `__init__.py` and a checkout's has none, so that beside it no checkout would find its own.
PIP_HOST_NEEDS = Layer("pip-host-needs", (
    "scipy", "einops", "aiohttp", "yarl", "pyyaml", "tqdm", "psutil", "torchsde", "torchdiffeq", "kornia", "spandrel", "av",
    "sentencepiece", "pydantic", "opentelemetry-distro", "opentelemetry-sdk", "opentelemetry-exporter-otlp",
    "opentelemetry-propagator-jaeger", "opentelemetry-instrumentation", "opentelemetry-util-http",
    "opentelemetry-instrumentation-aio-pika", "opentelemetry-instrumentation-requests", "opentelemetry-semantic-conventions",
    "aio-pika", "pyjwt[crypto]", "lazy-object-proxy", "ConfigArgParse", "can-ada", "natsort", "fsspec", "importlib-resources",
    "OpenEXR", "frozendict", "jsonmerge", "aiofiles", "python-dateutil", "requests", "wrapt", "certifi", "huggingface-hub"))
PIP_HOST = Layer("pip-host", ("comfyui==0.0.1",), with_dependencies=False, folder="pip-host")

TESTS = Layer("tests", ("pytest>=8", "pytest-xdist", "diffusers", "accelerate"))


def pack_layers(checkout: Path = CHECKOUT) -> tuple[Layer, ...]:
    """Return what every environment holds: torch, the pack's own requirements, the face recognizer, and onnx to make the demo face pack."""
    own = [line for name in ("requirements.txt", "requirements-face.txt") for line in read_lines(checkout / name)]
    return TORCH, Layer("pack", (*own, "onnx")), HEADLESS


def checkout_host_layer(root: Path) -> Layer:
    """Return the requirements of a ComfyUI checkout. Its torchaudio is left out: only audio nodes use it, and its builds lag torch."""
    wanted = [line for line in read_lines(root / "requirements.txt")
              if re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() != "torchaudio"]
    return Layer("comfyui", tuple(wanted))
