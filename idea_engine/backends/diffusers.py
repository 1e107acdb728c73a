"""A diffusers pipeline (SD1.x, SD2.x, SDXL) as the engine sees it."""
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from ..files.fingerprint import fingerprint
from .attention_maps import map_blocks
from .base import CrossAttentionEdit, Prediction, Prompt, TextCondition
from .family import ModelFamily
from .frozen_layers import lean

CHUNK = 77  # positions of CLIP's text encoders


class DiffusersBackend:
    """Implements :class:`~idea_engine.backends.base.DiffusionBackend` on a pipeline that stays where its owner put it."""

    def __init__(self, pipe):
        """Args: pipe: a StableDiffusionPipeline or StableDiffusionXLPipeline.

        Raises:
            UnsupportedModelError: the pipeline's encoders or prediction type are of no supported family.
        """
        self.unet, self.vae, self.scheduler = pipe.unet, pipe.vae, pipe.scheduler
        second = getattr(pipe, "text_encoder_2", None)
        encoders = [pipe.text_encoder] + ([second] if second is not None else [])
        widths = [encoder.config.hidden_size for encoder in encoders]
        if self.unet.config.cross_attention_dim != sum(widths) or self.unet.config.in_channels != 4:
            raise UnsupportedModelError(
                f"The UNet reads {self.unet.config.cross_attention_dim} features and {self.unet.config.in_channels} latent channels, the text "
                f"encoders give {sum(widths)}. Supported are SD1.x, SD2.x and SDXL text-to-image pipelines."
            )
        if second is not None:
            keys = ("clip_l", "clip_g")
        else:
            # SD2's encoder is OpenCLIP's ViT-H: plain GELU where SD1's CLIP-L has QuickGELU.
            keys = ("clip_l",) if encoders[0].config.hidden_act == "quick_gelu" else ("clip_h",)
        name = "sdxl" if second is not None else {"clip_l": "sd1", "clip_h": "sd2"}[keys[0]]
        self.family = ModelFamily(name, dict(zip(keys, widths)))
        self.encoders: dict[str, nn.Module] = dict(zip(keys, encoders))
        self.tokenizers = dict(zip(keys, [pipe.tokenizer] + ([pipe.tokenizer_2] if second is not None else [])))
        self.prediction_type = self.scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UnsupportedModelError(f"The model predicts '{self.prediction_type}'; supported are epsilon and v_prediction.")
        self.alphas = self.scheduler.alphas_cumprod.float()
        self.timesteps = len(self.alphas)
        self.blocks = cross_attention_modules(self.unet)
        self.block_widths = tuple(block.to_k.out_features for block in self.blocks)
        self.block_scales = cross_attention_scales(self.unet)
        self.encoder_blocks = sum(name.endswith("attn2") for name, _ in self.unet.down_blocks.named_modules())
        self.text_hash = fingerprint(
            (f"{key}.{name}", tensor) for key, encoder in self.encoders.items() for name, tensor in encoder.state_dict().items()
        )
        self._edit = CrossAttentionEdit()  # what the hooks of :meth:`_edited` apply
        self._hooked = False

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def needs_loss_scaling(self) -> bool:
        return self.unet.dtype == torch.float16

    def word_ids(self, text: str) -> list[int]:
        return next(iter(self.tokenizers.values()))(text, add_special_tokens=False).input_ids

    def tokenize(self, before: str, after: str, count: int) -> Prompt:
        ids: dict[str, Tensor] = {}
        for key, tokenizer in self.tokenizers.items():
            head = tokenizer(before, add_special_tokens=False).input_ids
            tail = tokenizer(after, add_special_tokens=False).input_ids
            words = ([tokenizer.bos_token_id] + head + [tokenizer.eos_token_id] * count + tail)[: CHUNK - 1]
            positions = tuple(range(1 + len(head), 1 + len(head) + count))
            pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
            row = words + [tokenizer.eos_token_id]
            ids[key] = torch.tensor(row + [pad] * (CHUNK - len(row)))
            end = len(words)
        return Prompt(ids, positions, end)

    def token_rows(self, encoder: str, ids: Tensor) -> Tensor:
        table = self.encoders[encoder].get_input_embeddings()
        return torch.nn.functional.embedding(ids.to(table.weight.device), table.weight).float()

    def encode_text(self, inputs: Mapping[str, Tensor], ends: Sequence[int]) -> TextCondition:
        outputs, pooled = {}, None
        for key, encoder in self.encoders.items():
            rows, table = inputs[key], encoder.get_input_embeddings()
            # The ids only tell the encoder where to read its pooled feature; the hook feeds the real rows.
            ids = torch.zeros(rows.shape[:2], dtype=torch.long, device=rows.device)
            ids[torch.arange(len(ends)), torch.tensor(list(ends))] = self.tokenizers[key].eos_token_id
            handle = table.register_forward_hook(lambda module, args, out, rows=rows: rows.to(out))
            try:
                out = encoder(ids, output_hidden_states=True)
            finally:
                handle.remove()
            outputs[key] = (out.hidden_states[-2] if self.family.name == "sdxl" else out.last_hidden_state).float()
            if key == "clip_g":
                pooled = out.text_embeds.float()
        return TextCondition(self.family.join(outputs), pooled)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        with self._precise_vae():
            pixels = images.permute(0, 3, 1, 2).to(self.vae.device, self.vae.dtype) * 2 - 1
            # The mode, as hosts do: a fixed target needs no sampling noise of its own.
            latents = self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor
        return latents.float().to(self.device)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        with self._precise_vae():
            pixels = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)).sample
        return (pixels.float() / 2 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1).cpu()

    @contextmanager
    def _precise_vae(self) -> Iterator[None]:
        """While open, an autoencoder that overflows in float16, as SDXL's does and says, computes in float32; afterwards its weights are what they were."""
        dtype = self.vae.dtype
        overflows = dtype == torch.float16 and getattr(self.vae.config, "force_upcast", False)
        try:
            if overflows:
                self.vae.to(torch.float32)
            yield
        finally:
            if overflows:
                self.vae.to(dtype)

    def predict(self, latents: Tensor, noise: Tensor, timesteps: Tensor, condition: TextCondition, edit: CrossAttentionEdit) -> Prediction:
        alpha = self.alphas.to(latents.device)[timesteps].view(-1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        noisy, snr = signal * latents + sigma * noise, (alpha / (1 - alpha)).flatten()
        self._edit = edit
        with self._edited():
            output = self.unet(
                noisy.to(self.unet.dtype), timesteps, condition.context.to(self.unet.dtype),
                added_cond_kwargs=self._added(latents, condition), return_dict=False,
            )[0].float()
        if self.prediction_type == "epsilon":
            return Prediction(output, noise, ((noisy - sigma * output) / signal).detach(), snr, False)
        return Prediction(output, signal * noise - sigma * latents, (signal * noisy - sigma * output).detach(), snr, True)

    def _added(self, latents: Tensor, condition: TextCondition) -> dict[str, Tensor] | None:
        if condition.pooled is None:
            return None
        height, width = (8 * side for side in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], device=latents.device, dtype=self.unet.dtype)
        return {"text_embeds": condition.pooled.to(self.unet.dtype), "time_ids": sizes.expand(latents.shape[0], -1)}

    @contextmanager
    def training(self, checkpointing: bool = False) -> Iterator[None]:
        models = [self.unet, self.vae, *self.encoders.values()]
        needed = [p for model in models for p in model.parameters() if p.requires_grad]
        was_checkpointing = getattr(self.unet, "is_gradient_checkpointing", False)
        for parameter in needed:
            parameter.requires_grad_(False)
        try:
            if checkpointing and not was_checkpointing:
                self.unet.enable_gradient_checkpointing()
            # The hooks stay for the backward pass too: checkpointing runs the blocks again there.
            with self._edited(), lean(self.unet), torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            if checkpointing and not was_checkpointing:
                self.unet.disable_gradient_checkpointing()
            for parameter in needed:
                parameter.requires_grad_(True)

    @contextmanager
    def _edited(self) -> Iterator[None]:
        """While open, the cross-attention blocks read what ``self._edit`` says; opening it twice is the same as once."""
        if self._hooked:
            yield
            return
        with ExitStack() as stack:
            stack.callback(setattr, self, "_hooked", False)
            self._hooked = True
            for number, block in enumerate(self.blocks):
                for kind, projection in enumerate((block.to_k, block.to_v)):
                    stack.callback(projection.register_forward_pre_hook(self._context_hook(number, kind)).remove)
                    stack.callback(projection.register_forward_hook(self._weight_hook(number, kind)).remove)
            for number in map_blocks(self.block_scales):
                for hook, projection in zip(self._map_hooks(number), (self.blocks[number].to_q, self.blocks[number].to_k)):
                    stack.callback(projection.register_forward_hook(hook).remove)
            yield

    def _context_hook(self, number: int, kind: int):
        return lambda module, args: (self._edit.contexts(number, args[0])[kind],)

    def _weight_hook(self, number: int, kind: int):
        def hook(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
            weights = (self._edit.key_weights, self._edit.value_weights)[kind]
            return out + args[0] @ weights[number].to(args[0]).T if weights else out

        return hook

    def _map_hooks(self, number: int):
        """For the block's query and key projections: attention is looked at beside the block's own, which runs as always."""
        held: list[Tensor] = []  # the queries, until the keys follow

        def query(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            if self._edit.maps is not None:
                held[:] = [out]

        def key(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            if self._edit.maps is not None and held:
                self._edit.maps.add(number, held.pop(), out, self.blocks[number].heads)

        return query, key

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, torch.OutOfMemoryError)

    def release_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def cross_attention_modules(unet: nn.Module) -> list[nn.Module]:
    """The ``attn2`` modules in the order in which the UNet runs them: down, middle, up."""
    stages = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [module for stage in stages if stage is not None for name, module in stage.named_modules() if name.endswith("attn2")]


def cross_attention_scales(unet: nn.Module) -> tuple[int, ...]:
    """How many times coarser than the latent the grid of each of :func:`cross_attention_modules` is."""
    levels = len(unet.down_blocks)
    stages = [*zip(range(levels), unet.down_blocks), (levels - 1, unet.mid_block), *zip(reversed(range(levels)), unet.up_blocks)]
    return tuple(2**level for level, stage in stages if stage is not None for name, _ in stage.named_modules() if name.endswith("attn2"))
