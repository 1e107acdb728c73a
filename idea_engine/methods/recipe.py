"""A recipe is data: what is trained, how, and for how long."""
from __future__ import annotations

from dataclasses import dataclass, replace

from ..identity.enhanced import EnhancedIdentity
from .rates import step_rate

# Of the face-wise attention loss, by its target: the one is a squared error in shares of the target's square, the other a share. Chosen on
# validation people at SeFi-IDE's setting, where only tokens learn (docs/ablation.md): ten times as much, and nothing but attention is learned.
# They are what a recipe gets whose attention was not measured with it; one that has a weight of its own, such as BALANCED, keeps that.
ATTENTION_WEIGHTS = {"face_word": 5e-4, "mask": 0.03}


@dataclass(frozen=True)
class Recipe:
    """What is trained, how, and for how long.

    Attributes:
        name: as the artist chooses it.
        trains: the parts that learn, out of ``tokens``, ``enhancer``, ``adapter`` (its matrices), ``gate`` (its γ),
            ``key_value`` (own positions), ``ending`` (the end mark and the padding), ``global_key_value`` and ``stages``.
        steps, batch: defaults where the user leaves 0.
        lr: learning rate of the tokens per picture of the batch; the step uses lr × batch (METHODS §1.6).
        measured_batch: the batch that the step's length belongs to, whatever the batch is, see :func:`~idea_engine.methods.rates.step_rate`; 0: the
            step grows with the batch.
        part_lr: factor on that rate, per part.
        relative: the rates are shares of the size (root mean square) of what a part moves: a word's row in the embedding table, or what
            cross-attention reads; and smaller where more numbers are read, see :func:`~idea_engine.methods.rates.width_factor`. Encoders differ in
            all of it by factors, so a rate found on one would be wild on another. No token goes further than published ones.
        start: where the tokens begin: ``anchor``, what an average name looks like after the text encoder (cross initialisation, METHODS
            §1.2), or a plain word, such as ``person``, as the encoder reads it.
        weight_decay, betas, epsilon: of AdamW.
        warmup: steps over which the rate rises linearly from 0; 0 for a constant rate.
        decay: whether the rate falls to 0 along a cosine after the warm-up.
        anchor_weight: λ of the anchor distance.
        beta: β of the adapter.
        adapter_scope: ``prompt`` or ``tokens``, see :class:`~idea_engine.identity.identity.AdapterWeights`.
        key_value_rank: r of the identity's own keys and values; 0: free vectors, which the face embedding does not condition.
        prompts_per_step: how many different prompts a batch mixes; 0 means one for each picture.
        reads_expressions: whether photographs without a caption get one that says what their faces do, see
            :mod:`idea_engine.training.expressions`.
        face_share: share of the noise loss that comes from inside the face masks alone; needs masks.
        hair_share: how much the head with its hair counts within that share, beside the face's 1: people know each other by their hair too.
        timestep_span: the part of the noise schedule that is learned from, as shares of it, see :func:`~idea_engine.training.batch.draw_batch`; None
            draws from the whole schedule, as the papers do.
        snr_ceiling: of the min-SNR weights; 0 weighs all timesteps alike.
        covariance: of the anchor distance: that of the ``anchor``'s own rows (METHODS §1.5), or that of all ``names``.
        prior_weight: of a loss that keeps a plain prompt's prediction where it was; only ``global_key_value`` moves it.
        stages: into how many equal stages the noise schedule is divided, each with its own tokens for keys and for values (METHODS §2); 0: no
            stages. They learn if ``trains`` names them.
        attention_weight: of the face-wise attention loss (METHODS §2); 0 leaves it out.
        attention_target: where the identity should look: ``face_word``, where the frozen model looks for the word 'face', or ``mask``, inside
            the face masks.
        refining_lr: the rate where training begins at an identity that an enhancer learned from many people gave; 0: the recipe begins anew all
            the same.
        gradient_through: how far back the loss is followed: through the whole ``unet``, or only through its ``decoder``, the middle and the
            up blocks. What the down blocks read is then learned with the rest, or not at all; a step takes three quarters of the time.
    """

    name: str
    trains: tuple[str, ...]
    steps: int
    batch: int
    lr: float
    part_lr: dict[str, float]
    relative: bool = False
    measured_batch: int = 0
    start: str = "anchor"
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-7
    warmup: int = 0
    decay: bool = False
    anchor_weight: float = 8e-4
    beta: float = 0.4
    adapter_scope: str = "prompt"
    key_value_rank: int = 8
    prompts_per_step: int = 0
    reads_expressions: bool = False
    face_share: float = 0.0
    hair_share: float = 0.0
    timestep_span: tuple[float, float] | None = None
    snr_ceiling: float = 0.0
    covariance: str = "anchor"
    prior_weight: float = 0.0
    stages: int = 0
    attention_weight: float = 0.0
    attention_target: str = "face_word"
    gradient_through: str = "unet"
    refining_lr: float = 0.0

    @property
    def reads_face(self) -> bool:
        """Whether what is learned depends on the face embedding, and on the random weights through which it is read."""
        return bool({"enhancer", "adapter", "gate"} & set(self.trains)) or ("key_value" in self.trains and self.key_value_rank > 0)

    @property
    def step_rate(self) -> float:
        """The learning rate of the tokens in one step."""
        return step_rate(self.lr, self.batch, self.measured_batch)

    def batch_effect(self, own: int) -> str:
        """What another batch than the recipe's ``own`` does to a step, in words; '' where it is the same."""
        if self.batch == own:
            return ""
        said = f"{self.batch} pictures in a step instead of {own}: "
        if self.measured_batch:
            return f"{said}a step goes as far and is {'steadier' if self.batch > own else 'less steady'}"
        return f"{said}a step goes {self.batch / own:.2g} times as far, as the released script has it"

    @property
    def reads_masks(self) -> bool:
        """Whether training needs face masks."""
        return self.face_share > 0 or (self.attention_weight > 0 and self.attention_target == "mask")

    def refining(self, enhanced: EnhancedIdentity, lr: float = 0.0) -> "Recipe":
        """The recipe as it goes on from ``enhanced``: at its refining rate, or at ``lr``, where there is an identity to begin at."""
        return self if enhanced.identity is None or not self.refining_lr else replace(self, lr=lr or self.refining_lr)

    def without_masks(self) -> "Recipe":
        """The nearest recipe that needs no face masks: the whole picture counts, and attention is held to where 'face' looks."""
        weight = ATTENTION_WEIGHTS["face_word"] if self.attention_weight else 0.0
        return replace(self, face_share=0.0, attention_target="face_word", attention_weight=weight)
