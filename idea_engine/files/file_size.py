"""How large something is, for people."""
from __future__ import annotations


def shown_size(count: int) -> str:
    """Bytes as text: '17 kB', '3.4 MB'; '1.0 MB' from where kilobytes would round to a thousand."""
    return f"{count / 1e3:.0f} kB" if count < 999_500 else f"{count / 1e6:.1f} MB"
