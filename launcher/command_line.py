"""What `python quickstart.py …` does with its arguments. Exit code 0, or 1 and a sentence."""
import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import environment as environments, hosts
from .base_directory import BaseDirectory
from .cache import locked, quickstart_folder
from .environment import Environment
from .errors import LauncherError
from .portrait import PHOTO, RANDOM_WEIGHTS, ModelNames, PortraitRequest, make_portrait
from .portrait_world_run import add_sheet
from .releases import fetch_release
from .requirements import CHECKOUT, TESTS
from .server import PACK_NAME, HostProcess, free_port
from .stand_ins import demo_checkpoint, demo_face_pack, family_for, in_portrait_world

USUAL_PORT = 8188
EVERY_HOST, NEWEST_HOST = "--every-host", "--newest-host"  # options of our tests: see tests/conftest.py
WITH_MODELS = "  python quickstart.py --photo anna.jpg --checkpoint v1-5-pruned-emaonly.safetensors --face-pack buffalo_l"


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the host is stopped on the way out
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with Ctrl-C ignored
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    try:
        if arguments[:1] == ["test"]:
            return run_tests(arguments[1:])
        if arguments[:1] == ["run"]:
            return run_command(arguments[1:])
        return quickstart(arguments)
    except LauncherError as error:
        print(f"\nquickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nquickstart: stopped.", file=sys.stderr)
        return 130


def run_tests(pytest_arguments: list[str]) -> int:
    """Install what the tests need for every host that is found, and run pytest on them.

    With NEWEST_HOST: for ComfyUI's newest release alone.
    """
    if NEWEST_HOST in pytest_arguments:
        get_newest_release()
    search = hosts.find_checkouts()
    found = [*search.found, *([hosts.pip_host()] if hosts.pip_host_is_possible() else [])]
    if NEWEST_HOST in pytest_arguments:
        found = found[:1]
    layers = [layer for host in found for layer in host.layers]
    environment = environments.prepare((*layers, TESTS))
    # Everything takes two processes, in which two hosts run beside each other; what is named runs in one, where it can be debugged.
    if set(pytest_arguments) <= {EVERY_HOST}:
        if code := _call(environment, ["ruff", "check", "--no-cache", "."], cwd=CHECKOUT):
            return code  # seconds, so it is said before the minutes
        pytest_arguments = ["-n", "2", "--dist", "loadscope", "--durations", "15", *pytest_arguments]
    return _call(environment, ["pytest", *pytest_arguments], cwd=CHECKOUT)  # not `python -m pytest`: that puts the checkout on sys.path


def run_command(command: list[str]) -> int:
    """Run any command in the environment, from the current folder."""
    if not command:
        raise LauncherError("Name a command after 'run', for example: python quickstart.py run python -V")
    environment = environments.prepare()
    return _call(environment, command)


def quickstart(arguments: list[str]) -> int:
    """Make a portrait, or with --serve leave the host running."""
    options = _options(arguments)
    started = time.monotonic()
    request = PortraitRequest(_existing(options.photo or PHOTO, "--photo"), options.output.absolute(),
                              _existing(options.checkpoint, "--checkpoint"), _existing(options.face_pack, "--face-pack", folder=True),
                              _existing(options.identity, "--identity"), rehearse=options.rehearse)
    host, search = choose_host(options.host, options.host_version)
    print(f"Host: {host}")
    environment = environments.prepare(host.layers)
    base = BaseDirectory.make(quickstart_folder() / host.id)
    with locked(base.root / "in-use.lock", waiting=lambda: print("Another quickstart is running; waiting for it.")):
        base.add_node_pack(CHECKOUT, PACK_NAME)
        names = _add_models(request, base, environment)
        port = free_port(USUAL_PORT) if options.serve else None
        process = HostProcess(host, base, environment, environment.variables(), options.cpu or not _has_gpu(environment), port)
        ready = time.monotonic()
        print(f"Starting {host.id} on {'the CPU' if process.cpu else 'the GPU'} (its log: {process.log})")
        with process:
            print(f"It answers at {process.address}")
            phases = {"environment and models": ready - started, "host's start": time.monotonic() - ready}
            try:
                report = make_portrait(request, process, names, search)
                if request.in_portrait_world:
                    report = add_sheet(report, request, environment, phases)
            except LauncherError as error:
                raise LauncherError(f"{error}\nThe host's log is {process.log}") from error
            _summarise(report, request, time.monotonic() - started)
            if options.serve:
                print(f"\nThe host keeps running at {process.address}; open it in a browser. Ctrl-C stops it.")
                while process.is_alive():
                    time.sleep(0.5)
                raise LauncherError(f"{host.id} has stopped; its log is {process.log}\n{process.last_lines()}")
    return 0


def _add_models(request: PortraitRequest, base: BaseDirectory, environment: Environment) -> ModelNames:
    """Put the models, or the demo ones where none are given, in the host's folders."""
    if request.in_portrait_world:
        return ModelNames()
    if request.identity:
        if not request.checkpoint and in_portrait_world(environment, request.identity):
            return ModelNames(identity=base.add_identity(request.identity))
        checkpoint = request.checkpoint or demo_checkpoint(environment, family_for(environment, request.identity))
        return ModelNames(base.add_checkpoint(checkpoint), identity=base.add_identity(request.identity))
    face_pack = base.add_face_pack(request.face_pack) if request.face_pack else base.add_face_pack(demo_face_pack(environment), "demo")
    return ModelNames(base.add_checkpoint(request.checkpoint or demo_checkpoint(environment)), face_pack)


def choose_host(chosen: Path | None, version: str | None = None) -> tuple[hosts.Host, hosts.HostSearch]:
    """Return the ComfyUI to use: the one in `chosen`, or the release `version`, or else the first there is.

    That is a checkout, else the newest release where GitHub can be reached, else the pip host. Raises LauncherError.
    """
    if chosen and version:
        raise LauncherError("--host names the folder of a ComfyUI and --host-version a release to download: "
                            "give one of them.")
    search = hosts.find_checkouts(chosen)
    if version:
        host = next((host for host in search.found if host.version == version.removeprefix("v")), None)
        return host or _downloaded(version), search
    for missing in search.missing:
        print(f"  looked for {missing}")
    if search.preferred:
        return search.preferred, search
    print("  asking whether GitHub can be reached …")
    if hosts.github_is_reachable():
        return _downloaded(None), search
    search = hosts.HostSearch(search.found, (*search.missing, "a ComfyUI to download: GitHub cannot be reached"))
    if not hosts.pip_host_is_possible():
        raise LauncherError(f"No ComfyUI was found, and the one that pip can install needs Python 3.10 to 3.12; this is {sys.version.split()[0]}. "
                            "Give a ComfyUI with --host FOLDER, or run this with such a Python.")
    return hosts.pip_host(), search


def _downloaded(version: str | None) -> hosts.Host:
    folder = fetch_release(version)
    host = hosts.read_checkout(folder, "downloaded by quickstart")
    if host is None:
        raise LauncherError(f"What was downloaded is not a ComfyUI: {hosts.what_is_wrong(folder)}. "
                            "Delete that folder and run this again.")
    return host


def get_newest_release():
    """Download the newest release of ComfyUI where GitHub can be reached, and say so where not.

    Raises LauncherError where there is no ComfyUI either.
    """
    if hosts.github_is_reachable():
        print(f"The newest release: {_downloaded(None)}")
        return
    found = hosts.find_checkouts().found
    if not found:
        raise LauncherError("The newest release of ComfyUI cannot be downloaded, for GitHub cannot be reached, and no "
                            "ComfyUI was found here. Name one in the variable COMFYUI_PATH.")
    print(f"GitHub cannot be reached: the newest ComfyUI of this machine, {found[0]}, stands for the newest release.")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="quickstart.py", description="From one photograph to a portrait, in a real ComfyUI. Without options: a drawn person, in the model that ships with the pack.",
                                     epilog="Also: 'quickstart.py test [pytest arguments]' and 'quickstart.py run COMMAND …'.")
    parser.add_argument("--photo", type=Path, help="a photograph of one person; default: a drawn face that ships with this repository")
    parser.add_argument("--checkpoint", type=Path, help="an SD1.x, SD2.x or SDXL checkpoint; default: the model of drawn people that ships with the pack")
    parser.add_argument("--face-pack", type=Path, help="a folder with an insightface pack, such as buffalo_l; default with --checkpoint: a tiny stand-in")
    parser.add_argument("--identity", type=Path, help="use a saved or imported identity (.safetensors, learned_embeds.bin) instead of training one on a photograph")
    parser.add_argument("--rehearse", action="store_true", help="few steps and small pictures, to see that everything runs; always so with --face-pack or --identity alone")
    parser.add_argument("--serve", action="store_true", help="leave ComfyUI running afterwards, for the browser")
    parser.add_argument("--host", type=Path, help="the ComfyUI folder to use; default: the first one found")
    parser.add_argument("--host-version", metavar="X", help="the release of ComfyUI to use, such as 0.33.0, downloaded if "
                        "need be; default: the newest, if none is found")
    parser.add_argument("--cpu", action="store_true", help="do not use a graphics card")
    parser.add_argument("--output", type=Path, default=Path("quickstart-output"), help="where the results go (default: %(default)s)")
    return parser.parse_args(arguments)


def _existing(path: Path | None, option: str, folder: bool = False) -> Path | None:
    if path is None:
        return None
    path = path.expanduser().absolute()
    if not (path.is_dir() if folder else path.is_file()):
        raise LauncherError(f"{option} {path} is not {'a folder' if folder else 'a file'}.")
    return path


def _has_gpu(environment: Environment) -> bool:
    question = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available())"
    done = subprocess.run([str(environment.python), "-c", question], env=environment.variables(), capture_output=True, text=True)
    return done.stdout.strip() == "True"


def _call(environment: Environment, command: list[str], cwd: Path | None = None) -> int:
    variables = environment.variables()
    program = command[0]
    if os.path.dirname(program) == "":  # Windows would search the parent's PATH, not the one handed over
        import shutil
        program = shutil.which(program, path=variables["PATH"])
        if program is None:
            raise LauncherError(f"There is no command '{command[0]}' in the environment {environment.folder}.")
    process = subprocess.Popen([program, *command[1:]], env=variables, cwd=cwd)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the command got it too; it decides
        except SystemExit:
            process.terminate()
            process.wait()
            raise


def _summarise(report: dict, request: PortraitRequest, seconds: float):
    print(f"\nDone in {seconds:.0f} seconds. Slowest nodes: " +
          ", ".join(f"{name} {took:.1f} s" for name, took in sorted(report["node_seconds"].items(), key=lambda item: -item[1])[:3]))
    print(f"  picture   {report['pictures']['portrait']}\n  identity  {report['identity']}\n  report    {request.output / 'report.json'}")
    if request.in_portrait_world:
        print(f"  likeness  {report['likeness']:.2f} ({report['likeness_scale'].split(';')[0]})\n\n"
              "That was the small model of drawn people that ships with the pack. For portraits of real people give real models:\n" + WITH_MODELS)
    elif report["base_model"] == RANDOM_WEIGHTS:
        print("\nThe base model has RANDOM WEIGHTS: the picture is noise-like and only proves that everything runs.\n"
              "For a real portrait give real models:\n" + WITH_MODELS)
