"""Int8Linear: values, dtypes, state_dict, moves and casts, bytes, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pyops import ops
from pyops.nn import Int8Linear, PackedWeight

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def make(k=70, n=45, bias=True, dtype=torch.float32):
    torch.manual_seed(k * 1000 + n)
    return nn.Linear(k, n, bias=bias, dtype=dtype)


def storages(layer):
    tensors = [layer.packed.get(), layer.packed.scale, layer.bias]
    tensors += [*layer.parameters(), *layer.buffers()]
    tensors += [v for v in layer.__dict__.values() if isinstance(v, torch.Tensor)]
    found = [t.untyped_storage() for t in tensors if t is not None]
    return {s.data_ptr(): s.nbytes() for s in found}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
def test_forward_is_the_op_on_the_quantized_weight(isa, dtype, bias):
    linear = make(bias=bias, dtype=dtype)
    layer = Int8Linear.from_float(linear)
    x = torch.randn(3, 5, 70).to(dtype)
    weight, scale = ops.quantize_weight(linear.weight)
    bias = None if linear.bias is None else linear.bias.detach().float()
    expected = ops.int8_linear(x, ops.int8_pack(weight), scale, bias)
    out = layer(x)
    assert out.dtype == dtype
    assert out.shape == (3, 5, 45)
    assert torch.equal(out, expected)


def test_forward_against_the_formula():
    linear = make()
    layer = Int8Linear.from_float(linear)
    x = torch.randn(9, 70)
    state = layer.state_dict()
    scale_x = x.abs().amax(1, keepdim=True) / 127
    acc = torch.round(x * (1 / scale_x)).double() @ state["weight"].double().T
    exact = acc * scale_x.double() * state["weight_scale"].double() + state["bias"].double()
    # Three roundings after an exact int32 sum: two products and the bias.
    bound = 3 * 2**-24 * (exact.abs() + state["bias"].double().abs())
    assert ((layer(x).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("shape", [(70,), (0, 70), (2, 0, 70), (1, 70), (2, 3, 4, 70)])
def test_input_shapes(shape):
    layer = Int8Linear.from_float(make())
    assert layer(torch.randn(shape)).shape == (*shape[:-1], 45)


def test_non_contiguous_input():
    layer = Int8Linear.from_float(make())
    x = torch.randn(70, 6).t()
    assert torch.equal(layer(x), layer(x.contiguous()))


def test_wrong_input_is_refused():
    layer = Int8Linear.from_float(make())
    with pytest.raises((ValueError, RuntimeError), match="70"):
        layer(torch.randn(3, 71))
    with pytest.raises(TypeError, match="float64"):
        layer(torch.randn(3, 70, dtype=torch.float64))


@pytest.mark.parametrize(
    ("k", "n"), [(256, 256), (257, 257), (259, 256), (256, 321), (300, 1001), (384, 1536)]
)
def test_resident_bytes_are_at_most_27_percent(isa, k, n):
    linear = make(k, n)
    layer = Int8Linear.from_float(linear)
    layer(torch.randn(2, k))  # running the layer must not leave a second copy
    held = storages(layer)
    assert sum(held.values()) <= 0.27 * 4 * (k * n + n)
    assert sum(held.values()) == layer.packed.nbytes + 4 * n
    assert not list(layer.parameters())


def test_state_dict_is_plain():
    linear = make()
    state = Int8Linear.from_float(linear).state_dict()
    assert list(state) == ["weight", "weight_scale", "bias"]
    weight, scale = ops.quantize_weight(linear.weight)
    assert state["weight"].dtype == torch.int8
    assert torch.equal(state["weight"], weight)
    assert torch.equal(state["weight_scale"], scale)
    assert torch.equal(state["bias"], linear.bias.detach())
    assert "bias" not in Int8Linear.from_float(make(bias=False)).state_dict()


def test_load_state_dict_repacks(isa):
    source = nn.Sequential(Int8Linear.from_float(make()))
    torch.manual_seed(1)
    target = nn.Sequential(Int8Linear.from_float(nn.Linear(70, 45)))
    x = torch.randn(4, 70)
    assert not torch.equal(source(x), target(x))
    for assign in (False, True):
        result = target.load_state_dict(source.state_dict(), assign=assign)
        assert not result.missing_keys
        assert not result.unexpected_keys
        assert torch.equal(source(x), target(x))


def test_load_state_dict_errors():
    layer = nn.Sequential(Int8Linear.from_float(make()))
    state = layer.state_dict()
    x = torch.randn(2, 70)
    before = layer(x)
    with pytest.raises(RuntimeError, match=r'Missing key.*"0.weight_scale"'):
        layer.load_state_dict({k: v for k, v in state.items() if k != "0.weight_scale"})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0.other"'):
        layer.load_state_dict({**state, "0.other": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for 0.weight: .*\[45, 71\].*\[45, 70\]"):
        layer.load_state_dict({**state, "0.weight": torch.zeros(45, 71, dtype=torch.int8)})
    with pytest.raises(RuntimeError, match=r"0.weight: .*float32.*expected int8"):
        layer.load_state_dict({**state, "0.weight": torch.zeros(45, 70)})
    worst = torch.full((45, 70), -128, dtype=torch.int8)
    with pytest.raises(RuntimeError, match="-128"):
        layer.load_state_dict({**state, "0.weight": worst})
    only = {k: v for k, v in state.items() if k != "0.weight_scale"}
    with pytest.raises(RuntimeError, match="weight_scale is missing"):
        layer.load_state_dict(only, strict=False)
    result = layer.load_state_dict({}, strict=False)
    assert set(result.missing_keys) == {"0.weight", "0.weight_scale", "0.bias"}
    assert torch.equal(layer(x), before)


def test_weight_is_a_dequantized_copy():
    for dtype in FLOATS:
        linear = make(dtype=dtype)
        layer = Int8Linear.from_float(linear)
        assert layer.weight.dtype == dtype
        half_step = layer.weight_scale[:, None] / 2
        rounding = linear.weight.float().abs() * 2**-8  # bf16 keeps 8 bits
        error = (layer.weight.float() - linear.weight.float()).abs()
        assert (error <= half_step + rounding).all()
        layer.weight.zero_()
        assert layer.weight.abs().sum() > 0


@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.double(),
        lambda m: m.to(torch.float16),
        lambda m: m.to("cpu", torch.bfloat16),
        lambda m: m.type(torch.float16),
    ],
    ids=["half", "bfloat16", "double", "to", "to_device", "type"],
)
def test_casts_keep_the_bits(cast):
    layer = Int8Linear.from_float(make())
    x = torch.randn(4, 70)
    expected, state = layer(x), layer.state_dict()
    cast(nn.Sequential(layer, nn.LayerNorm(45)))
    assert torch.equal(layer(x), expected)
    assert layer.weight_scale.dtype == layer.bias.dtype == torch.float32
    for key, value in layer.state_dict().items():
        assert torch.equal(value, state[key])
        assert value.dtype == state[key].dtype
    assert layer.weight.dtype != torch.float32


def test_meta_device_and_back():
    layer = Int8Linear.from_float(make())
    state = layer.state_dict()
    x = torch.randn(4, 70)
    expected = layer(x)
    on_meta = copy.deepcopy(layer).to("meta")
    assert on_meta.weight.device.type == on_meta.weight_scale.device.type == "meta"
    assert {k: v.shape for k, v in on_meta.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    assert on_meta(x.to("meta")).shape == (4, 45)
    with pytest.raises(NotImplementedError, match="meta"):
        copy.deepcopy(on_meta).to("cpu")
    on_meta.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(on_meta(x), expected)


def test_share_memory():
    layer = Int8Linear.from_float(make())
    x = torch.randn(4, 70)
    expected = layer(x)
    layer.share_memory()
    assert layer.packed.get().is_shared()
    assert layer.packed.scale.is_shared()
    assert layer.bias.is_shared()
    assert torch.equal(layer(x), expected)


def test_train_mode_is_refused_with_the_way_out():
    layer = Int8Linear.from_float(make())
    assert not layer.training
    layer.train()
    with pytest.raises(RuntimeError, match=r"in train mode: call model.eval\(\)"):
        layer(torch.randn(2, 70))
    layer.eval()(torch.randn(2, 70))


def test_an_input_that_requires_grad_is_refused_with_the_way_out():
    layer = Int8Linear.from_float(make())
    x = torch.randn(2, 70, requires_grad=True)
    with pytest.raises(RuntimeError, match="inference_mode"):
        layer(x)
    expected = layer(x.detach())
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
    with torch.inference_mode():
        assert torch.equal(layer(x), expected)


def test_autocast_decides_the_output_dtype():
    layer = Int8Linear.from_float(make())
    x = torch.randn(3, 70)
    expected = layer(x)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert layer(x).dtype == dtype
            assert torch.equal(layer(x), expected.to(dtype))
    with torch.autocast("cpu", enabled=False):
        assert layer(x).dtype == torch.float32


def test_built_from_int8_tensors():
    weight = torch.randint(-127, 128, (8, 16), dtype=torch.int8)
    layer = Int8Linear(PackedWeight(weight, torch.full((8,), 0.5)), torch.ones(8))
    assert torch.equal(layer.weight, weight * 0.5)
    assert repr(layer) == "Int8Linear(in_features=16, out_features=8, bias=True)"


def test_a_layer_built_in_inference_mode_works_outside():
    with torch.inference_mode():
        layer = Int8Linear.from_float(make())
    x = torch.randn(3, 70)
    assert torch.equal(layer(x), Int8Linear.from_float(make())(x))
    assert not layer.packed.get().is_inference()
    assert not layer.bias.is_inference()
    layer.load_state_dict(layer.state_dict())


def test_bias_is_a_copy():
    linear = make()
    layer = Int8Linear.from_float(linear)
    with torch.no_grad():
        linear.bias.zero_()
    assert layer.bias.abs().sum() > 0
