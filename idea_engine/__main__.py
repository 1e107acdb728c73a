"""``python -m idea_engine``: the command line, which lives in its own house; nothing imports this module."""
import sys

from idea_cli import main

if __name__ == "__main__":
    sys.exit(main())
