"""The demo checkpoint and face pack: made once, in the environment, and kept in the cache."""
import subprocess
from pathlib import Path

from ..cache import cache_folder, locked
from ..environment import Environment
from ..errors import LauncherError
from ..requirements import CHECKOUT

FORMAT = 1  # raise it when checkpoint.py writes something else


def demo_checkpoint(environment: Environment, family: str = "sd15", say=print) -> Path:
    """Return a checkpoint with random weights of `family`, see `checkpoint.FAMILIES`."""
    path = cache_folder() / "demo" / f"id-ea-demo-{family}-{FORMAT}.safetensors"
    with locked(path.with_suffix(".lock")):
        if not path.is_file():
            say(f"Making the demo checkpoint {path.name} (random weights; once).")
            run_inside(environment, ["-m", "launcher.stand_ins.checkpoint", str(path), "--family", family])
    return path


def demo_face_pack(environment: Environment, say=print) -> Path:
    """Return a folder with the demo face pack. Made afresh when its source changes."""
    source = max(path.stat().st_mtime_ns for path in (Path(__file__).with_name("face_pack.py"), Path(__file__).with_name("face_weights.py")))
    folder = cache_folder() / "demo" / "face-pack"
    made = folder / "made-from.txt"
    with locked(folder.with_suffix(".lock")):
        if not made.is_file() or made.read_text(encoding="utf-8") != str(source):
            say("Making the demo face pack (once).")
            run_inside(environment, ["-m", "launcher.stand_ins.face_pack", str(folder)])
            made.write_text(str(source), encoding="utf-8")
    return folder


def family_for(environment: Environment, identity: Path) -> str:
    """Return the family of demo checkpoints on which an identity file can be used. Raises LauncherError with the file's own trouble."""
    question = "import sys; from idea_engine.identity.foreign_files import read_identity; print(read_identity(sys.argv[1]).family.name)"
    name = run_inside(environment, ["-c", question, str(identity)]).split()[-1]
    return {"sd1": "sd15", "sd2": "sd21", "sdxl": "sdxl"}[name]


def in_portrait_world(environment: Environment, identity: Path) -> bool:
    """Say whether an identity was learned on the model that ships with the pack. Raises LauncherError with the file's own trouble."""
    question = ("import sys; from idea_engine.identity.foreign_files import read_identity; from portrait_world.networks.text_encoder import WIDTH; "
                "print(list(read_identity(sys.argv[1]).family.encoders.values()) == [WIDTH])")
    return run_inside(environment, ["-c", question, str(identity)]).split()[-1] == "True"


def run_inside(environment: Environment, arguments: list[str]) -> str:
    """Run the environment's Python in the checkout; return what it prints. Raises LauncherError with its last line."""
    done = subprocess.run([str(environment.python), *arguments], cwd=CHECKOUT, env=environment.variables(), capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise LauncherError(f"{Path(arguments[-1]).name}: {''.join(last)[-600:]}")
    return done.stdout
