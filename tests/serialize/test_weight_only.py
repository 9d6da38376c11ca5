"""save and load of weight-only models, and files that lie about them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

import pyops
from pyops import backends
from pyops.testing.compare import assert_same

SCHEMES = [
    {"weights": "int8"},
    {"weights": "int4"},
    {"weights": "int4", "group_size": 32, "symmetric": False},
]
X = torch.randn(3, 130)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(130, 131), nn.Linear(131, 130)
        self.tied = nn.Linear(130, 131, bias=False)
        self.tied.weight = self.first.weight

    def forward(self, x):
        return self.tied(self.second(self.first(x)))


def make() -> Tied:
    torch.manual_seed(0)
    return Tied().eval().requires_grad_(False)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_round_trip(scheme, device, tmp_path):
    path = tmp_path / "model.safetensors"
    model = pyops.quantize(make(), **scheme)
    pyops.save(model, path)
    assert (
        path.stat().st_size < (0.3 if scheme["weights"] == "int8" else 0.25) * 8 * 131 * 130 + 4096
    )
    other = "generic" if backends.compiled() else "reference"
    with pyops.isa.force(other):
        new = pyops.load(path, make().to(device))
    assert_same(new(X), model(X), str(scheme))
    assert new.first.packed is new.tied.packed
    assert pyops.explain(new).rows == pyops.explain(model).rows
    for key, value in model.state_dict().items():
        assert_same(new.state_dict()[key], value, key)


def rewrite(path, change: Callable[[dict[str, Tensor], dict], None]) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    plan = json.loads(metadata["plan"])
    change(tensors, plan)
    metadata["plan"] = json.dumps(plan)
    safetensors.torch.save_file(tensors, path, metadata=metadata)


def config(**changes) -> Callable[[dict[str, Tensor], dict], None]:
    return lambda tensors, plan: plan["layers"]["second"]["config"].update(changes)


def tensor(key: str, change: Callable[[Tensor], Tensor]):
    def apply(tensors, plan):
        tensors[key] = change(tensors[key]).contiguous()

    return apply


def with_last(value: float) -> Callable[[Tensor], Tensor]:
    def change(t: Tensor) -> Tensor:
        t = t.clone()
        t.view(-1)[-1] = value
        return t

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config(group_size=48), "damaged plan: .*PackedInt4: config is"),
        (config(group_size="32"), "damaged plan: .*PackedInt4: config is"),
        (config(group_size=True), "damaged plan: .*PackedInt4: config is"),
        (config(symmetric=0), "damaged plan: .*PackedInt4: config is"),
        (config(more=1), "damaged plan: .*PackedInt4: config is"),
        (config(group_size=64), r"'second.weight_scale' is \[130, 5\] in the file but \[130, 3\]"),
        (config(symmetric=True), "the file holds 'second.weight_zero', which the skeleton lacks"),
        (lambda t, p: p["layers"]["second"].update(config=[]), "damaged plan"),
        (lambda t, p: p["layers"]["second"].update(cls="Int8Linear"), "takes sparse alone"),
        (lambda t, p: p["layers"]["second"].update(cls="Linear"), "unknown layer class 'Linear'"),
        (lambda t, p: t.pop("second.weight_zero"), "the file has no tensor 'second.weight_zero'"),
        (tensor("second.weight", lambda t: t[:, 1:]), r"'second.weight' is \[130, 65\]"),
        (tensor("second.weight", lambda t: t.view(torch.int8)), "weight is torch.int8"),
        (tensor("second.weight_scale", lambda t: t.half()), "weight_scale is torch.float16"),
        (tensor("second.weight_scale", with_last(float("nan"))), "not finite and positive"),
        (tensor("second.weight_scale", with_last(0.0)), "not finite and positive"),
        (tensor("second.weight_zero", lambda t: t.float()), "weight_zero is torch.float32"),
        (tensor("second.weight_zero", with_last(16)), r"zero must be in \[0, 15\]"),
    ],
)
def test_hostile_files(tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    pyops.save(pyops.quantize(make(), **SCHEMES[2]), path)
    rewrite(path, change)
    skeleton = make()
    before = {key: value.clone() for key, value in skeleton.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        pyops.load(path, skeleton)
    assert type(skeleton.first) is nn.Linear
    for key, value in skeleton.state_dict().items():
        assert_same(value, before[key], key)


def test_a_file_without_config_is_dynamic_int8(tmp_path):
    """As files were written before layers had one."""
    path = tmp_path / "model.safetensors"
    model = pyops.quantize(make())
    pyops.save(model, path)
    rewrite(path, lambda tensors, plan: [layer.pop("config") for layer in plan["layers"].values()])
    assert_same(pyops.load(path, make())(X), model(X), "older file")
