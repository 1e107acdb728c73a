"""Tiny real diffusers pipelines of the three families, with random weights and the real byte-pair tokenizer's shape of vocabulary."""
from __future__ import annotations

import json
from pathlib import Path

import torch

FAMILIES = ("sd1", "sd2", "sd2-v", "sdxl")
WIDTH = 32


def tiny_tokenizer(folder: Path, size: int = 0):
    """A CLIPTokenizer over a vocabulary of single letters and a few merged words: every text can be spelled. Filled up to ``size`` with others."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    merges = ["p h", "ph o", "t o</w>", "pho to</w>", "f a", "c e</w>", "fa ce</w>"]
    words = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    words += [f"<unused {i}>" for i in range(size - len(dict.fromkeys(words)) - 2)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77, pad_token="<|endoftext|>")


def tiny_pipeline(family: str, folder: Path, seed: int = 0):
    """A pipeline of ``family`` on the CPU in float32, a few hundred thousand weights, its weights depending on ``seed`` only."""
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(folder / "tokenizer")
    sdxl = family == "sdxl"

    def text_encoder(act: str, projected: bool = False):
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, hidden_act=act,
            max_position_embeddings=77, projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, initializer_factor=1.0,
        )
        return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).train(False)

    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH * (2 if sdxl else 1), attention_head_dim=8,
        **(dict(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=8 * 6 + WIDTH) if sdxl else {}),
    ).train(False)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).train(False)
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction" if family == "sd2-v" else "epsilon", clip_sample=False, steps_offset=1,
    )
    if sdxl:
        return StableDiffusionXLPipeline(
            vae=vae, text_encoder=text_encoder("quick_gelu"), text_encoder_2=text_encoder("gelu", True), tokenizer=tokenizer,
            tokenizer_2=tokenizer, unet=unet, scheduler=scheduler,
        )
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder("quick_gelu" if family == "sd1" else "gelu"), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
