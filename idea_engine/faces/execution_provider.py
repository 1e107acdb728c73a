"""Where onnxruntime computes: the fastest execution provider that really works on this machine."""
from __future__ import annotations

import logging
from functools import lru_cache

from ..errors import FaceModelError

PROVIDERS = ("auto", "CUDA", "CoreML", "DirectML", "CPU")
_ONNXRUNTIME_NAMES = {
    "CUDA": "CUDAExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
_log = logging.getLogger(__name__)


@lru_cache(maxsize=None)  # one probe and one line in the log per process
def choose_provider(wanted: str) -> tuple[str, ...]:
    """onnxruntime's provider names, in the order to try them; the last is always the CPU.

    A provider counts only if a session with it can be created: an installed onnxruntime-gpu says CUDA whether or not its libraries load.

    Args:
        wanted: one of :data:`PROVIDERS`.

    Raises:
        FaceModelError: a provider other than ``auto`` is asked for and does not work here.
    """
    if wanted not in PROVIDERS:
        raise ValueError(f"provider is {wanted!r}, expected one of {', '.join(PROVIDERS)}")
    candidates = list(_ONNXRUNTIME_NAMES) if wanted == "auto" else [wanted]
    working = next((name for name in candidates if _works(_ONNXRUNTIME_NAMES[name])), None)
    if working is None:
        import onnxruntime

        raise FaceModelError(
            f"The provider {wanted} does not work here: onnxruntime {onnxruntime.__version__} offers "
            f"{', '.join(onnxruntime.get_available_providers())}. Set provider in Load Face Model to auto or CPU"
            f"{', or install onnxruntime-gpu instead of onnxruntime (never both)' if wanted == 'CUDA' else ''}."
        )
    if wanted == "auto":
        _log.info("ID-EA: face models run on %s (provider auto)", working)
    return tuple(dict.fromkeys((_ONNXRUNTIME_NAMES[working], _ONNXRUNTIME_NAMES["CPU"])))


def _works(provider: str) -> bool:
    """Whether a session that does nothing can be created with ``provider``, without falling back."""
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return False
    if provider == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds the CUDA libraries that torch's wheels bring
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a failed probe is no news for the user
    try:
        return onnxruntime.InferenceSession(_nothing(), options, providers=[provider]).get_providers()[0] == provider
    except Exception as error:  # each provider raises its own classes
        _log.info("ID-EA: onnxruntime offers %s, but it does not start: %s", provider, error)
        return False


def _nothing() -> bytes:
    """The smallest ONNX model: y = x."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8  # readable by old onnxruntimes
    return model.SerializeToString()
