"""Files of ``torch.save``, read without running them: which tensors they claim to hold first, values when somebody asks.

A pickle is a program for a small stack machine. Here that machine knows tables, lists, numbers, texts and the few names that describe a tensor;
everything else is refused. Nothing is allocated because a file says so: a tensor has the size that the bytes in the file can have.
"""
from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping

import torch
from torch import Tensor

from .foreign_text import shown

_MAX_PROGRAM_BYTES = 2 << 20  # the program of 1,500 tensors has 200 kB
_MAX_ENTRIES = 100_000  # of an archive
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of PyTorch before 1.6
_MARK = object()
_DTYPES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32, "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8, "CharStorage": torch.int8, "ShortStorage": torch.int16, "IntStorage": torch.int32, "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
_TABLES = ("collections.OrderedDict", "torch.nn.modules.container.ParameterDict", "builtins.set", "__builtin__.set", "builtins.dict", "__builtin__.dict")
_OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "sparse", "torch._utils._rebuild_sparse_csr_tensor": "sparse", "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_meta_tensor_no_storage": "without values (meta)", "torch._utils._rebuild_nested_tensor": "nested",
}


class RefusedProgramError(ValueError):
    """The pickle asks for something besides tensors, tables, numbers and texts."""


@dataclass(frozen=True)
class ClaimedTensor:
    """A tensor as a file describes it; nothing is read yet.

    Attributes:
        shape: its shape. dtype: in torch's words, or another text for what torch's usual numbers are not ('sparse').
        bytes: how many it takes in memory.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | str
    bytes: int
    _read: Callable[[], Tensor]

    def read(self) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            ValueError, OSError, RuntimeError: the file does not hold what it describes.
        """
        return self._read()


def item_size(dtype: torch.dtype) -> int:
    """Bytes of one number; older PyTorch's dtypes do not tell."""
    return torch.empty((), dtype=dtype).element_size()


def is_pickle(path: Path) -> bool:
    """Whether a file begins as ``torch.save`` and ``pickle`` begin theirs; safetensors files begin with a length."""
    with path.open("rb") as file:
        begin = file.read(4)
    return begin == b"PK\x03\x04" or begin[:1] == b"\x80" and len(begin) > 1 and begin[1] <= 5


def check_archive(archive: zipfile.ZipFile, limit: int) -> None:
    """Raises: ValueError: the archive unpacks to more than ``limit`` bytes, or has too many entries."""
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > _MAX_ENTRIES or unpacked > limit:
        raise ValueError(f"it unpacks to {unpacked / 1e6:.0f} MB in {len(entries)} entries, expected at most {limit / 1e6:.0f} MB")


def read_pickle(path: Path, limit: int) -> object:
    """What a file of ``torch.save`` holds: tables and lists of :class:`ClaimedTensor`, numbers and texts.

    Args:
        limit: bytes that the file, and what it unpacks to, may have.

    Raises:
        RefusedProgramError: the file asks for anything else, such as code to be run.
        ValueError, OSError, zipfile.BadZipFile: the file is empty, damaged or too large.
    """
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty")
    if size > limit:
        raise ValueError(f"it has {size / 1e6:.0f} MB, expected at most {limit / 1e6:.0f} MB")
    try:
        if zipfile.is_zipfile(path):
            return _from_archive(path, limit)
        return _from_legacy(path.read_bytes(), limit)
    except (ValueError, OSError, zipfile.BadZipFile):
        raise
    except Exception as error:  # a damaged program fails in any way that Python knows
        raise ValueError(f"its description of tensors is damaged: {type(error).__name__}") from error


def _from_archive(path: Path, limit: int) -> object:
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, limit)
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        program = next((name for name in sizes if name == "data.pkl" or name.endswith("/data.pkl")), None)
        if program is None:
            raise ValueError("it is an archive without data.pkl")
        root = program[: -len("data.pkl")]
        if sizes.get(f"{root}byteorder", 0) in range(1, 16) and archive.read(f"{root}byteorder") == b"big":
            raise ValueError("it was written by a big-endian machine")
        if sizes[program] > _MAX_PROGRAM_BYTES:
            raise ValueError(f"its description of tensors has {sizes[program] / 1e6:.0f} MB")
        code = archive.read(program)

    def load(key: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{root}data/{key}")

    return _Machine(lambda key: sizes.get(f"{root}data/{key}"), load, limit).run(io.BytesIO(code))


def _from_legacy(content: bytes, limit: int) -> object:
    """Magic number, version, facts about the system, the object, the storages' keys, then each storage: its length and its bytes."""
    file = io.BytesIO(content)
    places: dict[str, tuple[int, int]] = {}
    machine = _Machine(lambda key: places[key][1] if key in places else None, lambda key: content[places[key][0] : sum(places[key])], limit)
    if machine.run(file) != _LEGACY_MAGIC:
        raise ValueError("it was not written by torch.save")
    machine.run(file), machine.run(file)
    found, keys = machine.run(file), machine.run(file)
    position = file.tell()
    for key in keys if isinstance(keys, list) else ():
        (count,) = struct.unpack_from("<q", content, position)
        length = count * machine.item_sizes.get(str(key), 1)
        if count < 0 or position + 8 + length > len(content):
            raise ValueError("it ends in the middle of its values")
        places[str(key)] = (position + 8, length)
        position += 8 + length
    return found


@dataclass(frozen=True)
class _Name:
    """Something of Python that a pickle mentions; only its name is ever used."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype | None


class _Machine:
    """Runs a pickle's program on values that can do nothing.

    Args:
        size: storage key → its bytes in the file, or None where there is none.
        load: storage key → the bytes.
    """

    def __init__(self, size: Callable[[str], int | None], load: Callable[[str], bytes], limit: int):
        self.size, self.load, self.limit = size, load, limit
        self.item_sizes: dict[str, int] = {}

    def run(self, file: io.BytesIO) -> object:
        """One program, up to its STOP."""
        stack: list = []
        memo: dict[int, object] = {}
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            if name == "STOP":
                return stack[-1]
            self._step(name, argument, stack, memo)
        raise ValueError("its description of tensors has no end")

    def _step(self, name: str, argument, stack: list, memo: dict[int, object]) -> None:
        if name in ("PROTO", "FRAME"):
            return
        if name in ("MARK",):
            stack.append(_MARK)
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in _PLAIN:
            stack.append(argument)
        elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "EMPTY_SET"):
            stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in ("POP", "POP_MARK"):
            stack.pop() if name == "POP" else _since_mark(stack)
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            values = _since_mark(stack)
            stack.append(tuple(values) if name == "TUPLE" else values)
        elif name == "DICT":
            values = _since_mark(stack)
            stack.append(dict(zip(values[::2], values[1::2], strict=True)))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            values = [stack.pop()] if name == "APPEND" else _since_mark(stack)
            _expect(list, stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
            _expect(dict, stack[-1]).update(zip(values[::2], values[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_Name(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Name(f"{stack[-2]}.{stack[-1]}")]
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._called(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _fill(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        else:
            raise RefusedProgramError(name)

    def _storage(self, described) -> _Storage:
        kind, storage_type, key = described[:3]
        if kind != "storage" or not isinstance(storage_type, _Name):
            raise RefusedProgramError(shown(kind, 60))
        name = storage_type.name.rpartition(".")[2]
        dtype = _DTYPES.get(name)
        if dtype is None and name != "UntypedStorage":
            raise RefusedProgramError(shown(storage_type.name, 60))
        self.item_sizes[str(key)] = 1 if dtype is None else item_size(dtype)
        return _Storage(str(key), dtype)

    def _called(self, called, arguments):
        """What a name gives for arguments: a table, a tensor, or a refusal."""
        name = called.name if isinstance(called, _Name) else type(called).__name__
        arguments = _expect(tuple, arguments)
        if name in _TABLES:
            return dict(arguments[0]) if name == "collections.OrderedDict" and arguments else {}
        if name in ("copyreg._reconstructor", "copy_reg._reconstructor") and isinstance(arguments[0], _Name) and arguments[0].name in _TABLES:
            return {}
        if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return arguments[0]
        if name == "torch._tensor._rebuild_from_type_v2":
            return self._called(arguments[0], arguments[2])
        if name == "_codecs.encode" and len(arguments) == 2 and arguments[1] == "latin1":  # how older protocols write bytes
            return _expect(str, arguments[0]).encode("latin1")
        if name == "torch.Size":
            return arguments[0] if arguments else ()
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_tensor"):
            return self._tensor(*arguments[:4], arguments[6] if name.endswith("_v3") else None)
        if name in _OTHER_TENSORS:
            return ClaimedTensor((), _OTHER_TENSORS[name], 0, lambda: torch.empty(0))
        raise RefusedProgramError(shown(name, 100))

    def _tensor(self, storage, offset, shape, strides, dtype_name) -> ClaimedTensor:
        shape, strides = tuple(shape), tuple(strides)
        if isinstance(dtype_name, _Name):  # of a storage without a type
            dtype = getattr(torch, dtype_name.name.rpartition(".")[2], None)
            dtype = dtype if isinstance(dtype, torch.dtype) else None
        else:
            dtype = storage.dtype
        if dtype is None or not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)) or len(shape) != len(strides):
            raise ValueError("a tensor is described wrongly")
        count = 1
        for length in shape:
            count *= length
        size = item_size(dtype)
        if count * size > self.limit:
            raise ValueError(f"a tensor claims {count * size / 1e6:.0f} MB")
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides)) if count else 0

        def read() -> Tensor:
            held = self.size(storage.key)
            if held is None or count and (last + 1) * size > held:
                raise ValueError("it holds fewer values than it describes")
            if not count:
                return torch.empty(shape, dtype=dtype)
            content = bytearray(self.load(storage.key))
            flat = torch.frombuffer(content, dtype=dtype, count=len(content) // size)
            return flat.as_strided(shape, strides, offset).clone()

        return ClaimedTensor(shape, dtype, count * size, read)


_PLAIN = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
))


def _since_mark(stack: list) -> list:
    """Takes what was pushed since the last mark off the stack, and the mark."""
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1
        if place < 0:
            raise ValueError("a mark is missing")
    values = stack[place + 1 :]
    del stack[place:]
    return values


def _expect(kind: type, value):
    if not isinstance(value, kind):
        raise ValueError(f"a {kind.__name__} was expected")
    return value


def _fill(made, state) -> None:
    """The state of an object: of a table of parameters its parameters; of anything else nothing that we need."""
    if isinstance(made, dict) and isinstance(state, Mapping):
        parameters = state.get("_parameters")
        if isinstance(parameters, Mapping):
            made.update(parameters)
        keys = state.get("_keys")  # since PyTorch 1.12
        made.update({key: state[key] for key in (keys if isinstance(keys, Mapping) else ()) if key in state})
    elif not isinstance(made, (dict, ClaimedTensor)):
        raise RefusedProgramError("BUILD")
