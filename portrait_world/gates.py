"""``python -m portrait_world.gates``: the command of judging/gates.py."""
from .judging.gates import main

if __name__ == "__main__":
    main()
