"""The judge's training is the recognizer's with other people, another seed and another network."""
from .recognizer import train_judge as train

__all__ = ["train"]
