"""Attempts to break readers: seeded mutations of good files, and the judgement of what became of each."""
from __future__ import annotations

import json
import random
import re
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

SLOW = 10.0  # seconds of computing for one file of a few kilobytes; the machine may be busy with others
GREEDY = 400 << 20  # bytes by which one small file may raise the peak of memory
LONGEST = 1200  # characters of a sentence
_NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64, 10**30)
_TEXTS = ("", "\x1b[2J", "\n", "\u202e", "\ud800", "x" * 5000, "..", "NaN", "null", "<a>", "=1+1", "9" * 5000, "[" * 2000)
_TYPES = ("F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "", "X")


@dataclass
class Tally:
    """How a kind of files fared. failures: what went wrong, with the number of the attempt, which makes it again."""

    kind: str
    held: int = 0
    read: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Fuzzer:
    """Runs attempts of a kind: a fixed number of them, or as many as fit into ``minutes``."""

    def __init__(self, minutes: float, seed: int):
        self.minutes, self.seed, self.tallies = minutes, seed, []

    def run(self, kind: str, count: int, make: Callable[[random.Random], None], act: Callable[[], object], refusals: tuple[type, ...]) -> Tally:
        """Args: make: prepares an attempt. act: what is attempted; it may answer, or refuse by one of ``refusals`` with a sentence."""
        tally = Tally(kind)
        self.tallies.append(tally)
        started, number = time.monotonic(), self.seed
        while number < self.seed + count or time.monotonic() - started < 60 * self.minutes:
            make(random.Random(f"{kind} {number}"))
            trouble = self._attempt(tally, act, refusals)
            if trouble:
                tally.failures.append(f"attempt {number}: {trouble}")
            else:
                tally.held += 1
            number += 1
        tally.seconds = time.monotonic() - started
        return tally

    @staticmethod
    def _attempt(tally: Tally, act, refusals) -> str:
        before, started, said = _peak(anew=True), time.process_time(), ""
        try:
            act()
            tally.read += 1
        except refusals as error:
            said = str(error)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]!r}"
        if time.process_time() - started > SLOW:
            return f"took {time.process_time() - started:.0f} s"
        if _peak() - before > GREEDY:
            return f"took {(_peak() - before) / 1e6:.0f} MB"
        if len(said) > LONGEST or any(character in said for character in "\x1b\n\r\x00\u202e") or not _printable(said):
            return f"said {said[:200]!r}"
        return ""


def table(tallies: list[Tally]) -> str:
    """Attempted, held, failed, by kind."""
    lines = [f"{'files':<24}{'attempted':>10}{'held':>8}{'of them read':>14}{'failed':>8}{'seconds':>9}"]
    for one in tallies:
        lines.append(f"{one.kind:<24}{one.held + len(one.failures):>10}{one.held:>8}{one.read:>14}{len(one.failures):>8}{one.seconds:>9.1f}")
    return "\n".join(lines)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few changes of bytes: flipped, cut, doubled, filled, numbers put in, pieces moved."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        place, kind = rng.randrange(len(data)), rng.randrange(8)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.randrange(256)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + rng.randrange(1, 64)]
        elif kind == 4:
            data[place:place] = data[place : place + rng.randrange(1, 64)]
        elif kind == 5:
            data[place : place + 8] = struct.pack("<Q", rng.choice(_NUMBERS) % 2**64)
        elif kind == 6:
            data[place : place + 4] = bytes([rng.choice((0, 255))] * 4)
        else:
            other = rng.randrange(len(data))
            piece = data[other : other + rng.randrange(1, 256)]
            data[place : place + len(piece)] = piece
    return bytes(data)


def mutated_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Changes of what the header says, with a header that is still JSON; now and then of its bytes instead."""
    if rng.random() < 0.3:
        return mutated(content, rng)
    length = int.from_bytes(content[:8], "little")
    header, values = json.loads(content[8 : 8 + length]), content[8 + length :]
    for _ in range(rng.choice((1, 1, 2, 5))):
        name = rng.choice(list(header)) if header else ""
        entry = header.get(name)
        kind = rng.randrange(8)
        if not entry or kind == 0:
            header.pop(name, None)
        elif name == "__metadata__":
            key = rng.choice(list(entry)) if entry else "x"
            entry[key] = rng.choice((*_TEXTS, *map(str, _NUMBERS), mutated(entry.get(key, "").encode(errors="replace"), rng).decode(errors="replace")))
        elif kind == 1:
            entry["dtype"] = rng.choice(_TYPES)
        elif kind in (2, 3):
            shape = entry.get("shape")
            if isinstance(shape, list) and shape:
                shape[rng.randrange(len(shape))] = rng.choice(_NUMBERS)
        elif kind == 4:
            entry["shape"] = rng.choice(([], [0], [1], [2, 768], [1 << 40], [1] * 70, "x", None))
        elif kind == 5:
            entry["data_offsets"] = [rng.choice(_NUMBERS), rng.choice(_NUMBERS)]
        elif kind == 6:
            header[rng.choice((name + "x", "kv.0.key", "kv.9999999999.key", "stages.0.k.clip_l", "clip_h", *_TEXTS))] = dict(entry)
        else:
            other = rng.choice(list(header))
            if other != "__metadata__":
                header[name], header[other] = header[other], header[name]
    if rng.random() < 0.3:
        values = mutated(values, rng)
    if rng.random() < 0.2 and len(values) >= 4:
        place = rng.randrange(len(values) - 3)
        values = values[:place] + struct.pack("<f", rng.choice((float("nan"), float("inf"), 1e30, -7e4, 0.0))) + values[place + 4 :]
    text = json.dumps(header, ensure_ascii=True).encode()
    return struct.pack("<Q", rng.choice((len(text),) * 9 + _NUMBERS[:4]) % 2**64) + text + values


def random_program(rng: random.Random) -> bytes:
    """A pickle of random instructions, most of which fit together."""
    words = (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch._utils\n_rebuild_parameter\n",
             b"}", b"]", b")", b"(", b"N", b"\x88", b"\x89", b"K\x03", b"M\x00\x03", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"X\x03\0\0\0cpu", b"X\x07\0\0\0storage",
             b"X\x01\0\0\x000", b"G?\xf0\0\0\0\0\0\0", b"q\x00", b"h\x00", b"r\xff\xff\xff\x7f", b"\x94", b"2", b"0", b"1", b"\x85", b"\x86", b"\x87", b"t", b"l", b"d", b"s", b"u", b"a", b"e",
             b"R", b"\x81", b"b", b"Q", b"\x93", b"I1\n", b"L99999999999999999999L\n", b"S'a'\n", b"o", b"i", b"\x8b\xff\xff\xff\x7f", b"\x96" + b"\xff" * 8, b"\x8f", b"\x90", b"\x91", b".")
    body = b"".join(rng.choice(words) for _ in range(rng.randrange(1, 60)))
    return b"\x80" + bytes([rng.choice((0, 2, 2, 2, 4, 5))]) + body + rng.choice((b".", b""))


def random_name(rng: random.Random) -> str:
    """What somebody may type, or paste, as a name."""
    letters = "abcXYZ019 ._-/\\<>:\"|?*\0\n\t\x1b\x7f¹²³äßéñ安娜नेहा🙂\u200b\u200c\u200d\u200e\u202e\u2066\ufeff\ud800\udfff~$%&'()"
    pieces = ("CON", "nul", "COM1", "COM¹", "lpt3", "CONIN$", "..", ".", "", "~", "anna", "x" * 200, "ä" * 150, ".safetensors", "%2e%2e", "C:", "\\\\host\\share", "-rf")
    return "".join(rng.choice(pieces) if rng.random() < 0.3 else rng.choice(letters) for _ in range(rng.randrange(0, 12)))


def _printable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _peak(anew: bool = False) -> int:
    """The most memory this process ever had, in bytes; 0 where the system does not say.

    Args:
        anew: from now on, where the system can do that (Linux); otherwise only what exceeds every earlier peak is seen.
    """
    if sys.platform == "win32":
        return 0
    if sys.platform == "linux":
        if anew:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))[1]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
