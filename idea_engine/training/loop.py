"""THE training loop: one person, any method, any backend."""
from __future__ import annotations

import logging
import math
import time
import traceback
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Callable, Sequence

import torch
from torch import Tensor

from ..backends.base import DiffusionBackend, Prompt
from ..backends.templates import tokenize_template
from ..errors import TrainingError
from ..faces.mask import with_hair
from ..identity.anchor import with_start
from ..identity.enhanced import EnhancedIdentity
from ..identity.identity import Identity
from ..methods import build as build_module
from ..methods.module import IdentityModule, parameter_groups, set_trainable
from ..methods.recipe import Recipe
from ..prompts.trigger import check_trigger
from .attention_loss import AttentionLoss
from .batch import Batch, draw_batch
from .checkpoint import Checkpoint, Progress
from .config import TrainConfig
from .expressions import expression_captions
from .losses import face_weights, min_snr_weights, noise_loss
from .pictures import prepare_masks, prepare_photos
from .previews import JUDGED, Best, Preview, PreviewPainter, Previews, best_step
from .prior import Prior
from .report import StepEvent, TrainReport

MAX_BAD_STEPS = 3  # in a row, before training stops
_FIRST_LOSS_SCALE = 2.0**14  # for float16 networks, whose gradients would vanish below 6e-8
_log = logging.getLogger(__name__)


def train(
    backend: DiffusionBackend,
    enhanced: EnhancedIdentity,
    photos: Sequence[Tensor],
    config: TrainConfig,
    *,
    masks: Sequence[Tensor] | None = None,
    on_step: Callable[[StepEvent], None] = lambda event: None,
    checkpoint: Checkpoint | None = None,
    previews: Previews | None = None,
    stop: Callable[[], bool] = lambda: False,
    build: Callable[[EnhancedIdentity, Recipe, Sequence[int]], IdentityModule] = build_module,
    keep: Callable[[Identity], bool] = lambda identity: True,
) -> tuple[Identity, TrainReport]:
    """Learn one person.

    Args:
        photos: pictures of the person, each (H, W, 3) in 0..1.
        masks: where the face is, one (H, W) in 0..1 per photograph; without them a recipe that looks at the face only is trained
            :meth:`~idea_engine.methods.recipe.Recipe.without_masks`.
        on_step: called after every step; whatever it raises ends the training after the work was kept in ``checkpoint``.
        checkpoint: where an interrupted training is kept, and looked for.
        previews: pictures on the way. If they are judged, the most alike of the judged steps is returned, else the last step.
        stop: asked after every step; True ends the training with what is best so far. What was learned stays in ``checkpoint``.
        keep: puts the finished identity (not a stopped one) where it is safe, and says whether it is. Until it is, ``checkpoint`` holds the
            finished training, so that the next run has nothing to learn; whatever ``keep`` raises is raised after that.

    Raises:
        TriggerError, BadImageError: before anything is computed.
        TrainingError: the loss was not finite three times in a row, one picture does not fit into memory, or the attention
            loss was asked to use masks and there are none.
    """
    recipe = config.resolved().refining(enhanced, config.lr)
    check_trigger(config.trigger, backend.word_ids)
    started = time.perf_counter()
    with torch.inference_mode(False):
        faces = None if masks is None else prepare_masks(masks, photos, config.resolution)
        if faces is None and recipe.reads_masks and config.attention != "mask":
            _log.warning("There are no face masks, so the whole picture counts in training. Connect masks of Face Embed to masks of the Train node.")
            recipe = recipe.without_masks()
        run = _Run(backend, enhanced, recipe, config, prepare_photos(photos, config.resolution, masks), build, faces, previews)
        if faces is not None and recipe.hair_share:
            run.weigh(prepare_masks(masks, photos, config.resolution, [with_hair(mask) for mask in masks]))
        try:
            return run.execute(on_step, checkpoint, started, stop, keep)
        finally:
            run.session.close()
            backend.release_memory()


class _Run:
    """The state of one training while it runs."""

    def __init__(
        self, backend: DiffusionBackend, enhanced: EnhancedIdentity, recipe: Recipe, config: TrainConfig, pictures: Tensor, build, faces=None,
        previews: Previews | None = None,
    ):
        self.faces = self.weighed = None if faces is None else torch.cat([faces, faces.flip(2)]).to(backend.device)
        self.backend, self.recipe, self.config = backend, recipe, config
        count = next(iter(enhanced.anchor.rows.values())).shape[0]
        self.micro = min(config.micro_batch or recipe.batch, recipe.batch)
        self.checkpointing = config.checkpointing
        # Every picture and its mirror image, encoded once; the VAE is not needed again.
        mirrored = torch.cat([pictures, pictures.flip(2)])
        self.latents = torch.cat([backend.encode_images(picture[None]).clone() for picture in mirrored])
        self.captions = config.checked_captions(len(pictures))
        if recipe.reads_expressions and not self.captions:
            self.captions = expression_captions(backend, self.latents[: len(pictures)], faces, config.seed)
        self.prompts = [tokenize_template(backend, text, count) for text in config.prompts(self.captions)]
        # Which prompts belong to each latent: with one caption per photograph a row of their own, mirror images included.
        rows = torch.arange(2 * len(pictures)) % len(pictures) if len(self.captions) > 1 else torch.zeros(2 * len(pictures), dtype=torch.long)
        self.first_prompts = rows * len(config.templates)
        if recipe.start != "anchor":
            enhanced = replace(enhanced, anchor=with_start(enhanced.anchor, backend, recipe.start))
        self.module = build(enhanced, recipe, backend.block_widths).to(backend.device)
        self.learns_from = backend.encoder_blocks if recipe.gradient_through == "decoder" else 0
        self.attention = None
        if recipe.attention_weight:
            self.attention = AttentionLoss(backend, recipe.attention_target, self.prompts, self.faces)
        set_trainable(self.module, recipe)
        groups = parameter_groups(self.module, recipe, recipe.step_rate)
        self.base_rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.epsilon, weight_decay=recipe.weight_decay, foreach=True)
        scale = _FIRST_LOSS_SCALE if getattr(backend, "needs_loss_scaling", False) else 1.0
        self.progress = Progress(step=0, losses=[], skipped=0, loss_scale=scale)
        self.denoised = self.latents[:1]
        self.prior = Prior(backend, config.templates) if recipe.prior_weight else None
        self.best, self.previews = Best(), previews
        if previews is not None:
            self.painter = PreviewPainter(backend, count, self.latents.shape[1:], config.seed, JUDGED if previews.judge else 1)
        self.session = ExitStack()  # the backend's training mode, open for the whole run: entering it touches every weight

    def weigh(self, heads: Tensor) -> None:
        """Let heads (P, R/8, R/8) count in the loss, by the recipe's share, beside the faces, which alone the words are held to look at."""
        heads = torch.cat([heads, heads.flip(2)]).to(self.backend.device)
        self.weighed = torch.maximum(self.faces, self.recipe.hair_share * heads)

    def execute(
        self, on_step, checkpoint: Checkpoint | None, started: float, stop: Callable[[], bool] = lambda: False,
        keep: Callable[[Identity], bool] = lambda identity: True,
    ) -> tuple[Identity, TrainReport]:
        resumed = checkpoint.load(self.module, self.optimizer, self.best.weights) if checkpoint is not None else None
        if resumed is not None:
            self.progress = resumed
        progress, steps = self.progress, self.recipe.steps
        first, bad, stopped = progress.step, 0, False
        try:
            self.session.enter_context(self.backend.training(self.checkpointing))
            if first:
                self._preview()  # the interruption may have come before it
            while progress.step < steps and not stopped:
                loss = self._step()
                progress.step += 1
                progress.losses.append(loss)
                bad = 0 if math.isfinite(loss) else bad + 1
                if bad >= MAX_BAD_STEPS:
                    raise TrainingError(
                        f"The loss was not finite {bad} times in a row at step {progress.step}, so training stopped. "
                        "Lower lr, or use a checkpoint in a wider precision (bf16 or fp32)."
                    )
                if not bad:
                    self._preview()
                on_step(StepEvent(progress.step, steps, progress.losses, self.denoised, progress.likenesses))
                if checkpoint is not None and checkpoint.due(progress.step) and not bad:
                    checkpoint.save(self.module, self.optimizer, progress, self.best.weights)
                stopped = progress.step < steps and stop()
        except BaseException:
            # Steps with a bad loss changed nothing, so going on later must not skip them.
            progress.step -= bad
            del progress.losses[len(progress.losses) - bad:]
            if checkpoint is not None and progress.step > 0:
                checkpoint.save(self.module, self.optimizer, progress, self.best.weights)
            raise
        self.session.close()
        if checkpoint is not None and stopped:
            checkpoint.save(self.module, self.optimizer, progress, self.best.weights)
        self.best.restore(self.module)
        identity = self.module.identity(self.config.trigger, self._described(), self.backend.text_hash)
        report = TrainReport(
            tuple(progress.losses), progress.skipped, first, time.perf_counter() - started, self.micro, self.checkpointing, stopped,
            tuple((step, value) for step, value in progress.likenesses), best_step(progress),
        )
        if not stopped:
            self._hand_over(identity, checkpoint, keep)
        return identity, report

    def _hand_over(self, identity: Identity, checkpoint: Checkpoint | None, keep: Callable[[Identity], bool]) -> None:
        """The interrupted training is forgotten when the finished identity is safe, not before."""
        safe = False
        try:
            safe = keep(identity)
        finally:
            if checkpoint is not None:
                checkpoint.clear() if safe else checkpoint.save(self.module, self.optimizer, self.progress, self.best.weights)

    def _preview(self) -> None:
        """Draw, judge and show one, if one is due; where there is no memory for it, training goes on without."""
        step, previews = self.progress.step, self.previews
        if previews is None or not previews.due(step, self.recipe.steps) or any(judged == step for judged, _ in self.progress.likenesses):
            return
        try:
            latents = self.painter.latents(self.module)
            self.session.close()  # decoding moves models, which must not happen while their weights are lent out
            pictures = self.backend.decode_latents(latents)
        except RuntimeError as error:
            if not self.backend.is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
            self.backend.release_memory()
            self.previews = None
            _log.warning("There is not enough memory for previews during the training; it goes on without them.")
            return
        finally:
            self.session.close()
            self.session.enter_context(self.backend.training(self.checkpointing))
        likeness = None if previews.judge is None else previews.judge(pictures)
        if likeness is not None:
            self.best.consider(self.module, self.progress, likeness)
        previews.show(Preview(step, pictures, likeness))

    def _described(self) -> dict[str, object]:
        """The configuration and the course of the training as they go into the file."""
        chosen = asdict(replace(self.config, captions=self.captions, steps=self.recipe.steps, batch=self.recipe.batch, lr=self.recipe.lr))
        del chosen["trigger"], chosen["templates"], chosen["micro_batch"], chosen["checkpointing"]
        judged = {"likenesses": self.progress.likenesses, "best_step": best_step(self.progress)} if self.progress.likenesses else {}
        return {**chosen, "losses": [float(f"{loss:.5g}") if math.isfinite(loss) else None for loss in self.progress.losses], **judged}

    def _step(self) -> float:
        """One optimizer step; retried with less memory, or with a smaller loss scale, as often as that can help."""
        while True:
            try:
                self._set_rate()
                self.optimizer.zero_grad(set_to_none=True)
                loss = self._backward()
                finite = self._gradients_finite()
            except RuntimeError as error:  # torch.OutOfMemoryError is one; older backends raise a plain one
                if not self.backend.is_out_of_memory(error):
                    raise
                self._shrink(error)
                continue
            if finite and math.isfinite(loss):
                self._update()
                return loss
            if math.isfinite(loss) and self.progress.loss_scale > 1.0:
                self.progress.loss_scale /= 2
                continue
            self.progress.skipped += 1
            return loss if not math.isfinite(loss) else float("nan")

    def _update(self) -> None:
        """The optimizer's step. It needs memory of its own, the most at the first step, and is not repeated, for it may be half done."""
        try:
            self.optimizer.step()
            self.module.hold()
        except RuntimeError as error:
            if not self.backend.is_out_of_memory(error):
                raise
            raise TrainingError(
                f"There is not enough memory for the optimizer, which keeps three numbers for each one that the recipe {self.recipe.name} trains. "
                "Choose the recipe fast in the Train node, or close other programs that use the graphics card."
            ) from error

    def _backward(self) -> float:
        """Accumulate the gradients of one batch, micro-batch by micro-batch; returns the batch's loss."""
        recipe, batch = self.recipe, self.draw(self.progress.step)
        total = self._prior_backward(batch)
        for start in range(0, recipe.batch, self.micro):
            losses = self.picture_losses(batch, slice(start, start + self.micro))
            loss = losses.sum() / recipe.batch
            if start == 0:
                loss = loss + self.module.regularizer()
            (loss * self.progress.loss_scale).backward()
            total += float(loss.detach())
        if self.progress.loss_scale != 1.0:
            gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_div_(gradients, self.progress.loss_scale)
        return total

    def draw(self, step: int) -> Batch:
        """The random choices of a step."""
        recipe = self.recipe
        return draw_batch(
            self.config.seed, step, recipe.batch, len(self.latents), len(self.config.templates), self.latents.shape[1:],
            self.backend.timesteps, recipe.prompts_per_step, recipe.timestep_span,
        )

    def picture_losses(self, batch: Batch, part: slice) -> Tensor:
        """(b,) losses of one micro-batch."""
        device = self.backend.device
        chosen = (batch.prompts[part] + self.first_prompts[batch.pictures[part]]).tolist()
        distinct = sorted(set(chosen))
        prompts: list[Prompt] = [self.prompts[i] for i in distinct]
        pictures, noise, timesteps = batch.pictures[part].to(device), batch.noise[part].to(device), batch.timesteps[part].to(device)
        look = self.attention and self.attention.look(chosen, pictures, self.latents[pictures], noise, timesteps)
        condition, edit = self.module.read(self.backend, prompts, [distinct.index(i) for i in chosen], timesteps)
        if self.learns_from and condition.pooled is not None:  # SDXL adds it to every layer, those of the encoder too
            condition = replace(condition, pooled=condition.pooled.detach())
        edit = replace(edit, maps=look and look.maps, learns_from=self.learns_from)
        prediction = self.backend.predict(self.latents[pictures], noise, timesteps, condition, edit)
        self.denoised = prediction.denoised[:1].detach()
        weights = face_weights(self.weighed[pictures], self.recipe.face_share) if self.recipe.face_share else None
        losses = noise_loss(prediction.output, prediction.target, weights)
        if self.recipe.snr_ceiling:
            losses = losses * min_snr_weights(prediction.snr, prediction.velocity, self.recipe.snr_ceiling)
        return losses + self.recipe.attention_weight * look.losses() if look else losses

    def _prior_backward(self, batch: Batch) -> float:
        """The weighted change of one picture's prediction under a prompt without the person. Its backward pass is over before the pictures' own
        forward pass begins: recomputed activations must see what the first pass saw.
        """
        if self.prior is None:
            return 0.0
        device = self.backend.device
        one = (self.latents[batch.pictures[:1].to(device)], batch.noise[:1].to(device), batch.timesteps[:1].to(device))
        loss = self.recipe.prior_weight * self.prior(self.module, int(batch.prompts[0]), *one)
        if loss.requires_grad:
            (loss * self.progress.loss_scale).backward()
        return float(loss.detach())

    def _gradients_finite(self) -> bool:
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all())

    def _set_rate(self) -> None:
        """Linear warm-up, then constant or a cosine to 0."""
        recipe, step = self.recipe, self.progress.step
        factor = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
        if recipe.decay and step >= recipe.warmup:
            factor = 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)))
        for group, rate in zip(self.optimizer.param_groups, self.base_rates):
            group["lr"] = rate * factor

    def _shrink(self, error: BaseException) -> None:
        """Trade time for memory: first recompute activations, then fewer pictures at a time."""
        self.optimizer.zero_grad(set_to_none=True)
        traceback.clear_frames(error.__traceback__)  # they hold the activations of the failed attempt
        self.backend.release_memory()
        if not self.checkpointing:
            self.checkpointing = True
            self.session.close()
            self.session.enter_context(self.backend.training(checkpointing=True))
        elif self.micro > 1:
            self.micro = (self.micro + 1) // 2
        else:
            raise TrainingError(
                f"There is not enough memory to train even one picture of {self.config.resolution} px at a time. "
                "Lower resolution in the Train node, or close other programs that use the graphics card."
            ) from error
