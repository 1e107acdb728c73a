"""When a running training is saved: often enough to lose little, rarely enough to cost little."""
import pytest
import torch

from idea_engine.training import checkpoint as checkpoints
from idea_engine.training.checkpoint import Checkpoint, Progress
from idea_engine.training.config import TrainConfig
from idea_engine.training.loop import train


class Clock:
    """Stands still but for ``tick`` seconds at each look."""

    def __init__(self):
        self.now = self.tick = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(checkpoints.time, "monotonic", clock)
    return clock


def save(checkpoint):
    module = torch.nn.Linear(2, 2)
    checkpoint.save(module, torch.optim.AdamW(module.parameters()), Progress(1, [0.0], 0, 1.0))


@pytest.mark.parametrize("chosen, seconds", [(None, 60.0), (7.0, 7.0)])
def test_so_much_is_lost_at_most(clock, tmp_path, chosen, seconds):
    checkpoint = Checkpoint(tmp_path / "run.partial", chosen)
    for _ in range(2):
        clock.now += 0.9 * seconds
        assert not checkpoint.due(5)
        clock.now += 0.2 * seconds
        assert checkpoint.due(5) and not checkpoint.due(0)
        save(checkpoint)
        assert not checkpoint.due(5)


def test_saving_takes_a_twentieth_of_the_time_at_most(clock, tmp_path):
    checkpoint = Checkpoint(tmp_path / "run.partial")
    clock.tick = 10.0  # what this save takes
    save(checkpoint)
    clock.tick = 0.0
    clock.now += 199.0
    assert not checkpoint.due(5)
    clock.now += 2.0
    assert checkpoint.due(5)


def test_a_training_saves_itself_while_it_runs(backend, enhance, photo, tmp_path):
    checkpoint, there = Checkpoint(tmp_path / "run.partial", seconds=0.0), []
    config = TrainConfig(recipe="released", steps=8, batch=1, resolution=64)
    train(backend, enhance(backend), [photo], config, on_step=lambda event: there.append(checkpoint.path.is_file()), checkpoint=checkpoint)
    assert not there[0] and any(there) and not checkpoint.path.exists()
