"""``idea-engine generate``: pictures of people from prompts."""
from __future__ import annotations

import argparse
from pathlib import Path

NAME = "generate"
SUMMARY = "Draw pictures from prompts that mention people by their triggers."
EPILOG = """\
examples:
  idea-engine generate --model demo --identity anna.safetensors --prompt "a photo of <anna> smiling on a beach" --count 4 -o pictures
  idea-engine generate --model models/sd15 --identity anna.safetensors --identity ben.safetensors --prompt "<anna> and <ben> in a boat"

Each picture has a seed of its own, counted up from --seed; the seed stands in its name, and the prompt in its file.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    from .drawing import drawing_arguments
    from .models import model_arguments

    parser.add_argument("--identity", action="append", default=[], metavar="FILE", help="an identity file; repeat for several people")
    parser.add_argument("--prompt", action="append", required=True, metavar="TEXT", help="repeat for several prompts")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="pictures of each prompt (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture (default: 0)")
    parser.add_argument("-o", "--output", default="pictures", metavar="DIR", help="where the pictures go (default: %(default)s)")
    drawing_arguments(parser)
    model_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from idea_engine.applying.diffusers import applied
    from idea_engine.errors import TriggerError
    from idea_engine.identity.foreign_files import read_identity

    from .drawing import Drawing
    from .models import load_model
    from .pictures import free_name, write_picture

    people = [read_identity(Path(file)) for file in options.identity]
    for prompt in options.prompt:
        if people and not any(person.trigger in prompt for person in people):
            raise TriggerError(f"The prompt '{prompt}' mentions none of {', '.join(person.trigger for person in people)}; put the word of a person into it.")
    model = load_model(options)
    drawing = Drawing.of(options, model)
    acting = [drawing.acting(person) for person in people]
    with applied(model.pipe, acting) as pipe:
        for number, prompt in enumerate(options.prompt, 1):
            for seed in range(options.seed, options.seed + options.count):
                picture = drawing.draw(pipe, prompt, seed)
                name = f"{number}-{seed}.png" if len(options.prompt) > 1 else f"{seed}.png"
                notes = {"prompt": prompt, "seed": str(seed), "identities": ", ".join(person.trigger for person in people)}
                print(write_picture(picture, free_name(Path(options.output) / name), notes), flush=True)
    return 0
