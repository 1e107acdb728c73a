"""The host's own MODEL, CLIP and VAE as the engine's training backend."""
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...idea_engine.applying.applied import AppliedIdentity
from ...idea_engine.backends.attention_maps import map_blocks
from ...idea_engine.backends.base import CrossAttentionEdit, Prediction, Prompt, TextCondition
from ...idea_engine.backends.frozen_layers import lean
from ...idea_engine.errors import UnsupportedModelError
from ...idea_engine.files.fingerprint import fingerprint
from ...idea_engine.identity.identity import Identity, IdentityMetadata
from ...idea_engine.judging.base_advice import base_hash
from .family import SUPPORTED, check_model, clip_encoders, clip_family, cross_attention_blocks, cross_attention_scales
from .frozen import borrowed, checkpointed, mutates_saved_tensors
from .places import find_places
from .plain_weights import check_can_be_plain, check_same, give_back, lasting_casts, own_weights, plain, plain_clip
from .prompt_tokens import with_identity

_SLOT = "<idea-slot>"  # stands for the pseudo-tokens while a template is tokenized


class TextBackend:
    """The text half, all that the anchor needs.

    It implements the text calls of :class:`~idea_engine.backends.base.DiffusionBackend`.

    Attributes:
        clip: what is connected. Its weights may be hidden (:mod:`.plain_weights`); what computes is :attr:`text`.
    """

    def __init__(self, clip):
        """Raises: UnsupportedModelError: see :mod:`.family` and :mod:`.plain_weights`."""
        self.clip = clip
        self.family = clip_family(clip)
        check_can_be_plain(clip.patcher, "CLIP")
        self.text_hash = fingerprint(_text_weights(clip))
        self._text = None

    @property
    def text(self):
        """The CLIP whose weights lie open: :attr:`clip` itself, or a twin of it that is kept until :meth:`close`.

        Raises: UnsupportedModelError: see :func:`~.plain_weights.check_same`.
        """
        if self._text is None:
            clip = plain_clip(self.clip)
            if clip is not self.clip:
                check_same(self.text_hash, fingerprint(_text_weights(clip)), "CLIP")
            self._text = clip
        return self._text

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """Encoder key → the host's ``SDClipModel`` of it, with open weights."""
        return clip_encoders(self.text)

    def close(self) -> None:
        """Give back what was made to open the weights."""
        if self._text is not None and self._text is not self.clip:
            give_back(self._text.patcher)
        self._text = None

    @property
    def device(self) -> torch.device:
        return self.clip.patcher.load_device

    def load(self) -> None:
        """Let the host bring the text encoder to its device."""
        self.text.load_model()

    def word_ids(self, text: str) -> list[int]:
        return word_ids(self.clip, text)

    def _tokenizers(self) -> list:
        return [getattr(self.clip.tokenizer, key) for key in self.family.encoders]

    def tokenize(self, before: str, after: str, count: int) -> Prompt:
        if count:
            # Through the very path that prompts take when the identity is applied, so that training and use agree token by token.
            marks = {key: torch.randn(count, width, generator=torch.Generator().manual_seed(0)) for key, width in self.family.encoders.items()}
            applied = AppliedIdentity(Identity(self.family, marks, IdentityMetadata(_SLOT, "slot", self.family.name)))
            pairs = with_identity(self.clip, applied).tokenize(f"{before}{_SLOT}{after}")
            positions = find_places(pairs, [applied])[0].positions
        else:
            pairs, positions = self.clip.tokenize(before + after), ()
        ids = {}
        for key in self.family.encoders:
            chunk = pairs[key.removeprefix("clip_")][0]
            ids[key] = torch.tensor([0 if torch.is_tensor(entry[0]) else int(entry[0]) for entry in chunk])
        stop = self._tokenizers()[0].end_token
        first = positions[-1] + 1 if positions else 1
        first_key = next(iter(ids))
        end = next(i for i in range(first, len(ids[first_key])) if ids[first_key][i] == stop)
        return Prompt(ids, positions, end)

    def token_rows(self, encoder: str, ids: Tensor) -> Tensor:
        table = self.encoders[encoder].transformer.get_input_embeddings().weight
        return torch.nn.functional.embedding(ids.to(table.device), table).float().to(self.device)

    def encode_text(self, inputs: Mapping[str, Tensor], ends: Sequence[int]) -> TextCondition:
        holder = self.text.cond_stage_model
        holder.reset_clip_options()
        if self.clip.layer_idx is not None:
            holder.set_clip_options({"layer": self.clip.layer_idx})
        outputs, pooled = {}, None
        for key, encoder in self.encoders.items():
            outputs[key], projected = _walk(encoder, inputs[key], ends)
            if key == "clip_g":
                pooled = projected
        return TextCondition(self.family.join(outputs), pooled)


def _walk(encoder, rows: Tensor, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The host's text encoder, module by module, out of place: its own forward adds in place, which has no backward.

    Args:
        rows: (B, L, w) input embeddings.

    Returns:
        (B, L, w) as the host's ``encode`` gives it, and the projected pooled feature (B, w).
    """
    from comfy.ldm.modules.attention import optimized_attention_for_device

    text = encoder.transformer.text_model
    x = rows + text.embeddings.position_embedding.weight.to(rows)
    mask = torch.full((x.shape[1], x.shape[1]), -torch.finfo(x.dtype).max, dtype=x.dtype, device=x.device).triu_(1)
    attention = optimized_attention_for_device(x.device, mask=True, small_input=True)
    layers = list(text.encoder.layers)
    wanted = encoder.layer_idx % len(layers) if encoder.layer == "hidden" else None
    hidden = None
    for number, layer in enumerate(layers):
        x = x + layer.self_attn(layer.layer_norm1(x), mask, attention)
        x = x + layer.mlp(layer.layer_norm2(x))
        if number == wanted:
            hidden = x
    last = text.final_layer_norm(x)
    if hidden is not None and encoder.layer_norm_hidden_state:
        hidden = text.final_layer_norm(hidden)
    pooled = encoder.transformer.text_projection(last[torch.arange(len(ends)), torch.tensor(list(ends))])
    return (last if hidden is None else hidden).float(), pooled.float()


class ComfyBackend(TextBackend):
    """Implements :class:`~idea_engine.backends.base.DiffusionBackend` on what is connected to TrainIDEA."""

    timesteps = 1000

    def __init__(self, model, clip, vae):
        """Raises: UnsupportedModelError, FamilyMismatchError: see :mod:`.family`."""
        super().__init__(clip)
        self.model, self.vae = model, vae
        connected = check_model(model, self.family)
        check_can_be_plain(model, "MODEL")
        self._denoiser = None
        self.prediction = model.model.model_type.name
        channels = connected.input_blocks[0][0].weight.shape[1]
        if self.prediction not in ("EPS", "V_PREDICTION") or channels != 4:
            raise UnsupportedModelError(
                f"The MODEL predicts {self.prediction} from {channels} latent channels; training supports {SUPPORTED} with 4 channels "
                "(no inpainting or depth checkpoints). Train on the family's base checkpoint; the identity then works with the others."
            )
        blocks = cross_attention_blocks(connected)
        self.numbers = {key: i for i, key in enumerate(blocks)}
        self.block_widths = tuple(block.attn2.to_k.weight.shape[0] for _, block in blocks.values())
        self.block_scales = cross_attention_scales(connected)
        self.encoder_blocks = sum(stage == "input" for stage, *_ in self.numbers)
        self._mutates: bool | None = None

    @property
    def denoiser(self):
        """The MODEL whose weights lie open: :attr:`model` itself, or a twin of it that is kept until :meth:`close`.

        Raises: UnsupportedModelError: see :func:`~.plain_weights.check_same`.
        """
        if self._denoiser is None:
            model = plain(self.model, "MODEL")
            if model is not self.model:
                check_same(*(fingerprint(_unet_weights(patcher)) for patcher in (self.model, model)), "MODEL")
            self._denoiser = model
        return self._denoiser

    @property
    def unet(self) -> nn.Module:
        """The UNet with open weights."""
        return self.denoiser.model.diffusion_model

    def close(self) -> None:
        if self._denoiser is not None and self._denoiser is not self.model:
            give_back(self._denoiser)
        self._denoiser = None
        super().close()

    def vae_hash(self) -> str:
        """Content hash of the VAE."""
        return fingerprint(own_weights(self.vae.patcher, self.vae.first_stage_model))

    def model_hash(self) -> str:
        """Content hash of the UNet with its patches and noise schedule: what a training result depends on besides the text encoder."""
        patched = (pair for name, patches in self.model.patches.items() for pair in patch_tensors(name, patches))
        sampling = self.model.get_model_object("model_sampling")  # another one where ModelSamplingDiscrete is connected
        schedule = (f"sampling {' '.join(kind.__name__ for kind in type(sampling).__mro__)}", sampling.sigmas)
        return fingerprint([*_unet_weights(self.model), *patched, schedule])

    def base_hash(self) -> str:
        """Names the checkpoint's UNet as the command line does too, whatever is patched onto it."""
        return base_hash(_unet_weights(self.model))

    @property
    def precision(self) -> str:
        """What the UNet's weights are kept in, such as float16."""
        return str(self.model.model.get_dtype()).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    @property
    def needs_loss_scaling(self) -> bool:
        return (self.model.model.manual_cast_dtype or self.model.model.get_dtype()) == torch.float16

    def load(self) -> None:
        import comfy.model_management as management

        with torch.inference_mode():  # as the host itself loads; its weights stay inference tensors
            management.load_models_gpu([self.denoiser, self.text.patcher])

    def token_rows(self, encoder: str, ids: Tensor) -> Tensor:
        return super().token_rows(encoder, ids).to(self.device)

    def encode_text(self, inputs: Mapping[str, Tensor], ends: Sequence[int]) -> TextCondition:
        where = self.clip.patcher.load_device
        encoded = super().encode_text({key: rows.to(where) for key, rows in inputs.items()}, ends)
        pooled = None if encoded.pooled is None else encoded.pooled.to(self.device)
        return TextCondition(encoded.context.to(self.device), pooled)

    def encode_images(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.model.model.process_latent_in(self.vae.encode(images)).float().to(self.device)

    def decode_latents(self, latents: Tensor) -> Tensor:
        with torch.inference_mode():
            pixels = self.vae.decode(self.model.model.process_latent_out(latents)).float().cpu()
        return pixels.clamp(0.0, 1.0)  # made outside of inference mode, so an ordinary tensor

    def predict(self, latents: Tensor, noise: Tensor, timesteps: Tensor, condition: TextCondition, edit: CrossAttentionEdit) -> Prediction:
        base = self.denoiser.model
        sigma = base.model_sampling.sigma(timesteps).to(latents)
        wide = sigma.view(-1, 1, 1, 1)
        noisy = latents + wide * noise
        denoised = base.apply_model(
            noisy, sigma, c_crossattn=condition.context, transformer_options=self._options(edit), **self._vector(latents, condition)
        )
        if self.prediction == "EPS":
            return Prediction((noisy - denoised) / wide, noise, denoised.detach(), sigma**-2, False)
        # v = α·noise − s·x0 of the variance-preserving form, which is this one scaled by α = 1/√(1+σ²); s = σ·α.
        alpha = (1 + wide**2).rsqrt()
        signal = wide * alpha
        return Prediction((alpha**2 * noisy - denoised) / signal, alpha * noise - signal * latents, denoised.detach(), sigma**-2, True)

    def _vector(self, latents: Tensor, condition: TextCondition) -> dict[str, Tensor]:
        """SDXL's vector condition, made by the host itself."""
        if condition.pooled is None:
            return {}
        height, width = (8 * side for side in latents.shape[-2:])
        made = self.model.model.encode_adm(
            pooled_output=condition.pooled, width=width, height=height, target_width=width, target_height=height, device=self.device
        )
        return {} if made is None else {"y": made.to(self.device)}

    def _options(self, edit: CrossAttentionEdit) -> dict:
        """Fresh transformer options: the host writes into them. Attention goes to SDPA, the only one of the host's with a backward everywhere."""

        watched = map_blocks(self.block_scales)

        def contexts(n: Tensor, context: Tensor, value: Tensor, extra: dict):
            number = self.numbers[extra["block"][0], extra["block"][1], extra.get("block_index", 0)]
            keys, values = edit.contexts(number, context)
            extra["idea_contexts"] = (keys, values, number)
            return n, keys, values

        def cross(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
            keys, values, number = extra["idea_contexts"]
            if edit.key_weights:
                k = k + keys @ edit.key_weights[number].to(keys).T
                v = v + values @ edit.value_weights[number].to(values).T
            if edit.maps is not None and number in watched:
                edit.maps.add(number, q, k, extra["n_heads"])
            return _attend(q, k, v, extra)

        return {
            "patches": {"attn2_patch": [contexts]},
            "patches_replace": {"attn1": {key: _attend for key in self.numbers}, "attn2": {key: cross for key in self.numbers}},
        }

    @contextmanager
    def training(self, checkpointing: bool = False) -> Iterator[None]:
        self.load()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(lasting_casts())
            stack.enter_context(borrowed(self.denoiser.model, self.text.cond_stage_model))
            stack.enter_context(lean(self.unet))
            blocks = [block for _, block in cross_attention_blocks(self.unet).values()]
            if self._mutates is None:
                self._mutates = mutates_saved_tensors(blocks[0], self.family.context_width, self._options(CrossAttentionEdit()), self.device)
            if self._mutates:
                stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            elif checkpointing:
                stack.enter_context(checkpointed(blocks))
            yield

    def is_out_of_memory(self, error: BaseException) -> bool:
        import comfy.model_management as management

        # Backends other than CUDA (MPS, DirectML) raise a plain RuntimeError.
        return isinstance(error, (management.OOM_EXCEPTION, torch.OutOfMemoryError)) or "out of memory" in str(error).lower()

    def release_memory(self) -> None:
        import comfy.model_management as management

        management.soft_empty_cache()


def _attend(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
    heads = extra["n_heads"]
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def word_ids(clip, text: str) -> list[int]:
    """Byte-pair token ids of plain text, without begin or end marks."""
    inner = getattr(clip.tokenizer, next(iter(clip_encoders(clip))))
    return list(inner.tokenizer(text)["input_ids"])[1:-1]  # CLIP's tokenizers always add one of each


def _unet_weights(patcher) -> Iterator[tuple[str, Tensor]]:
    return own_weights(patcher, patcher.model.diffusion_model, "diffusion_model")


def _text_weights(clip) -> Iterator[tuple[str, Tensor]]:
    for key, encoder in clip_encoders(clip).items():
        for name, tensor in own_weights(clip.patcher, encoder.transformer, f"{key}.transformer"):
            # Only SDXL reads the projection; where a checkpoint has none the host leaves it uninitialised, new with
            # every load.
            if key == "clip_g" or not name.startswith("text_projection"):
                yield f"{key}.{name}", tensor
    # A LoRA on the text encoder is a patch beside the weights.
    for name, patches in clip.patcher.patches.items():
        yield from patch_tensors(name, patches)


def patch_tensors(name: str, patches: Sequence) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a host weight patch, with its strengths, under names that say where it was found."""

    def walk(value, path: str) -> Iterator[tuple[str, Tensor]]:
        if isinstance(value, Tensor):
            yield path, value
        elif isinstance(value, (bool, int, float)):
            yield path, torch.tensor([float(value)])
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                yield from walk(item, f"{path}.{number}")
        elif hasattr(value, "weights"):
            yield from walk(value.weights, f"{path}.weights")

    yield from walk(list(patches), f"patch.{name}")
