"""The icon and the banner of the registry: a drawn person, and what the model made of her photograph.

    python quickstart.py run python -m tools.brand
"""
import sys

from PIL import Image, ImageDraw, ImageFont

from launcher.requirements import CHECKOUT

IMAGES = CHECKOUT / "docs" / "images"
INK, PAPER, GREEN, ORANGE = "#22252a", "#f6f4ef", "#2f6f4f", "#d9803a"
ICON, BANNER = 400, (1260, 540)


def _face(side: int, **circumstances) -> Image.Image:
    from portrait_world.drawing.anna import anna
    from portrait_world.drawing.portrait import render
    from portrait_world.world.portrayal import Shot

    return Image.fromarray(render(anna(), Shot(**circumstances), size=side, supersampling=3))


def _rounded(picture: Image.Image, radius: int) -> Image.Image:
    mask = Image.new("L", (picture.width * 4, picture.height * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 4 * radius, fill=255)
    return Image.merge("RGBA", (*picture.convert("RGB").split(), mask.resize(picture.size, Image.Resampling.LANCZOS)))


def icon() -> Image.Image:
    """One face between the brackets that make a word of a person."""
    sheet = Image.new("RGB", (4 * ICON, 4 * ICON), GREEN)
    pen = ImageDraw.Draw(sheet)
    for left in (True, False):
        points = [(300, 470), (110, 800), (300, 1130)]
        points = points if left else [(1600 - x, y) for x, y in points]
        pen.line(points, PAPER, 90, joint="curve")
        for x, y in (points[0], points[2]):
            pen.ellipse((x - 44, y - 44, x + 44, y + 44), PAPER)
    sheet = sheet.resize((ICON, ICON), Image.Resampling.LANCZOS)
    face = _rounded(_face(220, scene="studio", expression="smiling", garment="sweater", colour="orange"), 40)
    sheet.paste(face, (90, 90), face)
    return _rounded(sheet, 64)


PHOTO = CHECKOUT / "example_workflows" / "anna.png"  # what it learned from
SHEET = CHECKOUT / "example_workflows" / "0 — try it with no download.jpg"
SHEET_WIDTH = 1780  # of the sheet that became the thumbnail


def banner() -> Image.Image:
    """The name, one photograph, and the same person in three scenes."""
    sheet = Image.new("RGB", BANNER, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((70, 60), "ID-EA for ComfyUI", INK, ImageFont.load_default(64))
    pen.text((72, 144), "one photograph in, that person in every picture", "#5a6069", ImageFont.load_default(30))
    drawn = Image.open(SHEET).convert("RGB")  # what the model really drew, from the thumbnail of workflow 0
    unit = drawn.width / SHEET_WIDTH
    tiles = [drawn.crop(tuple(round(v * unit) for v in (left, 128, left + 256, 384))) for left in (664, 940, 1216)]
    for number, tile in enumerate([Image.open(PHOTO).convert("RGB"), *tiles]):
        face = _rounded(tile.resize((240, 240), Image.Resampling.LANCZOS), 28)
        sheet.paste(face, (70 + 290 * number + (0 if number == 0 else 20), 240), face)
    pen.rounded_rectangle((64, 234, 315, 485), 33, outline=GREEN, width=6)
    pen.line((322, 360, 366, 360), ORANGE, 8)
    pen.polygon(((362, 344), (378, 360), (362, 376)), fill=ORANGE)
    return sheet


def main() -> int:
    """Write both."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    icon().save(IMAGES / "icon.png", optimize=True)
    banner().save(IMAGES / "banner.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
