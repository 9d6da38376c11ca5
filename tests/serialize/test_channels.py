"""Models with fewer channels, also fused, quantized and sparsified: files rebuild their sizes."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import pyops
from pyops.prune import channel_plan, prune_channels
from pyops.testing.channels import Residual, filled

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Nested(nn.Module):
    """A pruned model inside of another one."""

    def __init__(self):
        super().__init__()
        self.body, self.head = Residual(width=64), nn.Linear(5, 7)

    def forward(self, x):
        return self.head(self.body(x))


def smaller(width=64):
    return prune_channels(filled(Residual(width)).float(), 0.5, example_inputs=X)


def sparse(model):
    return pyops.prune(model, 0.9, include=["inner", "outer"])


MAKE = {
    "float": lambda: smaller(),
    "pruned twice": lambda: prune_channels(smaller(128), macs=0.5, example_inputs=X),
    "fused": lambda: pyops.fuse(smaller(), example_inputs=X),
    "fused in bfloat16": lambda: pyops.fuse(smaller(), dtype=torch.bfloat16, example_inputs=X),
    "dynamic int8": lambda: pyops.quantize(smaller(), include="fc"),
    "static int8": lambda: pyops.quantize(smaller(), calibration=[X]),
    "masked": lambda: sparse(smaller()),
    "sparsified": lambda: pyops.sparsify(sparse(smaller())),
    "sparsified int8": lambda: pyops.sparsify(sparse(smaller()), dtype="int8", calibration=[X]),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", MAKE)
def test_round_trip(name, device, path):
    model = MAKE[name]().eval()
    pyops.save(model, path)
    width = 128 if name == "pruned twice" else 64
    with torch.device(device):
        skeleton = Residual(width)
    loaded = pyops.load(path, skeleton)
    assert skeleton.stem.out_channels == width
    with torch.inference_mode():
        assert torch.equal(loaded(X), model(X))
    assert channel_plan(loaded) == channel_plan(model)
    assert pyops.explain(loaded) == pyops.explain(model)
    assert list(loaded.state_dict()) == list(model.state_dict())
    again = path.with_name("again.safetensors")
    pyops.save(loaded, again)
    with torch.inference_mode():
        assert torch.equal(pyops.load(again, skeleton)(X), model(X))


def test_the_smaller_model_is_a_skeleton_too(path):
    small = smaller()
    model = pyops.fuse(small, example_inputs=X)
    pyops.save(model, path)
    loaded = pyops.load(path, small)
    with torch.inference_mode():
        assert torch.equal(loaded(X), model(X))
    assert channel_plan(loaded) == channel_plan(small)
    other = prune_channels(Residual(64).eval(), 0.5, example_inputs=X, criterion="random")
    with pytest.raises(ValueError, match="the skeleton's channels are pruned already"):
        pyops.load(path, other)


def test_a_part_of_a_model(path):
    model = Nested().eval()
    prune_channels(model.body, 0.5, example_inputs=X, inplace=True)
    pyops.save(pyops.fuse(model, example_inputs=X), path)
    loaded = pyops.load(path, Nested())
    with torch.inference_mode():
        assert torch.allclose(loaded(X), model(X), atol=1e-5)
    assert channel_plan(loaded.body) == channel_plan(model.body)


def at(*keys, value):
    def change(plan):
        for key in keys[:-1]:
            plan = plan[key]
        plan[keys[-1]] = value

    return change


STEM = ("channels", "", "layers", "stem", "out")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (at("channels", value=[]), "damaged plan: ValueError: 'channels' is not an object"),
        (at("channels", "", value=[]), r"damaged plan: ValueError: \[\] is not an object"),
        (at("channels", "", value={}), "not a plan that channel_plan returned"),
        (at("channels", "other", value={}), "channels of 'other', which is not in the skeleton"),
        (at("channels", "", "version", value=9), "the plan's version is 9, expected 1"),
        (at("channels", "", "groups", value=3), "damaged plan: TypeError: groups is not a list"),
        (at("channels", "", "groups", value=[3]), "damaged plan: TypeError"),
        (at("channels", "", "macs", value=[[]]), "damaged plan: TypeError"),
        (at("channels", "", "macs", 0, "after", value="3"), "damaged plan: TypeError"),
        (at("channels", "", "macs", 0, "layers", "stem", value=[1]), "damaged plan: TypeError"),
        (at(*STEM, "kept", value=[0, 99]), r"kept of stem \(out\) must be rising numbers from 0"),
        (at(*STEM, "kept", value=list(range(31))), r"is \[32, 3, 3, 3\] in the file but \[31, 3"),
        (at(*STEM, "channels", value=65), "stem has 64 channels"),
        (at("channels", value={}), r"'stem.weight' is \[32, 3, 3, 3\] in the file but \[64, 3, 3,"),
    ],
)
def test_damaged_plans(change, told, path):
    pyops.save(smaller(), path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    plan = json.loads(metadata["plan"])
    change(plan)
    safetensors.torch.save_file(tensors, path, metadata={**metadata, "plan": json.dumps(plan)})
    skeleton = Residual(64)
    before = {name: tensor.clone() for name, tensor in skeleton.state_dict().items()}
    with pytest.raises(ValueError, match=told):
        pyops.load(path, skeleton)
    assert all(torch.equal(tensor, before[k]) for k, tensor in skeleton.state_dict().items())
    assert "_pyops_channel_plan" not in skeleton.__dict__


def test_a_failure_leaves_the_file_that_was_there(path, monkeypatch):
    pyops.save(smaller(), path)
    content = path.read_bytes()

    def fail(*_, **__):
        raise safetensors.SafetensorError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        pyops.save(smaller(128), path)
    assert path.read_bytes() == content
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_truncated_files(path):
    pyops.save(smaller(), path)
    whole = path.read_bytes()
    for size in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged"):
            pyops.load(path, Residual(64))
