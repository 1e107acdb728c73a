"""The thumbnails of the example workflows: each workflow runs in a real ComfyUI, and its own pictures become its thumbnail.

    python quickstart.py run python -m tools.thumbnails             all of them
    python quickstart.py run python -m tools.thumbnails 3 10        only these

What would have to be downloaded is replaced by the Portrait World, as in the tests; the steps and the seeds are the workflow's own.
"""
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from launcher.client import Client
from launcher.errors import LauncherError
from launcher.example_workflow import EXAMPLES, number_of, on_demo_model
from launcher.portrait import PATIENCE, PHOTO, _prompt_of, saving_nodes
from launcher.session import any_host, session
from launcher.workflow import load_workflow
from portrait_world.judging.portrait_sheet import INK, PAPER, THUMBNAIL_WIDTH, draw_sheet, load_font, short_caption

TILE, GAP, IN_A_ROW, CAPTION = 256, 12, 5, 26
QUALITY = 85
SHEETS = ("IDEA_IdentityScore", "IDEA_ReferenceDoctor")  # what they draw says more than the pictures it was made of


def mosaic(pictures: list[Image.Image], captions: Sequence[str] = ()) -> Image.Image:
    """Return pictures in rows, each as high as the others and with its caption below, if there are captions; a single one is shown whole and large."""
    if len(pictures) == 1:
        large = pictures[0]
        scale = max(1, round(2 * TILE / large.height)) if large.height < TILE else min(1.0, THUMBNAIL_WIDTH / large.width)
        return large.resize((round(large.width * scale), round(large.height * scale)), Image.Resampling.LANCZOS)
    scaled = [picture.resize((round(picture.width * TILE / picture.height), TILE), Image.Resampling.LANCZOS) for picture in pictures]
    rows = [scaled[start:start + IN_A_ROW] for start in range(0, len(scaled), IN_A_ROW)]
    width = max(sum(picture.width for picture in row) + GAP * (len(row) + 1) for row in rows)
    high = TILE + GAP + (CAPTION if captions else 0)
    sheet = Image.new("RGB", (width, GAP + len(rows) * high), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = GAP, GAP + number * high
        for place, picture in enumerate(row):
            sheet.paste(picture, (x, y))
            if captions:
                pen.text((x + picture.width / 2, y + TILE + 6), captions[number * IN_A_ROW + place], INK, load_font(18), anchor="ma")
            x += picture.width + GAP
    return sheet


def titles(path: Path) -> dict[str, str]:
    """Node id → the title that a workflow gives the node."""
    return {str(node["id"]): node.get("title", "") for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]}


def write(sheet: Image.Image, path: Path):
    """Write a thumbnail, first under another name, so that an interrupted run leaves the old one whole."""
    if sheet.width > THUMBNAIL_WIDTH:
        sheet = sheet.resize((THUMBNAIL_WIDTH, round(sheet.height * THUMBNAIL_WIDTH / sheet.width)), Image.Resampling.LANCZOS)
    part = path.with_name(path.name + ".part")
    sheet.convert("RGB").save(part, "JPEG", quality=QUALITY, optimize=True)
    part.replace(path)


def thumbnail(path: Path, prompt: dict, execution, client: Client) -> Image.Image:
    """Return the thumbnail of a finished run.

    The first workflow gets the labelled sheet; one that judges pictures or photographs shows its sheet of them; any other its pictures, under their
    titles where several nodes save one.
    """
    saved = saving_nodes(prompt)
    shown = [[Image.open(io.BytesIO(client.picture(picture))).convert("RGB") for picture in execution.pictures(number)] for number in saved]
    photo = Image.open(PHOTO).convert("RGB")
    if number_of(path) == 0:
        tiles = [(pictures[0], short_caption(_prompt_of(prompt, number))) for number, pictures in zip(saved, shown)]
        return draw_sheet(photo, tiles, f"One picture in, {len(tiles)} scenes out", "a person the model has never seen, learned from the large picture alone")
    judged = [pictures[0] for number, pictures in zip(saved, shown) if prompt[prompt[number]["inputs"]["images"][0]]["class_type"] in SHEETS]
    if judged:
        return mosaic(judged[-1:])
    pictures = [picture for group in shown for picture in group]
    if len(saved) > 1:
        return mosaic(pictures, [titles(path)[number] for number, group in zip(saved, shown) for _ in group])
    reads_the_photo = any(node["class_type"] in ("LoadImage", "IDEA_FaceCLIPEncode") for node in prompt.values())
    return mosaic([photo, *pictures] if reads_the_photo else pictures)


def main(chosen: list[str]) -> int:
    """Make the thumbnails of the workflows whose numbers are `chosen`, or of all."""
    with session(any_host()) as running:
        client = running.client
        photo = client.upload_picture(PHOTO)
        for path in EXAMPLES:
            if chosen and str(number_of(path)) not in chosen:
                continue
            print(path.stem, flush=True)
            prompt = load_workflow(path, client.object_info())
            people = sorted((running.base.root / "models" / "idea").glob("*.safetensors"))
            if any(node["class_type"] == "IDEA_LoadIdentity" for node in prompt.values()) and not people:
                raise LauncherError(f"'{path.stem}' needs a saved identity: name workflow 0 beside it.")
            execution = client.run(on_demo_model(prompt, photo, people[0].name if people else ""), timeout=PATIENCE)
            write(thumbnail(path, prompt, execution, client), path.with_suffix(".jpg"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
