"""``FusedLinear``: by itself, in a net's one call, saved; and what the step of a net refuses."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops import ops
from pyops.graph.net_forward import net_of, why_not_traced
from pyops.nn.fused_conv2d import FusedLinear
from pyops.ops import NetProgram, run_net
from pyops.ops import net_reference as plain
from pyops.ops.conv_relu_packing import pack_plain
from pyops.testing.compare import sqnr_db


def run(model, x):
    with torch.inference_mode():
        return model(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", pyops.isa.available())
def test_rows_of_any_shape(name, dtype):
    torch.manual_seed(0)
    with pyops.isa.force(name):
        for k, n in ((1, 1), (7, 33), (40, 5), (64, 96)):
            layer = nn.Linear(k, n, bias=n != 5).to(dtype)
            fused = FusedLinear.from_float(layer)
            for shape in ((k,), (1, k), (17, k), (2, 3, k), (2, 0, k), (1, 2, 3, k)):
                x = torch.randn(shape).to(dtype)
                found = run(fused, x)
                assert (found.shape, found.dtype) == ((*shape[:-1], n), dtype)
                bias = None if layer.bias is None else layer.bias.double()
                exact = F.linear(x.double(), layer.weight.double(), bias)
                bound = (k + 2) * 2.0**-24 * F.linear(x.double().abs(), layer.weight.double().abs())
                if dtype == torch.bfloat16:
                    bound = bound + exact.abs() * 2.0**-8
                assert ((found.double() - exact).abs() <= bound + 1e-6).all()


def test_other_rows_are_refused():
    fused = FusedLinear.from_float(nn.Linear(6, 4))
    for shape in ((), (5,), (2, 12)):
        message = f"FusedLinear: x must be [..., 6], but is {list(shape)}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            run(fused, torch.zeros(shape))
    assert str(fused) == "FusedLinear(in_features=6, out_features=4, bias=True)"


def test_a_transformer_calls_the_layers():
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model, x = (
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval(),
        torch.randn(2, 5, 16),
    )
    fused = pyops.fuse(model, example_inputs=x)
    for one in fused.layers:
        assert type(one.linear1) is type(one.linear2) is FusedLinear
        assert type(one.self_attn.out_proj) is not FusedLinear
        assert not one.activation_relu_or_gelu
    assert sqnr_db(run(fused, x), run(model, x)) > 100


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm1d(24)
        self.hidden, self.out = nn.Linear(8 * 2 * 3, 24), nn.Linear(24, 5)

    def forward(self, x):
        x = F.adaptive_max_pool2d(F.relu(self.conv(x)), (2, 3))
        return self.out(F.gelu(self.norm(self.hidden(torch.flatten(x, 1)))))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_head_is_part_of_the_nets_one_call(settle, tmp_path, dtype):
    model, x = settle(Head()), torch.randn(4, 3, 9, 10)
    fused = pyops.fuse(model, dtype=dtype)
    assert sqnr_db(run(fused, x), run(model, x)) > (100 if dtype is None else 30)
    assert net_of(fused).runs == [5]  # conv, pool, flatten, two Linears
    assert net_of(fused).plan.folded == {"norm": "hidden"}
    assert net_of(fused).notes == {"conv": ["relu"], "hidden": ["norm folded in", "gelu"]}
    pyops.save(fused, tmp_path / "head.safetensors")
    again = pyops.load(tmp_path / "head.safetensors", Head())
    assert torch.equal(run(again, x), run(fused, x))
    state = fused.state_dict()
    fused.out.packed.assign(torch.zeros(5, 24, 1, 1, dtype=dtype or torch.float32))
    assert torch.equal(run(fused, x), fused.out.bias.to(x.dtype).expand(4, 5).to(dtype or x.dtype))
    fused.load_state_dict(state)
    assert torch.equal(run(again, x), run(fused, x))


def test_without_convolutions():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 30), nn.GELU(approximate="tanh"), nn.Linear(30, 6)).eval()
    x = torch.randn(5, 12)
    fused = pyops.fuse(model, example_inputs=x)
    assert net_of(fused).runs == [2]
    assert [type(layer).__name__ for layer in fused] == ["FusedLinear", "GELU", "FusedLinear"]
    for one in (x, torch.randn(2, 7, 12)):
        assert sqnr_db(run(fused, one), run(model, one)) > 100


def test_other_ranks(settle):
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    fused = pyops.fuse(model, example_inputs=torch.randn(3, 8))
    for shape in ((8,), (2, 3, 8), (2, 3, 4, 8), (1, 2, 3, 4, 8)):
        x = torch.randn(shape)
        assert sqnr_db(run(fused, x), run(model, x)) > 100
    model = settle(nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5)))
    fused = pyops.fuse(model, example_inputs=torch.randn(3, 8))
    x = torch.randn(4, 8)
    assert sqnr_db(run(fused, x), run(model, x)) > 100
    message = (
        "Sequential was converted for input of 2 dimensions, but 3 given, and a norm is folded "
        "into a Linear of it"
    )
    for converted in (fused, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        with pytest.raises(ValueError, match=f"^{message}$"):
            run(converted, torch.randn(2, 5, 8))


def test_without_an_example_each_layer_runs_by_itself():
    for model in (nn.Linear(8, 4), nn.Sequential(nn.Linear(8, 4), nn.ReLU())):
        fused, x = pyops.fuse(model.eval()), torch.randn(3, 8)
        assert sqnr_db(run(fused, x), run(model, x)) > 100
    words = "each layer runs by itself: it has no convolution to guess an input by"
    assert why_not_traced(fused) == f"{words}: give example_inputs="


def test_a_float_checkpoint_loads():
    torch.manual_seed(4)
    model, other = (nn.Sequential(nn.Linear(6, 8), nn.ReLU()).eval() for _ in range(2))
    x = torch.randn(2, 6)
    fused = pyops.fuse(model, example_inputs=x)
    assert fused.state_dict()["0.weight"].shape == (8, 6)
    fused.load_state_dict(other.state_dict())
    assert sqnr_db(run(fused, x), run(other, x)) > 100
    other.load_state_dict(fused.state_dict())
    assert sqnr_db(run(fused, x), run(other, x)) > 100


@pytest.mark.parametrize("step", [1, 2])
def test_a_bias_changed_in_place_is_seen(step):
    model, x = (
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)).eval(),
        torch.randn(3, 8),
    )
    fused = pyops.fuse(model, example_inputs=x)
    fused[2].bias = torch.zeros(5 * step)[::step]
    before = run(fused, x)
    fused[2].bias.add_(3)
    torch.testing.assert_close(run(fused, x), before + 3)


def call(plainly=False):
    torch.manual_seed(2)
    weight, x = torch.randn(4, 6, 1, 1), torch.randn(3, 2, 3)
    program = NetProgram(1)
    program.returns(program.float_linear(program.flatten(0), 4, activation="relu"))
    packed = pack_plain(weight, 1) if plainly else ops.conv_relu_pack(weight)
    return [[x], [packed, torch.randn(4)], program.steps, program.numbers, program.outputs]


def test_reference_and_fake():
    (found,) = torch.ops.pyops.run_net.default(*call())
    (expected,), (fake,) = (
        f(*call(plainly=True)) for f in (plain.run_net_reference, plain.run_net_fake)
    )
    torch.testing.assert_close(found, expected)
    assert (fake.shape, fake.dtype) == (found.shape, found.dtype)


LINEAR = 5  # where the integers of the step begin
REFUSED = [
    (
        (0, 0, torch.zeros(3, 6, dtype=torch.float16)),
        TypeError,
        "0: flatten: x must be torch.uint8, torch.int8, torch.float32 or torch.bfloat16, "
        "but is torch.float16",
    ),
    ((2, LINEAR + 2, 5), ValueError, "1: float linear: activation code 5 is unknown"),
    ((2, LINEAR + 3, 2), ValueError, "1: run_net: flags code 2 is unknown"),
    ((1, 1, torch.zeros(5)), ValueError, "1: conv_relu: bias must be [4], but is [5]"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refusals(change, kind, message):
    part, at, value = change
    arguments, plainly = call(), call(plainly=True)
    arguments[part][at] = plainly[part][at] = value
    full = f"run_net: step {message}"
    for function in (plain.run_net_fake, plain.run_net_reference):
        with pytest.raises(kind, match=f"^{re.escape(full)}$"):
            function(*plainly)
    with pytest.raises(RuntimeError, match=re.escape(full.split(", but is ")[0])):
        torch.ops.pyops.run_net.default(*arguments)


def test_images_are_to_be_flattened_first():
    program = NetProgram(1)
    program.returns(program.float_linear(0, 4, bias=False))
    packed = ops.conv_relu_pack(torch.randn(4, 6, 1, 1))
    message = "run_net: step 0: float linear: x must not be an image [N, C, H, W]; flatten it"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run_net(program, [torch.zeros(1, 1, 2, 6)], [packed])
