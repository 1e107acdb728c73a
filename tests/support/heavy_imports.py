"""What every command of the command line imports; for `warm_processes`."""
import diffusers
import insightface  # noqa: F401
import onnxruntime  # noqa: F401
import torch  # noqa: F401
import transformers

# The packages import their parts when they are first asked for.
_PARTS = (
    diffusers.StableDiffusionPipeline, diffusers.StableDiffusionXLPipeline, diffusers.AutoencoderKL, diffusers.UNet2DConditionModel, diffusers.DDIMScheduler,
    transformers.CLIPTextModel, transformers.CLIPTokenizer, transformers.CLIPTextModelWithProjection,
)
