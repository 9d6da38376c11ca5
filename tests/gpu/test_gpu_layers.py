"""Layers on CUDA: repacked on the way there and back, the same state, the CPU's results."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyops
from pyops import backends
from pyops.nn import Int4Linear, Int8Linear, PackedWeight, WeightOnlyInt8Linear
from pyops.nn.packed_linear import PackedLinear
from pyops.testing.compare import assert_same, assert_within

pytestmark = pytest.mark.gpu

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
LAYERS: list[tuple[type[PackedLinear], dict[str, Any]]] = [
    (Int8Linear, {}),
    (WeightOnlyInt8Linear, {}),
    (Int4Linear, {"group_size": 32}),
    (Int4Linear, {"group_size": 64, "symmetric": False}),
]
every_layer = pytest.mark.parametrize(
    ("cls", "options"), LAYERS, ids=lambda v: getattr(v, "__name__", str(v))
)


def make(cls: type[PackedLinear], options: dict[str, Any], k: int = 130, n: int = 45) -> Any:
    torch.manual_seed(0)
    return cls.from_float(nn.Linear(k, n).requires_grad_(False), **options)


def assert_close(out: Tensor, layer: PackedLinear, x: Tensor) -> None:
    """``out`` of CUDA, and ``layer(x)`` on the CPU: equal, or both near the exact sum."""
    expected = layer(x)
    assert out.device.type == "cuda"
    if isinstance(layer, Int8Linear):
        assert_same(out.cpu(), expected, repr(layer))
        return
    weight = layer.packed.dequantize(torch.float32).double()
    magnitude = x.abs().double() @ (9 * weight.abs() + weight.abs().amax()).T
    bound = 2 * (x.shape[-1] + 10) * 2.0**-24 * (magnitude + 1)
    own = 2 * torch.finfo(expected.dtype).eps * expected.double().abs()
    assert out.dtype == expected.dtype
    assert_within(out.cpu(), expected, bound + own, repr(layer))


def assert_same_state(layer: nn.Module, state: dict[str, Tensor], device: str) -> None:
    found = layer.state_dict()
    assert list(found) == list(state)
    for name, value in found.items():
        assert value.device.type == device, name
        assert_same(value.cpu(), state[name], name)


@every_layer
@pytest.mark.parametrize("dtype", FLOATS)
def test_results(cls, options, dtype):
    layer = make(cls, options)
    there = copy.deepcopy(layer).to("cuda")
    for shape in ((1, 130), (2, 3, 130), (0, 130), (130,)):
        x = torch.randn(shape).to(dtype)
        assert_close(there(x.cuda()), layer, x)
    x, residual = torch.randn(5, 130), torch.randn(5, 45)
    out = there(x.cuda(), residual=residual.cuda(), activation="relu")
    assert bool((out >= 0).all())


@every_layer
def test_there_and_back(cls, options):
    layer, x = make(cls, options), torch.randn(4, 130)
    state, expected, layout = layer.state_dict(), layer(x), layer.packed.layout
    there = layer.to("cuda")
    assert there is layer
    assert there.packed.device.type == there.bias.device.type == "cuda"
    assert there.packed.layout == "plain"
    assert_same_state(there, state, "cuda")
    assert_same(there.weight.cpu(), make(cls, options).weight, "weight")
    there.cpu()
    assert there.packed.layout == layout
    assert_same_state(there, state, "cpu")
    assert_same(there(x), expected, "back on the CPU")


@every_layer
def test_quantized_there(cls, options):
    torch.manual_seed(0)
    source = nn.Linear(130, 45).requires_grad_(False)
    here, there = cls.from_float(source, **options), cls.from_float(source.cuda(), **options)
    if options.get("symmetric", cls is not Int4Linear) or options.get("group_size") == 64:
        assert_same_state(there, here.state_dict(), "cuda")
    x = torch.randn(3, 130)
    assert_close(there(x.cuda()), copy.deepcopy(there).cpu(), x)


@every_layer
def test_levels_forced_meanwhile(cls, options):
    layer, x = make(cls, options), torch.randn(4, 130)
    there = copy.deepcopy(layer).cuda()
    expected = there(x.cuda())
    for name in pyops.isa.available():
        with pyops.isa.force(name):
            assert_same(there(x.cuda()), expected, name)
            back = copy.deepcopy(there).cpu()
            assert back.packed.layout == copy.deepcopy(layer).packed.layout
            assert_close(expected, back, x)


@every_layer
@pytest.mark.parametrize("protocol", [2, 5])
def test_copies(cls, options, protocol):
    layer, x = make(cls, options), torch.randn(4, 130)
    state, there = layer.state_dict(), copy.deepcopy(layer).cuda()
    expected = there(x.cuda())
    for other in (copy.deepcopy(there), pickle.loads(pickle.dumps(there, protocol))):
        assert_same_state(other, state, "cuda")
        assert_same(other(x.cuda()), expected, "copy")
    file = io.BytesIO()
    torch.save(there, file)
    for device in ("cpu", "cuda"):
        file.seek(0)
        read = torch.load(file, map_location=device, weights_only=False)
        assert_same_state(read, state, device)


@every_layer
def test_state_dicts_across_devices(cls, options):
    layer, x = make(cls, options), torch.randn(4, 130)
    torch.manual_seed(1)
    source = nn.Linear(130, 45).requires_grad_(False)
    other = cls.from_float(source, **options)
    here, there = copy.deepcopy(other), copy.deepcopy(other).cuda()
    here.load_state_dict(copy.deepcopy(layer).cuda().state_dict())
    there.load_state_dict(layer.state_dict())
    assert_same_state(here, layer.state_dict(), "cpu")
    assert_same_state(there, layer.state_dict(), "cuda")
    assert_same(here(x), layer(x), "loaded on the CPU")
    assert_close(there(x.cuda()), layer, x)
    empty = copy.deepcopy(layer).to("meta").to_empty(device="cuda")
    empty.load_state_dict(layer.state_dict())
    assert_close(empty(x.cuda()), layer, x)


@every_layer
def test_casts(cls, options):
    layer, x = make(cls, options), torch.randn(4, 130)
    there = copy.deepcopy(layer).to("cuda", torch.float16)
    assert there.weight.dtype == torch.float16
    assert there.weight_scale.dtype == there.bias.dtype == torch.float32
    assert_close(there(x.half().cuda()), layer, x.half())
    assert_same_state(there.half().float(), layer.state_dict(), "cuda")


@every_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(cls, options, dtype):
    """Decides the type of the output, and nothing else."""
    layer, x = make(cls, options), torch.randn(40, 130)
    there = copy.deepcopy(layer).cuda()
    with torch.autocast("cuda", dtype=dtype):
        out = there(x.cuda())
        gelu = there(x.cuda(), activation="gelu")
    assert out.dtype == gelu.dtype == dtype
    assert_same(out, there(x.cuda()).to(dtype), "none")
    assert_same(gelu, there(x.cuda(), activation="gelu").to(dtype), "gelu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert there(x.cuda()).dtype == torch.float32


@every_layer
def test_an_input_on_another_device_is_refused(cls, options):
    there, here = make(cls, options).cuda(), make(cls, options)
    name = {Int8Linear: "int8_linear", Int4Linear: "int4_linear"}.get(cls, "int8_weight_linear")
    x = torch.randn(2, 130)
    with pytest.raises(ValueError, match=f"{name}: packed is on cuda:0, but the first .* on cpu"):
        there(x)
    with pytest.raises(ValueError, match=f"{name}: packed is on cpu, but the first .* on cuda:0"):
        here(x.cuda())


def test_shared_weights_stay_shared():
    packed = PackedWeight.from_float(torch.randn(64, 64))
    model = nn.Sequential(Int8Linear(packed), Int8Linear(packed))
    x = torch.randn(3, 64)
    expected = model(x)
    model.cuda()
    assert model[0].packed is model[1].packed
    assert_same(model(x.cuda()).cpu(), expected, "cuda")
    assert_same(model.cpu()(x), expected, "cpu")


def test_the_scale_must_be_where_the_weight_is():
    weight, scale = torch.ones(3, 4, dtype=torch.int8), torch.ones(3)
    with pytest.raises(ValueError, match="scale is on cpu, but weight on cuda:0"):
        PackedWeight(weight.cuda(), scale)


def test_streams():
    """The layer's work goes to the stream that is current."""
    layer, x = make(Int8Linear, {}).cuda(), torch.randn(64, 130, device="cuda")
    expected = layer(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        late = x * 2
        out = layer(late)
    torch.cuda.current_stream().wait_stream(stream)
    assert_same(out, layer(x * 2), "another stream")
    assert_same(layer(x), expected, "this one")


@every_layer
def test_memory(cls, options):
    """Held once, packed: as many bytes as on the CPU without the padding of its layouts."""
    layer = make(cls, options, 512, 512).cuda()
    assert layer.packed.device.type == "cuda"
    assert layer.packed.nbytes < (0.27 if cls is not Int4Linear else 0.16) * 4 * 512 * 512
    assert backends.layout(layer.op) != "plain" or not backends.compiled()
