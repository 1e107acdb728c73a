"""A folder of people: who is in it, and who of them is whose work when several processes share it."""
from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from idea_engine.errors import BadImageError, IdentityFileError
from idea_engine.files.atomic_write import sweep
from idea_engine.identity.file import load_identity
from idea_engine.identity.identity import Identity

from .pictures import SUFFIXES, is_picture, photo_files

_LONGEST = timedelta(days=30)  # a folder of people may take


@dataclass(frozen=True)
class PersonToLearn:
    """Attributes: name: of the file; trigger: in prompts; photos: files; output: where the identity goes."""

    name: str
    trigger: str
    photos: tuple[Path, ...]
    output: Path

    def kept(self) -> Identity | None:
        """The identity, where it is there and whole."""
        try:
            return load_identity(self.output) if self.output.is_file() else None
        except IdentityFileError:
            return None

    def partial(self, key: str) -> Path:
        """Where the unfinished training ``key``, 12 hexadecimal digits, is kept."""
        return self.output.with_name(f".{self.output.stem}-{key}.partial")

    def clear(self) -> None:
        """Remove what unfinished trainings with any settings, and writes that were killed, have left beside the finished identity."""
        left = re.compile(rf"\.{re.escape(self.output.stem)}-[0-9a-f]{{12}}\.partial")
        with suppress(OSError):  # another process may be at the same folder
            for file in self.output.parent.iterdir():
                if left.fullmatch(file.name):
                    file.unlink(missing_ok=True)
        sweep(self.output.parent)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """While open, no other process on this folder learns the person; False where one already does. The system lets go of what a killed
        process held.
        """
        from filelock import FileLock, Timeout  # PyTorch needs it too

        self.output.parent.mkdir(parents=True, exist_ok=True)
        file = self.output.with_name(f".{self.output.stem}.lock")
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(OSError):  # Windows deletes it by itself, after letting go
                file.unlink()
            lock.release()


def differences(identity: Identity, wanted: Mapping[str, object]) -> list[str]:
    """In which settings of a training an identity is not what is wanted: 'recipe fast instead of best'. Files that say nothing of one agree."""
    config = identity.metadata.config
    return [
        f"{name} {'unset' if config[name] == '' else config[name]} instead of {'unset' if value == '' else value}"
        for name, value in wanted.items() if config.get(name, value) != value
    ]


def people_in(folder: Path | str, output: Path) -> list[PersonToLearn]:
    """One person per subfolder with pictures, and one per picture directly in ``folder``; by name.

    Raises:
        BadImageError: there is no such folder, nobody in it, or two of the same name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadImageError(f"There is no folder {folder}. Give a folder with one subfolder of photographs, or one photograph, for each person.")
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and _holds_pictures(entry):
            found.append((entry.name, tuple(photo_files([entry]))))
        elif is_picture(entry):
            found.append((entry.stem, (entry,)))
    if not found:
        raise BadImageError(f"There is nobody in {folder}. Expected one subfolder of photographs, or one photograph ({', '.join(SUFFIXES)}), for each person.")
    people = [PersonToLearn(name, trigger_of(name), photos, output / f"{name}.safetensors") for name, photos in found]
    for attribute in ("output", "trigger"):
        seen: dict[object, str] = {}
        for person, (_, photos) in zip(people, found):
            value = getattr(person, attribute)
            if value in seen:
                raise BadImageError(f"Two people in {folder} would both be called {person.trigger}: {seen[value]} and {photos[0]}. Rename one of them.")
            seen[value] = str(photos[0])
    return people


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(is_picture(file) for file in folder.iterdir())
    except OSError as error:  # the others are still worth learning
        print(f"idea-engine: {folder} is left out: {error.strerror or error}.", file=sys.stderr)
        return False


def trigger_of(name: str) -> str:
    """'Anna Smith' → ``<anna-smith>``."""
    words = re.findall(r"[^\W_]+", name.lower())
    return f"<{'-'.join(words) or 'person'}>"


class Team:
    """The processes that share the work: those that 🤗 Accelerate's launcher started, or this one alone."""

    def __init__(self, device: str = "auto"):
        """Args: device: of ``--device``; ``cpu`` keeps the processes off the graphics cards."""
        self._state = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            import torch
            from accelerate import PartialState

            # Who is ready first waits until the slowest has learned the last person.
            self._state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_LONGEST)

    @property
    def number(self) -> int:
        """This process, from 0."""
        return 0 if self._state is None else self._state.process_index

    @property
    def size(self) -> int:
        return 1 if self._state is None else self._state.num_processes

    @property
    def device(self):
        """The device that the launcher gave this process; None when it runs alone."""
        return None if self._state is None else self._state.device

    def share(self, work: Sequence) -> list:
        """This process's part. Everybody must be given the same ``work``, for nobody starts before all have looked."""
        self.wait()
        return list(work)[self.number :: self.size]

    def wait(self) -> None:
        """Until all processes are here: one that ends early would take the others with it."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def leave(self) -> None:
        """The end of the common work."""
        if self._state is not None:
            self.wait()
            self._state.destroy_process_group()
