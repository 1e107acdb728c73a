"""The thumbnails of the example workflows: each workflow runs in a real ComfyUI, and its own pictures become its thumbnail.

    python quickstart.py run python -m launcher.thumbnails             all of them
    python quickstart.py run python -m launcher.thumbnails 3 6         only these

What would have to be downloaded is replaced by the Portrait World, as in the tests; the steps and the seeds are the workflow's own.
"""
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from .base_directory import BaseDirectory
from .client import Client
from .errors import LauncherError
from .example_workflow import EXAMPLES, on_demo_model
from .hosts import find_checkouts, pip_host, pip_host_is_installed
from .portrait import PHOTO, PATIENCE, _prompt_of, saving_nodes
from .portrait_sheet import PAPER, THUMBNAIL_WIDTH, draw_sheet, short_caption
from .requirements import CHECKOUT
from .server import PACK_NAME, HostProcess
from .workflow import load_workflow

TILE, GAP, IN_A_ROW = 256, 12, 5
QUALITY = 85


def mosaic(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures in rows, each as high as the others; a single one is shown whole and large."""
    if len(pictures) == 1:
        large = pictures[0]
        scale = max(1, round(2 * TILE / large.height)) if large.height < TILE else min(1.0, THUMBNAIL_WIDTH / large.width)
        return large.resize((round(large.width * scale), round(large.height * scale)), Image.Resampling.LANCZOS)
    scaled = [picture.resize((round(picture.width * TILE / picture.height), TILE), Image.Resampling.LANCZOS) for picture in pictures]
    rows = [scaled[start:start + IN_A_ROW] for start in range(0, len(scaled), IN_A_ROW)]
    width = max(sum(picture.width for picture in row) + GAP * (len(row) + 1) for row in rows)
    sheet = Image.new("RGB", (width, GAP + len(rows) * (TILE + GAP)), PAPER)
    for number, row in enumerate(rows):
        x = GAP
        for picture in row:
            sheet.paste(picture, (x, GAP + number * (TILE + GAP)))
            x += picture.width + GAP
    return sheet


def write(sheet: Image.Image, path: Path):
    """Write a thumbnail, first under another name, so that an interrupted run leaves the old one whole."""
    if sheet.width > THUMBNAIL_WIDTH:
        sheet = sheet.resize((THUMBNAIL_WIDTH, round(sheet.height * THUMBNAIL_WIDTH / sheet.width)), Image.Resampling.LANCZOS)
    part = path.with_name(path.name + ".part")
    sheet.convert("RGB").save(part, "JPEG", quality=QUALITY, optimize=True)
    part.replace(path)


def thumbnail(name: str, prompt: dict, execution, client: Client) -> Image.Image:
    """Return the thumbnail of a finished run.

    The first workflow gets the labelled sheet; one that judges shows its sheet of figures; any other its pictures.
    """
    saved = saving_nodes(prompt)
    shown = [[Image.open(io.BytesIO(client.picture(picture))).convert("RGB") for picture in execution.pictures(number)] for number in saved]
    photo = Image.open(PHOTO).convert("RGB")
    if name.startswith("0"):
        tiles = [(pictures[0], short_caption(_prompt_of(prompt, number))) for number, pictures in zip(saved, shown)]
        return draw_sheet(photo, tiles, f"One picture in, {len(tiles)} scenes out", "a person the model has never seen, learned from the large picture alone")
    judged = [pictures[0] for number, pictures in zip(saved, shown) if prompt[prompt[number]["inputs"]["images"][0]]["class_type"] == "IDEA_IdentityScore"]
    if judged:
        return mosaic(judged[-1:])
    pictures = [picture for group in shown for picture in group]
    reads_the_photo = any(node["class_type"] in ("LoadImage", "IDEA_FaceCLIPEncode") for node in prompt.values())
    return mosaic([photo, *pictures] if reads_the_photo else pictures)


def main(chosen: list[str]) -> int:
    """Make the thumbnails of the workflows whose names begin with one of `chosen`, or of all."""
    found = [*find_checkouts().found, *([pip_host()] if pip_host_is_installed() else [])]
    if not found:
        raise LauncherError("No ComfyUI was found. Run python quickstart.py once: it gets one.")
    with tempfile.TemporaryDirectory() as folder:
        base = BaseDirectory.make(Path(folder))
        base.add_node_pack(CHECKOUT, PACK_NAME)
        with HostProcess(found[0], base) as process:
            client = Client(process.address)
            photo = client.upload_picture(PHOTO)
            for path in EXAMPLES:
                if chosen and path.name[0] not in chosen:
                    continue
                print(path.stem, flush=True)
                prompt = load_workflow(path, client.object_info())
                people = sorted((base.root / "models" / "idea").glob("*.safetensors"))
                if any(node["class_type"] == "IDEA_LoadIdentity" for node in prompt.values()) and not people:
                    raise LauncherError(f"'{path.stem}' needs a saved identity: name workflow 0 beside it.")
                execution = client.run(on_demo_model(prompt, photo, people[0].name if people else ""), timeout=PATIENCE)
                write(thumbnail(path.stem, prompt, execution, client), path.with_suffix(".jpg"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
