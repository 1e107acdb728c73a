"""The types of wires between our nodes, and where our nodes appear in the menu."""

CATEGORY = "ID-EA"
FACE_MODEL = "IDEA_FACE_MODEL"
FACE = "IDEA_FACE"
ENHANCED = "IDEA_ENHANCED"
IDENTITY = "IDEA_IDENTITY"
FACECLIP = "IDEA_FACECLIP"


class AnyOf(str):
    """An input that takes several socket types: current hosts and all frontends read the comma, older hosts ask ``!=``."""

    def __ne__(self, other: object) -> bool:
        return str(other) not in str(self).split(",") and not str.__eq__(self, str(other))

    __eq__ = str.__eq__
    __hash__ = str.__hash__


IDENTITY_OR_ENHANCED = AnyOf(f"{IDENTITY},{ENHANCED}")
IMAGE_OR_FACE = AnyOf(f"IMAGE,{FACE}")
