"""Truly tiny MODEL, CLIP and VAE of every family, made of the host's own classes with random weights: load and sample in a second."""
import sys
import types

import torch

WIDTH = 64  # of each text encoder
TEXT_CONFIG = dict(
    architectures=["CLIPTextModel"], attention_dropout=0.0, bos_token_id=0, dropout=0.0, eos_token_id=49407, hidden_act="quick_gelu",
    hidden_size=WIDTH, initializer_factor=1.0, initializer_range=0.02, intermediate_size=128, layer_norm_eps=1e-5,
    max_position_embeddings=77, model_type="clip_text_model", num_attention_heads=2, num_hidden_layers=3, pad_token_id=1,
    projection_dim=WIDTH, torch_dtype="float32", vocab_size=49408,
)


def load(probe):
    """arguments: family (sd1, sd2, sd2-v, sdxl), seed → MODEL, CLIP, VAE."""
    family, seed = probe.arguments["family"], probe.arguments.get("seed", 0)
    # Every test of a session gets the same objects, so whatever one test does to them another may notice.
    kept = sys.modules.setdefault("idea_probe_kept", types.ModuleType("idea_probe_kept")).__dict__.setdefault("models", {})
    if (family, seed) not in kept:
        kept[family, seed] = (_model(family, seed), _clip(family, seed + 1), _vae(seed + 2))
    return {"outputs": kept[family, seed]}


def _fill(module, seed):
    """Random weights that keep activations near unit variance; the host leaves its weights uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.state_dict().items():
        if not parameter.is_floating_point():
            continue
        if parameter.ndim <= 1:
            value = torch.ones(parameter.shape) if name.endswith("weight") else torch.randn(parameter.shape, generator=generator) * 0.02
        else:
            deviation = 0.02 if "embedding" in name else parameter[0].numel() ** -0.5
            value = torch.randn(parameter.shape, generator=generator) * deviation
        parameter.copy_(value)


def _model(family, seed):
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models as supported

    base = {"sd1": supported.SD15, "sd2": supported.SD20, "sd2-v": supported.SD20, "sdxl": supported.SDXL}[family]
    unet = dict(
        image_size=32, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[1, 1], channel_mult=[1, 2], transformer_depth=[1, 1],
        transformer_depth_output=[1, 1, 1, 1], transformer_depth_middle=1, use_linear_in_transformer=family != "sd1", context_dim=WIDTH,
        use_spatial_transformer=True, legacy=False, adm_in_channels=None, use_temporal_attention=False,
    )
    if family == "sdxl":
        unet.update(context_dim=2 * WIDTH, num_classes="sequential", adm_in_channels=WIDTH + 6 * 256)

    class Tiny(base):
        unet_config = unet
        unet_extra_config = dict(num_heads=-1 if family != "sd1" else 4, num_head_channels=16 if family != "sd1" else -1)

        def model_type(self, state_dict, prefix=""):
            kinds = comfy.model_base.ModelType
            return kinds.V_PREDICTION if family == "sd2-v" else kinds.EPS

    config = Tiny(dict(unet, dtype=torch.float32))
    if hasattr(config, "set_inference_dtype"):
        config.set_inference_dtype(torch.float32, None)
    offload = management.unet_offload_device()
    model = config.get_model({}, "", device=offload)
    _fill(model.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(model, load_device=management.get_torch_device(), offload_device=offload)


def _clip(family, seed):
    import comfy.sd
    import comfy.sd1_clip as sd1
    import comfy.sdxl_clip as sdxl
    import comfy.supported_models_base
    import folder_paths

    try:
        from comfy.text_encoders.sd2_clip import SD2Tokenizer
    except ImportError:
        from comfy.sd2_clip import SD2Tokenizer

    def inner(act, **options):
        class Inner(sd1.SDClipModel):
            def __init__(self, device="cpu", dtype=None, **ignored):
                super().__init__(device=device, dtype=dtype, textmodel_json_config=dict(TEXT_CONFIG, hidden_act=act), **options)

        return Inner

    padded = {"start": 49406, "end": 49407, "pad": 0}
    if family == "sdxl":
        clip_l = inner("quick_gelu", layer="hidden", layer_idx=-2, layer_norm_hidden_state=False)
        clip_g = inner("gelu", layer="hidden", layer_idx=-2, layer_norm_hidden_state=False, special_tokens=padded)

        class Model(sdxl.SDXLClipModel):
            def __init__(self, device="cpu", dtype=None, **ignored):
                torch.nn.Module.__init__(self)
                self.clip_l, self.clip_g = clip_l(device, dtype), clip_g(device, dtype)
                self.dtypes = {dtype}

        tokenizer = sdxl.SDXLTokenizer
    else:
        one = inner("quick_gelu") if family == "sd1" else inner("gelu", layer="hidden", layer_idx=-2, special_tokens=padded)

        class Model(sd1.SD1ClipModel):
            def __init__(self, device="cpu", dtype=None, **ignored):
                super().__init__(device=device, dtype=dtype, clip_name="l" if family == "sd1" else "h", clip_model=one)

        tokenizer = sd1.SD1Tokenizer if family == "sd1" else SD2Tokenizer
    target = comfy.supported_models_base.ClipTarget(tokenizer, Model)
    clip = comfy.sd.CLIP(target, embedding_directory=folder_paths.get_folder_paths("embeddings"))
    _fill(clip.cond_stage_model, seed)
    return clip


def _vae(seed):
    import comfy.sd
    import comfy.taesd.taesd

    taesd = comfy.taesd.taesd.TAESD()
    _fill(taesd, seed)
    weights = {name: tensor.clone() for name, tensor in taesd.state_dict().items()}
    if "vae_scale" in weights:
        weights["vae_scale"] = torch.tensor(1.0)
    return comfy.sd.VAE(sd=weights)


def controlnet(probe):
    """A ControlNet for the tiny SDXL, on output 0; arguments: seed."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management as management

    made = comfy.cldm.cldm.ControlNet(
        image_size=32, in_channels=4, hint_channels=3, model_channels=32, num_res_blocks=[1, 1], channel_mult=[1, 2], transformer_depth=[1, 1],
        transformer_depth_middle=1, use_linear_in_transformer=True, context_dim=2 * WIDTH, use_spatial_transformer=True, legacy=False,
        num_classes="sequential", adm_in_channels=WIDTH + 6 * 256, num_head_channels=16, dtype=torch.float32,
    )
    _fill(made, probe.arguments.get("seed", 5))
    return {"outputs": (comfy.controlnet.ControlNet(made, load_device=management.get_torch_device()),)}


def foreign(probe):
    """A MODEL and a CLIP of families we do not support: a CLIP with a T5, a MODEL without UNet blocks."""
    import comfy.model_patcher

    clip = _clip("sd1", 0)
    clip.cond_stage_model.t5xxl = torch.nn.Module()
    clip.cond_stage_model.t5xxl.transformer = torch.nn.Linear(2, 2)
    model = torch.nn.Module()
    model.diffusion_model = torch.nn.Linear(2, 2)
    cpu = torch.device("cpu")
    return {"outputs": (comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu), clip)}
