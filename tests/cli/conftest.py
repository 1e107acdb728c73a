"""The command line as real processes, on the small models that ship with the project or are made here."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from warm_processes import AVAILABLE, WarmProcess

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds


class CommandLine:
    """Runs ``idea-engine`` in a folder of its own, as a user does."""

    def __init__(self, folder: Path):
        self.folder = folder

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8",
                "IDEA_CACHE": str(self.folder / "cache"), "COMFYUI_PATH": ""}

    def start(self, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen | WarmProcess:
        """The running process."""
        if AVAILABLE and not launcher:
            return WarmProcess("idea_engine", list(map(str, arguments)), self.folder, self.environment())
        command = [sys.executable, *launcher, "-m", "idea_engine", *map(str, arguments)]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def run(self, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
        """What a command prints; it must succeed."""
        process = self.start(*arguments, launcher=launcher)
        said, complained = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said + complained
        return said

    def fail(self, *arguments: object) -> str:
        """The sentence of a command that must fail."""
        process = self.start(*arguments)
        said, complained = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2 and "Traceback" not in complained, (process.returncode, said + complained)
        return complained


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def anna_photo():
    return ROOT / "example_workflows" / "anna.png"


@pytest.fixture(scope="session")
def demo_pack():
    return ROOT / "portrait_world" / "assets" / "face_pack"


@pytest.fixture(scope="session")
def anna_file(tmp_path_factory, anna_photo):
    """An identity trained for three steps on the demo model."""
    folder = tmp_path_factory.mktemp("trained")
    CommandLine(folder).run("train", "--model", "demo", "--photos", anna_photo, "--steps", 3, "-o", "anna.safetensors")
    return folder / "anna.safetensors"


@pytest.fixture
def people(tmp_path, anna_photo):
    """A folder of three people: two photographs, and a subfolder."""
    import numpy as np
    from PIL import Image

    from portrait_world.drawing.portrait import render
    from portrait_world.world.people import person
    from portrait_world.world.portrayal import Shot

    folder = tmp_path / "people"
    (folder / "Cleo Ray").mkdir(parents=True)
    shutil.copy(anna_photo, folder / "anna.png")
    Image.fromarray(np.asarray(render(person("test", 7), Shot(), size=256))).save(folder / "ben.jpg", quality=95)
    for number, yaw in enumerate((-0.2, 0.2)):
        Image.fromarray(np.asarray(render(person("test", 9), Shot(yaw=yaw), size=256))).save(folder / "Cleo Ray" / f"{number}.png")
    return folder
