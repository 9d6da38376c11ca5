"""WeightOnlyInt8Linear and Int4Linear: results, memory, state_dict, copies, casts, refusals."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyops
from pyops import backends
from pyops.nn import Int4Linear, PackedInt4, WeightOnlyInt8Linear, WeightOnlyInt8Weight
from pyops.nn.packed_linear import PackedLinear
from pyops.testing.compare import assert_same, assert_within, sqnr_db

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# (class, options), and the least SQNR of a weight of normal values.
LAYERS: list[tuple[type[PackedLinear], dict[str, Any], float]] = [
    (WeightOnlyInt8Linear, {}, 38.0),
    (Int4Linear, {}, 17.0),
    (Int4Linear, {"group_size": 32}, 19.0),
    (Int4Linear, {"group_size": 64, "symmetric": False}, 18.0),
]
every_layer = pytest.mark.parametrize(
    ("cls", "options", "db"), LAYERS, ids=lambda v: getattr(v, "__name__", str(v))
)


def linear(k: int = 70, n: int = 45, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(k, n, bias=bias).eval().requires_grad_(False)


def assert_computes_its_weight(layer: PackedLinear, x: Tensor) -> None:
    """The layer is the float layer with its own dequantized weight."""
    out, weight = layer(x), layer.packed.dequantize(torch.float32).double()
    exact = x.double() @ weight.T + (0 if layer.bias is None else layer.bias.double())
    magnitude = x.abs().double() @ (9 * weight.abs() + weight.abs().amax()).T
    bound = (x.shape[-1] + 10) * 2.0**-24 * (magnitude + 1)
    assert out.dtype == x.dtype
    assert_within(out, exact, bound + torch.finfo(out.dtype).eps * exact.abs(), repr(layer))


@every_layer
@pytest.mark.parametrize("dtype", FLOATS)
def test_results_and_quality(cls, options, db, dtype, isa):
    for source in (linear(), linear(bias=False), linear(129, 3)):
        layer = cls.from_float(source, **options)
        assert_computes_its_weight(layer, torch.randn(2, 3, source.in_features).to(dtype))
        assert sqnr_db(layer.weight, source.weight) > db
        assert (layer.in_features, layer.out_features) == tuple(source.weight.shape[::-1])


@every_layer
def test_residual_and_activation(cls, options, db):
    layer, x = cls.from_float(linear(), **options), torch.randn(5, 70)
    residual = torch.randn(5, 45)
    assert layer.takes(x, residual)
    assert not layer.takes(x, residual.half())
    assert not layer.takes(x, residual[:4])
    out = layer(x, residual=residual, activation="relu")
    assert_within(out, (layer(x) + residual).relu(), torch.full_like(out, 1e-5), "fused")


@every_layer
def test_memory(cls, options, db):
    """int8 at most 0.27 of fp32, int4 in groups of 128 at most 0.14, from 256 x 256 on."""
    limit = 0.27 if cls is WeightOnlyInt8Linear else 0.14 if options == {} else 0.18
    for n, k in ((256, 256), (257, 300), (384, 1536), (300, 1001)):
        layer = cls.from_float(linear(k, n, bias=False), **options)
        held = layer.packed.nbytes
        assert held <= limit * 4 * n * k, f"{n} x {k}: {held / (4 * n * k):.4f}"


@pytest.mark.parametrize("symmetric", [True, False])
def test_int4_with_zero_points_in_groups_of_128_is_as_small(symmetric):
    layer = Int4Linear.from_float(linear(256, 256), symmetric=symmetric)
    assert layer.packed.nbytes <= 0.14 * 4 * 256 * 256


@every_layer
def test_state_dict(cls, options, db):
    layer = cls.from_float(linear(), **options)
    state = layer.state_dict()
    names = {"weight", "weight_scale", "bias"}
    if options.get("symmetric", True) is False:
        names.add("weight_zero")
    assert set(state) == names
    if cls is Int4Linear:
        assert (state["weight"].dtype, list(state["weight"].shape)) == (torch.uint8, [45, 35])
    else:
        assert (state["weight"].dtype, list(state["weight"].shape)) == (torch.int8, [45, 70])
    other = cls.from_float(nn.Linear(70, 45).requires_grad_(False), **options)
    x = torch.randn(3, 70)
    with pyops.isa.force("generic") if backends.compiled() else torch.no_grad():
        other.load_state_dict(state)
    assert_same(other(x), layer(x), "loaded")
    for name in names - {"bias"}:
        broken = {key: value for key, value in state.items() if key != name}
        with pytest.raises(RuntimeError, match=f"{name} is missing: weight and weight_scale"):
            other.load_state_dict(broken, strict=False)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        other.load_state_dict(state | {"weight": state["weight"][1:]})
    nan = state["weight_scale"].clone()
    nan[0] = torch.nan
    with pytest.raises(RuntimeError, match="scale holds a value that is not finite and positive"):
        other.load_state_dict(state | {"weight_scale": nan})
    assert_same(other(x), layer(x), "after refusals")


@every_layer
def test_copies_pickles_and_casts(cls, options, db, tmp_path):
    layer, x = cls.from_float(linear(), **options), torch.randn(3, 70)
    expected = layer(x)
    assert_same(copy.deepcopy(layer)(x), expected, "deepcopy")
    for protocol in (2, 5):
        new = pickle.loads(pickle.dumps(layer, protocol))
        assert_same(new(x), expected, f"pickle {protocol}")
        assert new.packed.config() == layer.packed.config()
    torch.save(layer, tmp_path / "layer.pt")
    assert_same(torch.load(tmp_path / "layer.pt", weights_only=False)(x), expected, "torch.save")
    half = copy.deepcopy(layer).half()
    assert half.weight.dtype == torch.float16
    assert half.weight_scale.dtype == torch.float32
    assert_same(half(x), expected, "half")
    meta = copy.deepcopy(layer).to("meta")
    assert meta(x.to("meta")).shape == (3, 45)
    assert set(meta.state_dict()) == set(layer.state_dict())
    empty = meta.to_empty(device="cpu")
    empty.load_state_dict(layer.state_dict())
    assert_same(empty(x), expected, "from meta")


@every_layer
def test_tied_layers_share_one_weight(cls, options, db):
    layer = cls.from_float(linear(), **options)
    model = nn.Sequential(layer, cls(layer.packed))
    for new in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert new[0].packed is new[1].packed
        assert new[0].packed is not layer.packed


@every_layer
def test_repacked_when_the_kernel_changes(cls, options, db):
    layer, x = cls.from_float(linear(), **options), torch.randn(3, 70)
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    for row in backends.implementations("weight_only"):
        if row.available:
            with backends.force("weight_only", row.name):
                assert_computes_its_weight(layer, x)
                assert layer.packed.layout == row.layout
                for key, value in layer.state_dict().items():
                    assert_same(value, state[key], f"{row.name} {key}")


@every_layer
def test_for_inference_only(cls, options, db):
    layer, x = cls.from_float(linear(), **options), torch.randn(3, 70)
    with pytest.raises(RuntimeError, match=f"{cls.__name__} has no gradient but its input"):
        layer(x.clone().requires_grad_())
    with torch.no_grad():
        layer(x.clone().requires_grad_())
    with pytest.raises(RuntimeError, match=f"{cls.__name__} is for inference but it is in train"):
        layer.train()(x)


@every_layer
def test_autocast_and_compile(cls, options, db):
    layer, x = cls.from_float(linear(), **options), torch.randn(3, 70)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert_same(compiled(x), layer(x), "compiled")


def test_repr_and_refusals():
    text = repr(Int4Linear.from_float(linear()))
    assert text == (
        "Int4Linear(in_features=70, out_features=45, bias=True, group_size=128, symmetric=True)"
    )
    codes, scale, _ = pyops.ops.quantize_weight_int4(linear().weight)
    with pytest.raises(ValueError, match="scale holds a value that is not finite and positive"):
        PackedInt4(codes, -scale)
    packed = PackedInt4(codes, scale)
    with pytest.raises(ValueError, match="symmetric is True, zero contradicts it"):
        packed.assign(codes, scale, torch.zeros(45, 1, dtype=torch.uint8))
    bad = codes.clone()
    bad[0, 0] = 9
    before = packed.get().clone()
    with pytest.raises(ValueError, match="codes must be in"):
        packed.assign(bad, scale)
    assert_same(packed.get(), before, "unchanged")
    for config in ({}, {"group_size": 31, "symmetric": True}, {"group_size": 32, "symmetric": 1}):
        with pytest.raises(ValueError, match="PackedInt4: config is"):
            PackedInt4.shapes(1, 1, config)
    with pytest.raises(ValueError, match="takes no config"):
        WeightOnlyInt8Weight.shapes(1, 1, {"group_size": 32})
