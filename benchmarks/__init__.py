"""What is measured: speed, memory, load times, and two people in one picture. Scripts, run by path or with ``-m``."""
