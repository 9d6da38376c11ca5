"""save and load keep what is fused, and refuse a skeleton or a file where it differs."""

from __future__ import annotations

import json
import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

import pyops


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(64, 96), nn.Linear(96, 64)

    def forward(self, x):
        return self.down(F.gelu(self.up(x))) + x


class Net(nn.Module):
    """A block that fuses, one that cannot be traced, and a float layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.block, self.other, self.small = Block(), Block(), nn.Linear(64, 3)

    def forward(self, x):
        return self.small(self.other(self.block(x))) if x.sum() != 0 else x


@pytest.fixture
def model() -> nn.Module:
    return pyops.quantize(Net(), include=["block", "other"])


@pytest.fixture
def path(tmp_path, model):
    pyops.save(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_round_trip(tools, model, path, x):
    with torch.device("meta"):
        meta = Net()
    for skeleton in (Net(), meta):
        loaded = pyops.load(path, skeleton)
        assert tools.notes(loaded) == tools.notes(model) != {}
        assert pyops.explain(loaded) == pyops.explain(model)
        assert torch.equal(loaded(x), model(x))
        with tools.count() as calls:
            loaded(x)
        assert calls == ["int8_rows"] * 2


def test_a_second_round_trip(tools, model, path, tmp_path, x):
    pyops.save(pyops.load(path, Net()), tmp_path / "again")
    loaded = pyops.load(tmp_path / "again", Net())
    assert tools.notes(loaded) == tools.notes(model)
    assert torch.equal(loaded(x), model(x))


def test_unfused_stays_unfused(tools, tmp_path, x):
    model = pyops.quantize(Net(), include=["block", "other"], fuse=False)
    pyops.save(model, tmp_path / "model")
    loaded = pyops.load(tmp_path / "model", Net())
    assert tools.notes(loaded) == {}
    assert pyops.explain(loaded) == pyops.explain(model)
    assert torch.equal(loaded(x), model(x))


def patch(monkeypatch, forward):
    monkeypatch.setattr(Block, "forward", forward)


FORWARDS = {
    "another activation": (
        lambda self, x: self.down(F.relu(self.up(x))) + x,
        "'block.up' runs fused with ['gelu', 'one call with down'] in the file but with "
        "['relu', 'one call with down'] in the skeleton",
    ),
    "no residual": (
        lambda self, x: self.down(F.gelu(self.up(x))),
        "'block.down' runs fused with ['residual', 'one call with up'] in the file but with "
        "['one call with up'] in the skeleton",
    ),
    "nothing": (
        lambda self, x: torch.tanh(self.down(torch.tanh(self.up(x)))),
        "'block.down' runs fused with ['residual', 'one call with up'] in the file but with "
        "nothing in the skeleton",
    ),
    "not traceable": (
        lambda self, x: self.down(F.gelu(self.up(x))) + x if x.dim() else x,
        "'block.down' runs fused with ['residual', 'one call with up'] in the file but with "
        "nothing in the skeleton (Block.forward cannot be traced: ",
    ),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_skeleton_with_another_forward(path, monkeypatch, name):
    forward, message = FORWARDS[name]
    patch(monkeypatch, forward)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        pyops.load(path, Net())


def test_a_skeleton_that_fuses_more(path, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patch(patched, FORWARDS["no residual"][0])
        pyops.save(pyops.quantize(Net(), include=["block", "other"]), tmp_path / "less")
    with pytest.raises(ValueError, match=r"'block\.down' runs fused with \['one call with up'\]"):
        pyops.load(tmp_path / "less", Net())


def edit(path, change):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    plan = json.loads(metadata["plan"])
    change(plan)
    metadata["plan"] = json.dumps(plan)
    safetensors.torch.save_file(tensors, path, metadata=metadata)


DAMAGE = {
    "fuse is a number": (lambda p: p.update(fuse=1), "damaged plan: ValueError: 1 is not true"),
    "fuse is text": (lambda p: p.update(fuse="yes"), "damaged plan: ValueError: 'yes' is not true"),
    "no fuse": (lambda p: p.pop("fuse"), "damaged plan: KeyError: 'fuse'"),
    "no fused": (lambda p: p.pop("fused"), "damaged plan: ValueError: 'fused' is not an object"),
    "fused is a list": (lambda p: p.update(fused=[]), "'fused' is not an object"),
    "notes are text": (lambda p: p["fused"].update({"block.up": "gelu"}),
                       "'gelu' is not a list of strings"),
    "a note is a number": (lambda p: p["fused"].update({"block.up": [1]}),
                           "[1] is not a list of strings"),
    "a note is missing": (lambda p: p["fused"].pop("block.up"),
                          "'block.up' runs fused with nothing in the file but with"),
    "a note too many": (lambda p: p["fused"].update(small=["relu"]),
                        "'small' runs fused with ['relu'] in the file but with nothing"),
    "another note": (lambda p: p["fused"].update({"block.up": ["silu"]}),
                     "'block.up' runs fused with ['silu'] in the file"),
    "fused without fuse": (lambda p: p.update(fuse=False),
                           "damaged plan: ValueError: layers are fused in a model that is not"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(path, name):
    change, message = DAMAGE[name]
    edit(path, change)
    with pytest.raises(ValueError, match=re.escape(message)):
        pyops.load(path, Net())
