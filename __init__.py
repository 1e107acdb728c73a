"""ID-EA for ComfyUI: put a particular person into generated pictures, and keep them recognisable.

ComfyUI reads the three names below when it loads this folder. Nothing else happens at import: the nodes come in at the first look,
through module ``__getattr__``, and everything heavy at its first use.
"""

WEB_DIRECTORY = "./web"
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]


def __getattr__(name):
    # A tool that merely imports this file without its package (pytest does) must not need the nodes.
    if name in ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"):
        from . import nodes

        return getattr(nodes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
