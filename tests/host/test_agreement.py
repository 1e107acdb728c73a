"""One model in two formats, one identity file, one answer: a real ComfyUI and diffusers predict the same noise."""
from dataclasses import replace

import pytest
import torch

from tiny_graphs import apply, enhanced, probe, tiny, train
from tiny_identities import random_identity

TEXT = "a photo of <anna> person, wearing an oversized sweater"
TIMESTEPS = (30, 500, 950)
BOUNDARIES = (199, 200, 599, 600)  # the last timestep of one of five stages and the first of the next
TOLERANCE = 1e-4


def sd1_pipeline(folder):
    """The host's tiny SD1.5 model, exported by `agreement:weights`, as a StableDiffusionPipeline."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from portrait_world import tokenizer
    from portrait_world.networks.denoiser import DIFFUSERS_CONFIG, host_key

    host_unet, host_text = load_file(folder / "unet.safetensors"), load_file(folder / "text.safetensors")
    width = host_unet["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    # The arrangement of blocks is that of the Portrait World, which has the map between the two dialects; only the widths differ.
    unet = UNet2DConditionModel(**{**DIFFUSERS_CONFIG, "block_out_channels": (32, 64), "attention_head_dim": 4, "cross_attention_dim": width})
    unet.load_state_dict({key: host_unet[host_key(key)] for key in unet.state_dict()})
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3, num_attention_heads=2, hidden_act="quick_gelu",
        max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    ))
    missing, _ = text.load_state_dict({key: value for key, value in host_text.items() if key in text.state_dict()}, strict=False)
    assert all(key.endswith("position_ids") for key in missing)
    vocabulary, merges = tokenizer.write_files(folder / "tokenizer")
    vae = AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    return StableDiffusionPipeline(
        vae=vae.train(False), text_encoder=text.train(False), unet=unet.train(False),
        tokenizer=CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77, pad_token="<|endoftext|>"),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )


def latents_file(folder):
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(11)
    path = folder / "latents.safetensors"
    save_file({name: torch.randn(1, 4, 16, 16, generator=generator) for name in ("x0", "noise")}, path)
    return path


def diffusers_prediction(pipe, held, timestep):
    """(context, ε) of the pipeline as it is now."""
    alpha = pipe.scheduler.alphas_cumprod[timestep].float()
    noisy = alpha.sqrt() * held["x0"] + (1 - alpha).sqrt() * held["noise"]
    context = pipe.encode_prompt(TEXT, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        return context, pipe.unet(noisy, torch.tensor(timestep), encoder_hidden_states=context, return_dict=False)[0]


def compare(host, graph, loader, pipe, path, folder, timesteps=TIMESTEPS):
    """Both worlds with the identity of the file ``path`` at several timesteps: they agree, and the identity matters."""
    from safetensors.torch import load_file

    from idea_engine.applying.diffusers import applied
    from idea_engine.identity.file import load_identity

    latents, answer = latents_file(folder), folder / "answer.safetensors"
    held, identity = load_file(latents), load_identity(path)
    person = graph.add("IDEA_LoadIdentity", identity=host.base.add_identity(path))
    on = apply(graph, loader[0], loader[1], person[0])
    for timestep in timesteps:
        plain = diffusers_prediction(pipe, held, timestep)[1]
        with applied(pipe, [identity]):
            context, output = diffusers_prediction(pipe, held, timestep)
        asked = {"text": TEXT, "timestep": timestep, "latents": str(latents), "file": str(answer)}
        host.probe(graph, "agreement:prediction", asked, a=on[0], b=on[1])
        theirs = load_file(answer)
        torch.testing.assert_close(theirs["context"], context, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(theirs["output"], output, atol=TOLERANCE, rtol=0)
        assert (plain - output).abs().max() > 100 * TOLERANCE


@pytest.fixture
def both(host, graph, tmp_path):
    """The tiny SD1.5 model: in the host's graph, and as a pipeline."""
    loader = tiny(graph)
    host.probe(graph, "agreement:weights", {"folder": str(tmp_path)}, a=loader[0], b=loader[1])
    return loader, sd1_pipeline(tmp_path)


@pytest.mark.parametrize("recipe", ("fast", "paper", "released"))
def test_both_worlds_predict_the_same_noise_with_an_applied_identity(host, graph, both, tmp_path, recipe):
    from idea_engine.backends.diffusers import DiffusersBackend
    from idea_engine.identity.file import save_identity

    loader, pipe = both
    path = save_identity(random_identity(DiffusersBackend(pipe), recipe=recipe), tmp_path / f"agreement_{recipe}")
    compare(host, graph, loader, pipe, path, tmp_path)


def test_both_worlds_name_a_base_model_alike(host, graph, both):
    """So that what ``idea-engine check`` advises for a checkpoint is found by the nodes."""
    from idea_engine.judging.base_advice import base_hash

    loader, pipe = both
    theirs = host.probe(graph, "identities:base_hash", a=loader[0], b=loader[1], c=loader[2])
    assert theirs == base_hash(pipe.unet.state_dict().items())


@pytest.mark.parametrize("recipe", ("sefi", "fast"))
def test_both_worlds_read_the_same_stage_up_to_its_last_timestep(host, graph, both, tmp_path, recipe):
    """Stages alone, and stages with keys and values of their own."""
    from idea_engine.backends.diffusers import DiffusersBackend
    from idea_engine.identity.file import save_identity

    loader, pipe = both
    backend = DiffusersBackend(pipe)
    identity = replace(random_identity(backend, recipe=recipe), stages=random_identity(backend, recipe="sefi", seed=1).stages)
    path = save_identity(identity, tmp_path / f"agreement_stages_{recipe}")
    compare(host, graph, loader, pipe, path, tmp_path, (*TIMESTEPS, *BOUNDARIES))


def test_an_identity_trained_with_diffusers_is_the_same_person_in_the_host(host, graph, both, tmp_path):
    from idea_engine.backends.diffusers import DiffusersBackend
    from idea_engine.identity.anchor import compute_anchor
    from idea_engine.identity.enhanced import EnhancedIdentity
    from idea_engine.identity.file import save_identity
    from idea_engine.training.loop import TrainConfig, train as learn

    loader, pipe = both
    backend = DiffusersBackend(pipe)
    face = torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(0)), dim=0)
    start = EnhancedIdentity(backend.family, face, compute_anchor(backend, ["human face"]))
    photo = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1))
    identity, _ = learn(backend, start, [photo], TrainConfig(recipe="paper", steps=3, batch=2, resolution=64, lr=0.05))
    compare(host, graph, loader, pipe, save_identity(identity, tmp_path / "from_diffusers"), tmp_path)


def test_an_identity_trained_in_the_host_is_the_same_person_with_diffusers(host, graph, both, tmp_path):
    loader, pipe = both
    photo = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)
    trained = train(graph, loader, photo[0], enhanced(graph, loader[1])[0], lr=0.05)
    graph.add("IDEA_SaveIdentity", identity=trained[0], filename="from_comfyui")
    host.run(graph)
    path = host.base.root / "models" / "idea" / "from_comfyui.safetensors"
    compare(host, type(graph)({k: v for k, v in graph.prompt.items() if k == loader.id}), loader, pipe, path, tmp_path)


def test_the_portrait_world_is_one_model_in_both_worlds(host, graph, tmp_path):
    from idea_engine.backends.diffusers import DiffusersBackend
    from idea_engine.identity.file import save_identity
    from portrait_world.pipeline import load_pipeline

    pipe = load_pipeline()
    path = save_identity(random_identity(DiffusersBackend(pipe)), tmp_path / "agreement_world")
    compare(host, graph, probe(graph, "agreement:portrait_world"), pipe, path, tmp_path)
