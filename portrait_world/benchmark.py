"""``python -m portrait_world.benchmark``: the command of trials/benchmark.py."""
from .trials.benchmark import main

if __name__ == "__main__":
    main()
