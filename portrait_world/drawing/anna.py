"""Anna, the photograph that the repository ships: a test person, so nothing that is trained has ever seen her."""
from __future__ import annotations

import numpy as np

from ..world.people import Person, person
from ..world.portrayal import Shot
from .portrait import render

SPLIT, INDEX = "test", 4
PHOTOGRAPH = Shot(scene="studio", colour="green", garment="sweater", yaw=0.15, tilt=-1.5, light=0.08, seed=11)


def anna() -> Person:
    """The person in ``example_workflows/anna.png``."""
    return person(SPLIT, INDEX)


def photograph(size: int = 512) -> np.ndarray:
    """(size, size, 3) uint8: the shipped file is this at 512."""
    return render(anna(), PHOTOGRAPH, size=size, supersampling=4)
