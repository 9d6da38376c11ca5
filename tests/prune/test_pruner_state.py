"""Pruner.state_dict: what another pruner goes on from, and what it refuses."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from pyops.prune import CubicSchedule, Pruner


class Steps:
    """A schedule of the caller's that says one share at its two steps."""

    def __init__(self, share: float) -> None:
        self.share = share

    def due(self, step: int) -> bool:
        return step <= 2

    def sparsity(self, step: int, final: float) -> float:
        return self.share

    def done(self, step: int) -> bool:
        return step >= 2


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))


def refused(pruner, message, error=ValueError, call=None):
    """The whole message, and nothing is changed."""
    before = copy.deepcopy(pruner.model.state_dict())
    steps = pruner.steps
    with pytest.raises(error) as found:
        (call or pruner.step)()
    assert str(found.value) == f"Pruner: {message}"
    after = pruner.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert pruner.steps == steps


def made(schedule=None, generator=None, **options):
    options = {"sparsity": 0.5, **options}
    schedule = schedule or CubicSchedule(0, 4)
    if generator is not None:
        options |= {"criterion": "random", "generator": generator}
    return Pruner(net(), schedule=schedule, **options)


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (CubicSchedule(0, 4), CubicSchedule(0, 5),
         "schedule is 'CubicSchedule(begin=0, end=4, every=1, initial=0.0)' in the state, but "
         "'CubicSchedule(begin=0, end=5, every=1, initial=0.0)' here"),
        (CubicSchedule(0, 4, initial=0), CubicSchedule(0, 4, initial=0.0), None),
        (Steps(0.5), Steps(0.4),
         "schedule is 'Steps(share=0.5)' in the state, but 'Steps(share=0.4)' here"),
        (Steps(0.5), Steps(0.5), None),
    ],
)  # fmt: skip
def test_the_state_of_another_schedule(one, two, message):
    state, pruner = made(one).state_dict(), made(two)
    if message is None:
        pruner.load_state_dict(state)
    else:
        refused(pruner, message, call=lambda: pruner.load_state_dict(state))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": -1}, ValueError,
         "steps and share are -1 and 0.0 in the state, expected at least 0 and 0 to 0.5"),
        ({"share": 0.6}, ValueError,
         "steps and share are 0 and 0.6 in the state, expected at least 0 and 0 to 0.5"),
        ({"steps": 2.5}, TypeError,
         "steps and share are float and float in the state, expected int and float"),
        ({"sparsity": torch.tensor([0.5, 0.5])}, ValueError,
         "sparsity in the state is a Tensor, expected a float"),
        ({"sparsity": torch.tensor(0.5)}, ValueError,
         "sparsity in the state is a Tensor, expected a float"),
        ({"scope": torch.tensor([1, 2])}, ValueError,
         "scope in the state is a Tensor, expected a str"),
        ({"left": {"0": torch.tensor([1, 2]), "2": 100}}, TypeError,
         "left of '0' in the state is a Tensor, expected an int"),
        ({"masks": {"0": torch.tensor([1, 2]), "2": ""}}, TypeError,
         "masks of '0' in the state is a Tensor, expected a str"),
        ({"left": 3}, TypeError, "left in the state is a int, expected a dict"),
        ({"left": {"0": 100}}, ValueError, "only this pruner prunes '2'"),
        ({"masks": {"0": "", "1": "", "2": ""}}, ValueError, "only the state prunes '1'"),
        ({"generator": 3}, TypeError,
         "generator in the state is not what torch.Generator.get_state says"),
    ],
)  # fmt: skip
def test_states_that_are_damaged(change, error, message):
    pruner = made(generator=torch.Generator())
    state = {**pruner.state_dict(), **change}
    before = pruner.state_dict()["generator"]
    refused(pruner, message, error, lambda: pruner.load_state_dict(state))
    assert torch.equal(pruner.state_dict()["generator"], before)
    with pytest.raises(TypeError, match=r"^Pruner: the state is a list, expected a dict$"):
        pruner.load_state_dict([])


def test_other_masks_with_as_many_weights():
    one, two = made(criterion="random"), made(criterion="random")
    for pruner in (one, two):
        pruner.step()
    refused(
        two,
        "'0' has 71 weights left as in the state, but other ones: load the model's state_dict "
        "first",
        call=lambda: two.load_state_dict(one.state_dict()),
    )
    two.model.load_state_dict(one.model.state_dict())
    two.load_state_dict(one.state_dict())
    assert two.steps == 1


RESUME = """
import json, sys, torch
from pathlib import Path
from torch import nn
from pyops.prune import CubicSchedule, Pruner

def made():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 3))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    schedule = CubicSchedule(2, 30, every=4)
    return model, optimizer, Pruner(model, 0.8, schedule=schedule, optimizer=optimizer)

def train(parts, steps, seed):
    model, optimizer, pruner = parts
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 10)).square().mean().backward()
        optimizer.step()
        pruner.step()

if __name__ == "__main__":
    parts = made()
    for part, state in zip(parts, torch.load(sys.argv[1]), strict=True):
        part.load_state_dict(state)
    train(parts, 20, 1)
    torch.save([part.state_dict() for part in parts], sys.argv[2])
"""


def test_going_on_in_another_process(tmp_path):
    """Masks and weights of a training with a break are those of one without."""
    names: dict = {"__name__": "here"}
    exec(RESUME, names)  # the same code on both sides
    parts = names["made"]()
    names["train"](parts, 15, 0)
    torch.save([part.state_dict() for part in parts], tmp_path / "half")
    names["train"](parts, 20, 1)
    (tmp_path / "resume.py").write_text(RESUME)
    files = [str(tmp_path / name) for name in ("resume.py", "half", "end")]
    subprocess.run([sys.executable, *files], check=True)
    model, _, state = torch.load(tmp_path / "end")
    expected = parts[0].state_dict()
    assert all(torch.equal(value, model[key]) for key, value in expected.items())
    assert json.dumps(state, default=str) == json.dumps(parts[2].state_dict(), default=str)
    assert state["steps"] == 35
    assert parts[2].done
