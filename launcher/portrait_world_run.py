"""What a run in the Portrait World adds to the pictures: how much they look like the person, and the labelled sheet."""
import json
import time

from .environment import Environment
from .portrait import PHOTO, PortraitRequest, write_report
from .stand_ins import run_inside


def add_sheet(report: dict, request: PortraitRequest, environment: Environment, phases: dict[str, float], say=print) -> dict:
    """Judge the scenes, draw `portrait.png`, and return (and write) the report with the likeness and the seconds of every phase.

    The judge runs outside the host: nothing that learns a person can reach it. Raises LauncherError.
    """
    say("  judging the likeness")
    begun = time.monotonic()
    scenes = [path for name, path in report["pictures"].items() if name.startswith("scene")]
    sheet, question = request.output / "portrait.png", request.output / "sheet.json"
    pictures = [{"path": path, "caption": caption} for path, caption in zip(scenes, report["prompts"], strict=True)]
    question.write_text(json.dumps({"photo": str(request.photo), "anna": request.photo == PHOTO, "pictures": pictures, "sheet": str(sheet)}), encoding="utf-8")
    try:
        judged = json.loads(run_inside(environment, ["-m", "portrait_world.judging.portrait_sheet", str(question)]).splitlines()[-1])
    finally:
        question.unlink()
    whole = {**phases, **_phases_of(report), "judging and the sheet": time.monotonic() - begun}
    report = {**report, **judged, "pictures": {"portrait": str(sheet), **report["pictures"]}, "phase_seconds": {name: round(took, 1) for name, took in whole.items()}}
    write_report(report, request.output)
    return report


def _phases_of(report: dict) -> dict[str, float]:
    """Return the graph's seconds as training, sampling and the rest."""
    nodes = report["node_seconds"]
    kinds = {"training": "IDEA_TrainIDEA", "sampling": "KSampler"}
    seconds = {phase: sum(took for name, took in nodes.items() if name.split(" ")[0] == kind) for phase, kind in kinds.items()}
    return {**seconds, "the other nodes": sum(nodes.values()) - sum(seconds.values())}
