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
    `host` names the host whose own environment, on top of the shared one, it is installed in; empty: the shared one.
    """

    name: str
    lines: tuple[str, ...]
    with_dependencies: bool = True
    instead_of: str = ""
    host: str = ""

    @property
    def key(self) -> str:
        """Name and content of the layer, fit for a file name."""
        text = "\n".join((*self.lines, str(self.with_dependencies), self.instead_of, self.host))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_lines(path: Path) -> tuple[str, ...]:
    """Return the requirement lines of a file, without comments and blank lines, and with those of files it includes."""
    lines = []
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        option = re.match(r"(-r|--requirement|-c|--constraint)[\s=]*(\S+)", line)
        if option and option[1] in ("-r", "--requirement"):
            lines += read_lines(path.parent / option[2])
        elif line:
            lines.append(f"-c {(path.parent / option[2]).absolute()}" if option else line)
    return tuple(lines)


def distribution_name(line: str) -> str:
    """Return the name in a requirement line, in lower case; empty for an option or an address."""
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\s*($|[\[<>=!~;@(]))", line)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""


# Torch and torchvision are resolved together, so that they match. Transformers 4.57.6 serves every host: the pip host
# needs < 5, current hosts accept it.
TORCH = Layer("torch", ("torch", "torchvision", "transformers==4.57.6", "tokenizers", "safetensors", "numpy", "Pillow"))

SHARED = ("torch", "torchvision")  # by every host, whatever its requirements say

# Insightface asks for opencv-python, whose windows need libraries a bare server lacks; the headless build is the same cv2.
HEADLESS = Layer("opencv", ("opencv-python-headless",), with_dependencies=False, instead_of="opencv-python")

# The pip host is a fork of June 2024. Its declared dependencies include training and chat packages it never imports when it
# serves, so these are the ones it does import; it is yanked, hence the exact pin.
PIP_VERSION = "0.0.1"
PIP_NAME = f"pip-{PIP_VERSION}"
PIP_HOST_NEEDS = Layer("pip-host-needs", (
    "transformers<5",
    "scipy", "einops", "aiohttp", "yarl", "pyyaml", "tqdm", "psutil", "torchsde", "torchdiffeq", "kornia", "spandrel", "av",
    "sentencepiece", "pydantic", "opentelemetry-distro", "opentelemetry-sdk", "opentelemetry-exporter-otlp",
    "opentelemetry-propagator-jaeger", "opentelemetry-instrumentation", "opentelemetry-util-http",
    "opentelemetry-instrumentation-aio-pika", "opentelemetry-instrumentation-requests", "opentelemetry-semantic-conventions",
    "aio-pika", "pyjwt[crypto]", "lazy-object-proxy", "ConfigArgParse", "can-ada", "natsort", "fsspec", "importlib-resources",
    "OpenEXR", "frozendict", "jsonmerge", "aiofiles", "python-dateutil", "requests", "wrapt", "certifi", "huggingface-hub"), host=PIP_NAME)
PIP_HOST = Layer("pip-host", (f"comfyui=={PIP_VERSION}",), with_dependencies=False, host=PIP_NAME)

TESTS = Layer("tests", ("pytest>=8", "pytest-xdist", "ruff", "diffusers", "accelerate"))


def pack_layers(checkout: Path = CHECKOUT) -> tuple[Layer, ...]:
    """Return what every environment holds: torch, the pack's own requirements, the face recognizer, and onnx to make the demo face pack."""
    own = [line for name in ("requirements.txt", "requirements-face.txt") for line in read_lines(checkout / name)]
    return TORCH, Layer("pack", (*own, "onnx")), HEADLESS


def checkout_host_layer(root: Path, name: str) -> Layer:
    """Return what a ComfyUI checkout asks for, in the versions it asks for, whatever that is in its next release.

    All but torch and torchvision, which every host shares: they are gigabytes, match each other, and were chosen for
    this machine.

    Args:
        name: of the host's own environment.
    """
    wanted = [line for line in read_lines(root / "requirements.txt") if distribution_name(line) not in SHARED]
    return Layer("comfyui", tuple(wanted), host=name)
