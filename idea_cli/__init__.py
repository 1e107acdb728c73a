"""The command line ``idea-engine``: the engine on a diffusers pipeline, without ComfyUI.

A subcommand is a module with ``NAME``, ``SUMMARY``, ``EPILOG``, ``arguments(parser)`` and ``run(options) -> int``; it is registered in COMMANDS.
diffusers, transformers and insightface are imported when a subcommand runs, not for ``--help``.
"""
from __future__ import annotations

import argparse
import signal
import sys
from typing import Sequence

from idea_engine.errors import IdeaError
from idea_engine.files.foreign_text import shown

from . import check, convert_faceclip, embed, evaluate, forget, generate, inspect, train

COMMANDS = (embed, train, generate, inspect, evaluate, check, forget, convert_faceclip)
FAILED = 2  # exit code of every mistake that a sentence explains, as of argparse
_LONGEST = 4000  # characters of a sentence
STOPPED = 130  # what shells report for Ctrl-C

_DESCRIPTION = "Put a particular person into generated pictures. One photograph becomes one small file, which any prompt can use."
_EPILOG = """\
a first round without any download, on the small model that ships with the project:

  idea-engine train --model demo --photos example_workflows/anna.png -o anna.safetensors
  idea-engine generate --model demo --identity anna.safetensors --prompt "a photo of <anna> on a beach" -o pictures
  idea-engine evaluate --model demo --identity anna.safetensors --held-out demo -o report

The files are the same as in ComfyUI. Only use photographs of people who agreed to it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 0, or 2 after one sentence on the error stream, or 130 when stopped."""
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files may hold what no terminal can print
            stream.reconfigure(errors="backslashreplace")
    # A process that is asked to end (by a scheduler, a closed terminal) keeps its work just as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept; the same command goes on from here.", file=sys.stderr)
        return STOPPED
    except IdeaError as error:
        print(f"idea-engine: {shown(error, _LONGEST)}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"idea-engine: {shown(error.filename or 'A file')} cannot be used: {error.strerror or shown(error)}.", file=sys.stderr)
        return FAILED
    except UnicodeDecodeError as error:
        print(f"idea-engine: A text file is not in UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.", file=sys.stderr)
        return FAILED
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        print("idea-engine: There is not enough memory for the model and one picture. Lower --size or --precision, or close other programs.", file=sys.stderr)
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The whole command line; ``--help`` of each part explains and shows an example."""
    made = argparse.ArgumentParser("idea-engine", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        sub = commands.add_parser(
            command.NAME, help=command.SUMMARY, description=command.SUMMARY, epilog=command.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.arguments(sub)
        sub.set_defaults(run=command.run)
    return made
