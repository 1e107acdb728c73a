"""What applied identities cost at each step of the host's sampler.

For each host, in one process: seconds per UNet step of the sampler (euler, cfg 7, so two prompts in a batch of 2) with the bare model
and a plain prompt, and with 1, 2 and 4 identities applied one after another with the node's own `start_at`, all mentioned in a prompt of the same
encoded length, and with one identity in five stages (recipe sefi), and with one identity masked to the left half of the picture. The
model is a UNet of SD1.5's widths with half its levels and random weights (see `inside/models.py`), the text encoder has full size. They
take turns, the bare model before and after the others; a turn's figure is the median of its steps. A ratio is the median over the rounds of
(applied / mean of the two bare turns of the same round), and `bare/bare`, which should be 1, says how far a ratio can be trusted. On the CPU
the clock is the process's own, with one thread, so that other programs disturb less. `patch ms` is what the pack's own code takes of each step.

Where no ComfyUI is found, or with `--diffusers`, the same turns are taken by a diffusers pipeline of such a UNet and text encoder, with the identities
applied to it as `idea-engine generate` does; `patch ms` is then not known.

Writes ratio_1, ratio_2, ratio_4, ratio_stages, ratio_mask: the worst host's. Goal: 1.01, 1.02, 1.03, and 1.01 for stages; a mask has none, for its
blocks attend three times instead of once.

    python quickstart.py run python benchmarks/sampling.py [--json FILE] [--diffusers [--shape sd15 --device cuda --dtype float16 --pixels 512]]
"""
import statistics

from fresh_host import arguments, bench, found_hosts, hosts
from inside.turns import APPLIED, BARE, BARE_AGAIN, MASK, STAGES
from result import print_table, write_json

RATIOS = tuple(f"ratio_{name}" for name in (*APPLIED, STAGES, MASK))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pixels", type=int, default=256, help="side of the picture (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="sampling steps in a turn; the first is not counted (default: %(default)s)")
    parser.add_argument("--diffusers", action="store_true", help="on a diffusers pipeline even where there is a ComfyUI")
    parser.add_argument("--shape", default="sd15-half", help="of the diffusers pipeline: sd15, sd21, sdxl, each also with -half (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="of the diffusers pipeline (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the diffusers pipeline (default: %(default)s)")
    options = parser.parse_args()
    nowhere = not options.host and not hosts.find_checkouts().found and not hosts.pip_host_is_possible()
    if options.diffusers or nowhere:
        measured = {f"diffusers, {options.shape}": on_diffusers(options)}
    else:
        measured = {host.id: measure(host, options) for host in found_hosts(options.host)}
    print_table(
        ["host", "bare s/step", "bare/bare", "ratio 1", "ratio 2", "ratio 4", "stages", "mask", "patch ms 1", "2", "4", "stages"],
        [[name, *(m.get(key, "") for key in ("bare_seconds", "ratio_bare", *RATIOS, "patch_ms_1", "patch_ms_2", "patch_ms_4", "patch_ms_stages"))] for name, m in measured.items()],
    )
    worst = {ratio: max(m[ratio] for m in measured.values()) for ratio in RATIOS if all(ratio in m for m in measured.values())}
    write_json(options.json, {**worst, "pixels": options.pixels, "rounds": options.rounds, "hosts": measured})


def measure(host, options) -> dict:
    with bench(host) as running:
        answer = running.measure("sampling:measure", pixels=options.pixels, rounds=options.rounds, steps=options.steps)
    return ratios(answer)


def on_diffusers(options) -> dict:
    import torch

    from sampling_diffusers import measure
    from true_models import SHAPES, pipeline

    pipe = pipeline(SHAPES[options.shape], torch.device(options.device), getattr(torch, options.dtype))
    return ratios(measure(pipe, options.pixels, options.rounds, options.steps))


def ratios(answer: dict) -> dict:
    """What is written of one host's measurement."""
    assert answer["effect"] > 0, "the applied identities changed nothing"
    seconds, patch = answer["seconds"], answer.get("patch_seconds", {})
    before, after = seconds[BARE], seconds[BARE_AGAIN]
    bare = [(first + second) / 2 for first, second in zip(before, after)]
    result = {"bare_seconds": statistics.median(bare), "ratio_bare": statistics.median(late / early for early, late in zip(before, after))}
    for name in (name for name in seconds if name not in (BARE, BARE_AGAIN)):
        result[f"ratio_{name}"] = statistics.median(applied / alone for applied, alone in zip(seconds[name], bare))
        if name in patch:
            result[f"patch_ms_{name}"] = 1000 * statistics.median(patch[name])
    return {**result, "round_seconds": seconds}


if __name__ == "__main__":
    main()
