"""CLIP's tokenizer, which the engine ships, under the name that this package's modules know it by."""
from __future__ import annotations

if "." in __package__:  # inside the node pack both packages lie in one; installed, they lie side by side
    from ..idea_engine.prompts.clip_tokenizer import (
        END,
        LENGTH,
        START,
        VOCABULARY_SIZE,
        encode,
        merges,
        tokenize,
        vocabulary,
        write_files,
    )
else:
    from idea_engine.prompts.clip_tokenizer import (
        END,
        LENGTH,
        START,
        VOCABULARY_SIZE,
        encode,
        merges,
        tokenize,
        vocabulary,
        write_files,
    )

__all__ = ["END", "LENGTH", "START", "VOCABULARY_SIZE", "encode", "merges", "tokenize", "vocabulary", "write_files"]
