#!/usr/bin/env python3
"""From nothing to a portrait with one command; also runs the tests, or any command, in the same environment.

    python quickstart.py [--photo FILE] [--checkpoint FILE] [--face-pack DIR] [--identity FILE] [--rehearse] [--serve]
                         [--host PATH | --host-version X] [--cpu] [--output DIR]
    python quickstart.py test [pytest arguments]
    python quickstart.py run COMMAND …

Needs Python 3.10 or newer and nothing else. What it installs lies in the per-user cache (or $IDEA_CACHE) and is used again next time.
"""
import sys

if sys.version_info < (3, 10):
    sys.exit("quickstart.py needs Python 3.10 or newer; this is " + sys.version.split()[0] + ".")

from launcher.command_line import main  # noqa: E402  (an older Python could not even read it)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
