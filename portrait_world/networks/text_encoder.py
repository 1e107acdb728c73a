"""A small CLIP text transformer, in transformers' key names, that stores only the words of the Portrait World.

Hosts and diffusers see a full table of 49,408 rows: ``expanded_state_dict`` gives every word that was never trained the
same 'unknown word' row, which training has taught the encoder to pass over.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import tokenizer

WIDTH, LAYERS, HEADS, INNER = 128, 3, 2, 512
TABLE = "text_model.embeddings.token_embedding.weight"

# What transformers' CLIPTextConfig and the host's textmodel_json_config both read.
CONFIG = dict(
    architectures=["CLIPTextModel"], attention_dropout=0.0, bos_token_id=tokenizer.START, eos_token_id=tokenizer.END,
    pad_token_id=tokenizer.END, dropout=0.0, hidden_act="quick_gelu", hidden_size=WIDTH, initializer_factor=1.0,
    initializer_range=0.02, intermediate_size=INNER, layer_norm_eps=1e-5, max_position_embeddings=tokenizer.LENGTH,
    model_type="clip_text_model", num_attention_heads=HEADS, num_hidden_layers=LAYERS, projection_dim=WIDTH,
    torch_dtype="float32", vocab_size=tokenizer.VOCABULARY_SIZE,
)


def used_ids() -> list[int]:
    """The vocabulary ids that are trained, in ascending order: every word of the grammar and of the names."""
    from ..world.captions import vocabulary
    from ..world.people import FIRST_NAMES, LAST_NAMES

    words = [*vocabulary(), *FIRST_NAMES, *LAST_NAMES]
    ids = {token for word in words for token in tokenizer.encode(word)}
    return sorted(ids | {tokenizer.START, tokenizer.END})


class _Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = nn.ModuleDict({key: nn.Linear(WIDTH, WIDTH) for key in ("q_proj", "k_proj", "v_proj", "out_proj")})
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, INNER), "fc2": nn.Linear(INNER, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = self.layer_norm1(x)
        heads = lambda key: self.self_attn[key](y).view(batch, length, HEADS, -1).transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(heads("q_proj"), heads("k_proj"), heads("v_proj"), is_causal=True)
        x = x + self.self_attn["out_proj"](y.transpose(1, 2).reshape(batch, length, WIDTH))
        y = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](y * torch.sigmoid(1.702 * y))


class TextEncoder(nn.Module):
    """Token ids → text condition. Row 0 of the table is the unknown word, row i + 1 is ``used_ids()[i]``."""

    def __init__(self):
        super().__init__()
        ids = used_ids()
        rows = torch.zeros(tokenizer.VOCABULARY_SIZE, dtype=torch.long)
        rows[torch.tensor(ids)] = torch.arange(1, len(ids) + 1)
        self.register_buffer("rows", rows, persistent=False)
        embeddings = nn.Module()
        embeddings.token_embedding = nn.Embedding(len(ids) + 1, WIDTH)
        embeddings.position_embedding = nn.Embedding(tokenizer.LENGTH, WIDTH)
        nn.init.normal_(embeddings.token_embedding.weight, std=0.02)
        nn.init.normal_(embeddings.position_embedding.weight, std=0.01)
        text_model = nn.Module()
        text_model.embeddings = embeddings
        text_model.encoder = nn.Module()
        text_model.encoder.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        text_model.final_layer_norm = nn.LayerNorm(WIDTH)
        self.text_model = text_model

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L ≤ 77) vocabulary ids → (B, L, 128), after the final layer norm."""
        return self.encode_embedded(self.text_model.embeddings.token_embedding(self.rows[ids]))

    def encode_embedded(self, embedded: Tensor) -> Tensor:
        """(B, L, 128) token embeddings, positions not yet added → (B, L, 128)."""
        x = embedded + self.text_model.embeddings.position_embedding.weight[:embedded.shape[1]]
        for layer in self.text_model.encoder.layers:
            x = layer(x)
        return self.text_model.final_layer_norm(x)


def expanded_state_dict(compact: dict[str, Tensor], ids: list[int]) -> dict[str, Tensor]:
    """The stored weights with the table grown to 49,408 rows: what transformers and the hosts load.

    Args:
        compact: the encoder's state dict, its table (1 + len(ids), 128).
        ids: the vocabulary ids of rows 1…, as stored beside the weights.
    """
    table = compact[TABLE]
    full = table[0].expand(tokenizer.VOCABULARY_SIZE, -1).clone()
    full[torch.tensor(ids)] = table[1:]
    return {**compact, TABLE: full}
