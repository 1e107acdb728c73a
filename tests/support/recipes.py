"""Recipes for tests beside the ones that artists choose."""
from dataclasses import replace

from idea_engine.methods.id_ea import BALANCED

# Everything that acts at the identity's own positions and is conditioned on the face: adapter, gate, low-rank keys and values.
CONDITIONED = replace(
    BALANCED, name="conditioned", trains=("tokens", "adapter", "gate", "key_value"), key_value_rank=8, start="anchor", face_share=0.0,
    attention_weight=0.0, reads_expressions=False, adapter_scope="tokens", anchor_weight=1e-5, lr=0.003,
    part_lr={"adapter": 0.05, "key_value": 0.25}, relative=False, timestep_span=None, gradient_through="unet",
)
