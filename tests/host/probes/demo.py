"""The Portrait World inside a host, beside diffusers in the same process: one model, two programs."""
import torch


def _pipeline(probe):
    pipe = probe.module("portrait_world.pipeline").load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def diffusers_picture(probe):
    """a: the host's latent before the first step's scaling; arguments: text, steps, cfg → LATENT and IMAGE of diffusers' own Euler steps."""
    from comfy.sample import prepare_noise
    from diffusers import EulerDiscreteScheduler

    pipe, wanted = _pipeline(probe), probe.arguments
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
    noise = prepare_noise(probe.a["samples"], wanted["seed"])
    pipe.scheduler.set_timesteps(wanted["steps"])
    largest = pipe.scheduler.sigmas[0]
    start = noise * (1 + largest**2).sqrt() / largest  # the host starts at the full variance, diffusers at sigma alone
    options = dict(num_inference_steps=wanted["steps"], guidance_scale=wanted["cfg"], height=128, width=128)
    with torch.inference_mode(False), torch.no_grad():
        latent = pipe(wanted["text"], latents=start.clone(), output_type="latent", **options).images
        picture = pipe(wanted["text"], latents=start.clone(), output_type="pt", **options).images
    return {"outputs": ({"samples": latent / 0.18215}, picture.permute(0, 2, 3, 1))}


def predictions(probe):
    """a: MODEL, b: CONDITIONING → largest difference of the predicted noise to diffusers' UNet at several noise levels, and its usual size."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([probe.a])
    model, context = probe.a.model, probe.b[0][0].float()
    differences, size = {}, []
    with torch.inference_mode(False), torch.no_grad():
        unet = _pipeline(probe).unet
        for step in (0, 10, 250, 700, 999):
            sigma = model.model_sampling.sigmas[step].clone().reshape(1)
            noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(step)) * (1 + sigma**2).sqrt()
            ours = unet(noisy / (1 + sigma**2).sqrt(), step, context.clone()).sample
            clean = model.apply_model(noisy, sigma, c_crossattn=context.clone(), transformer_options={})
            differences[step] = float(((noisy - clean) / sigma - ours).abs().max() * min(1.0, float(sigma)))  # at small sigma the host's answer is a small difference
            size.append(float(ours.abs().mean()))
    return {"differences": differences, "size": sum(size) / len(size)}


def text_difference(probe):
    """a: CONDITIONING; arguments: text → largest difference to the condition of transformers' CLIPTextModel."""
    pipe = _pipeline(probe)
    with torch.inference_mode(False), torch.no_grad():
        theirs, _ = pipe.encode_prompt(probe.arguments["text"], "cpu", 1, False)
    return {"difference": float((probe.a[0][0].float() - theirs).abs().max()), "size": float(theirs.abs().mean())}


def grey_levels(probe):
    """a, b: IMAGEs of one shape → largest and mean difference, and PSNR in dB; steps of 1/255."""
    gap = (probe.a - probe.b).abs() * 255
    return {"largest": float(gap.max()), "mean": float(gap.mean()), "psnr": float(10 * torch.log10(255**2 / (gap**2).mean().clamp_min(1e-9)))}


def ramps(probe):
    """A picture that is no portrait, 128 × 128."""
    x = torch.linspace(0, 1, 128)
    return {"outputs": (torch.stack([x.expand(128, 128), x[:, None].expand(128, 128), torch.full((128, 128), 0.5)], -1)[None],)}


def latent_size(probe):
    """a: LATENT → its shape, mean and spread as the denoiser sees it."""
    samples = probe.a["samples"]
    return {"shape": list(samples.shape), "std": float((samples * 0.18215).std()), "finite": bool(torch.isfinite(samples).all())}


def latent_gap(probe):
    """a, b: LATENTs → their mean absolute difference."""
    return float((probe.a["samples"] - probe.b["samples"]).abs().mean())
