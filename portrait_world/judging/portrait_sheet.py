"""The labelled sheet of a demo run: the photograph, and the person in every scene. Runs in the environment, which has Pillow and torch.

    python -m portrait_world.judging.portrait_sheet REQUEST.json              draw the sheet, judge the likeness, print it as JSON
    python -m portrait_world.judging.portrait_sheet --thumbnail SHEET.png FILE.jpg     make the example workflow's thumbnail of a sheet

A request is {"photo": path, "anna": bool, "pictures": [{"path", "caption"}], "sheet": path}; "anna" says that the photograph is the shipped one,
whose person's other photographs the judge can be shown.
"""
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE, GAP, CAPTION, TITLE, MARGIN = 256, 20, 80, 96, 32
PAPER, INK, FAINT, FRAME = "#f6f4ef", "#22252a", "#6b7078", "#2f6f4f"
COLUMNS = 4
NATIVE = 128  # the world's pictures
THUMBNAIL_WIDTH = 1000


def draw_sheet(photo: Image.Image, tiles: list[tuple[Image.Image, str]], title: str, subtitle: str) -> Image.Image:
    """Return the sheet: a title, the photograph at the left as tall as two rows, and a captioned tile for each picture."""
    rows = max(2, -(-len(tiles) // COLUMNS))
    large = 2 * TILE + CAPTION + GAP
    width = 2 * MARGIN + large + COLUMNS * (TILE + GAP)
    sheet = Image.new("RGB", (width, MARGIN + TITLE + rows * (TILE + CAPTION + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), title, INK, load_font(34))
    pen.text((MARGIN, MARGIN + 42), subtitle, FAINT, load_font(19))
    _paste(sheet, pen, photo, MARGIN, MARGIN + TITLE, large, "the photograph: all that was learned from", FRAME)
    for number, (picture, caption) in enumerate(tiles):
        x = MARGIN + large + GAP + number % COLUMNS * (TILE + GAP)
        _paste(sheet, pen, picture, x, MARGIN + TITLE + number // COLUMNS * (TILE + CAPTION + GAP), TILE, caption)
    return sheet


def short_caption(prompt: str, trigger: str = "<anna>") -> str:
    """Return what a prompt adds to the person: 'a photo of <anna> smiling on a beach' → 'smiling on a beach'."""
    style, _, rest = prompt.partition(trigger)
    style = style.strip().removeprefix("a photo of").removesuffix(" of").strip()
    words = rest.strip(" ,").removeprefix("person").strip(" ,")
    return ", ".join(part for part in (style, words) if part) or prompt


def judge(photo: Image.Image, anna: bool, pictures: list[Image.Image]) -> dict:
    """Return the likeness of pictures to the person of the photograph, by a recognizer that took no part in the training."""
    from ..drawing.anna import INDEX, SPLIT
    from . import likeness

    seen = np.stack([_pixels(picture) for picture in pictures])
    if anna:
        scale = likeness.scale(SPLIT, INDEX)
        values = scale.likeness(seen)
        own = "calibrated: 1 = the person's other photographs, 0 = strangers; a picture without a face counts as cosine 0"
    else:
        values = likeness.cosines_to(_pixels(photo), seen)
        own = "cosine to the photograph, not calibrated: the judge has no other photographs of this person"
    return {"likeness": round(float(values.mean()), 4), "likeness_scale": own, "likeness_by_picture": [round(float(value), 4) for value in values],
            "judge": "portrait_world/assets/judge.safetensors"}


def main(arguments: list[str]) -> int:
    """Run one of the two commands of the module's first lines."""
    if arguments[0] == "--thumbnail":
        sheet = Image.open(arguments[1]).convert("RGB")
        size = (THUMBNAIL_WIDTH, round(sheet.height * THUMBNAIL_WIDTH / sheet.width))
        sheet.resize(size, Image.Resampling.LANCZOS).save(arguments[2], quality=88, optimize=True)
        return 0
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    photo, pictures = _open(request["photo"]), [_open(picture["path"]) for picture in request["pictures"]]
    result = judge(photo, request["anna"], pictures)
    who = "A person this model has never seen" if request["anna"] else "The person of your photograph"
    scale = "1 = the person's own photographs, 0 = strangers" if request["anna"] else "cosine to the photograph"
    tiles = [(picture, short_caption(entry["caption"])) for picture, entry in zip(pictures, request["pictures"])]
    sheet = draw_sheet(photo, tiles, f"{who}, in {len(tiles)} scenes", f"likeness {result['likeness']:.2f} ({scale}), by a judge that took no part in the training")
    sheet.save(request["sheet"])
    print(json.dumps(result))
    return 0


def _open(path: str) -> Image.Image:
    from idea_engine.files.pictures import open_picture

    with open_picture(path) as picture:
        return picture.convert("RGB")


def _square(picture: Image.Image, side: int) -> Image.Image:
    """Return the largest centred square, `side` pixels wide."""
    small = min(picture.size)
    left, top = (picture.width - small) // 2, (picture.height - small) // 2
    return picture.crop((left, top, left + small, top + small)).resize((side, side), Image.Resampling.LANCZOS)


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(_square(picture, NATIVE))


def _paste(sheet, pen, picture: Image.Image, x: int, y: int, side: int, caption: str, frame: str = ""):
    sheet.paste(_square(picture, side), (x, y))
    if frame:
        pen.rectangle((x - 3, y - 3, x + side + 2, y + side + 2), outline=frame, width=3)
    font = load_font(18)
    for number, line in enumerate(_wrapped(pen, caption, font, side)[:3]):
        pen.text((x, y + side + 8 + 23 * number), line, INK, font)


def _wrapped(pen, text: str, font, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def load_font(size: int):
    return ImageFont.load_default(size)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
