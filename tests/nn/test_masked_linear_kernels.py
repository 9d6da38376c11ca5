"""MaskedLinear on sparse kernels: what it computes, when it does, that it is never out of date."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import pyops
from pyops import backends
from pyops.nn import MaskedLinear
from pyops.ops import masked_matmul_pattern as patterns
from pyops.testing.cases.masked_matmul import U
from pyops.testing.compare import assert_within
from pyops.testing.threads import on_threads

compiled = pytest.mark.skipif(not backends.compiled(), reason="without kernels all is dense")
N, K, ROWS = 260, 304, 70
SPARSE = "last run by sparse kernels"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on a busy machine wait for threads longer than they compute."""
    with on_threads(1):
        yield


def layer_of(seed: int = 0, bias: bool = True) -> MaskedLinear:
    torch.manual_seed(seed)
    layer = MaskedLinear(K, N, bias=bias)
    layer.set_mask(torch.rand(N, K) < 0.2)
    return layer


def dense(layer: MaskedLinear, x: Tensor) -> Tensor:
    return F.linear(x, torch.where(layer.weight_mask, layer.weight, 0.0), layer.bias)


def check(layer: MaskedLinear, x: Tensor) -> None:
    """Output and gradients in sparse kernels, against float64."""
    x = x.detach().requires_grad_()
    out = layer(x)
    assert layer.remark == SPARSE
    grad = torch.randn_like(out)
    layer.zero_grad()
    out.backward(grad)
    kept = torch.where(layer.weight_mask, layer.weight.detach(), 0.0).double()
    rows, dy = x.detach().double(), grad.double()
    exact, size = rows @ kept.t(), rows.abs() @ kept.t().abs()
    if layer.bias is not None:
        exact, size = exact + layer.bias.double(), size + layer.bias.abs().double()
    assert_within(out.detach(), exact, (K + 3) * U * size, "output")
    assert_within(x.grad, dy @ kept, (N + 2) * U * (dy.abs() @ kept.abs()), "dx")
    bound = (len(x) + 8) * U * (dy.abs().t() @ rows.abs())
    exact = torch.where(layer.weight_mask, dy.t() @ rows, 0.0)
    assert_within(layer.weight.grad, exact, bound, "dw")
    assert bool((layer.weight.grad[~layer.weight_mask] == 0).all())


def data_weight(layer: MaskedLinear) -> None:
    layer.weight.data.mul_(-2)


def numpy_weight(layer: MaskedLinear) -> None:
    layer.weight.detach().numpy()[:] += 1


def other_weight(layer: MaskedLinear) -> None:
    layer.weight = nn.Parameter(torch.randn(N, K))


def set_mask(layer: MaskedLinear) -> None:
    layer.set_mask(layer.weight_mask.flip(0))


def data_mask(layer: MaskedLinear) -> None:
    layer.weight_mask.data.copy_(layer.weight_mask.flip(1))


def other_mask(layer: MaskedLinear) -> None:
    layer.weight_mask = layer.weight_mask.flip(0)


def transposed_mask(layer: MaskedLinear) -> None:
    layer.weight_mask = layer.weight_mask.flip(0).t().contiguous().t()


def loaded(layer: MaskedLinear) -> None:
    layer.load_state_dict(layer_of(1).state_dict())


def level(layer: MaskedLinear) -> None:
    pyops.isa.changed()


@compiled
@pytest.mark.parametrize(
    "change",
    [data_weight, numpy_weight, other_weight, set_mask, data_mask, other_mask, transposed_mask,
     loaded, level],
)  # fmt: skip
def test_what_changes_is_followed(change: Callable[[MaskedLinear], None]) -> None:
    layer, x = layer_of(), torch.randn(ROWS, K)
    check(layer, x)
    with torch.no_grad():
        change(layer)
    check(layer, x)
    check(layer, x)


@compiled
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_any_rank(bias: bool) -> None:
    layer, x = layer_of(bias=bias), torch.randn(2, 5, 7, K)
    check(layer, x.view(ROWS, K))
    flat = layer(x.view(ROWS, K))
    assert torch.equal(layer(x), flat.view(2, 5, 7, N))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(layer.eval()(x.view(ROWS, K)), flat)
    assert layer.remark == SPARSE


@compiled
def test_a_mask_that_is_written_with_its_own_values_is_not_packed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DistributedDataParallel does so before each forward pass."""
    calls = []
    pack = patterns._pack
    monkeypatch.setattr(patterns, "_pack", lambda mask: calls.append(1) or pack(mask))
    layer, x = layer_of(), torch.randn(ROWS, K)
    for _ in range(3):
        check(layer, x)
        layer.weight_mask.copy_(layer.weight_mask.clone())
    assert len(calls) == 2  # the weight and its transpose


@compiled
@pytest.mark.parametrize(
    ("change", "x", "why"),
    [
        (lambda layer: setattr(layer, "kernel", "dense"), torch.randn(ROWS, K), "kernel='dense'"),
        (lambda layer: layer.double(), torch.randn(ROWS, K).double(), "torch.float64"),
        (lambda layer: layer.bfloat16(), torch.randn(ROWS, K).bfloat16(), "torch.bfloat16"),
        (lambda layer: None, torch.randn(31, K), "the input has 31 rows"),
        (lambda layer: layer.set_mask(torch.ones(N, K, dtype=torch.bool)), torch.randn(ROWS, K),
         "100% of the weight is kept"),
        (lambda layer: None, nn.Parameter(torch.randn(ROWS, K)).as_subclass(type("T", (Tensor,),
         {})), "something traces or transforms the layer"),
    ],
)  # fmt: skip
def test_where_it_is_dense(change: Callable[[MaskedLinear], object], x: Tensor, why: str) -> None:
    layer = layer_of()
    assert layer.remark == ""
    change(layer)
    assert torch.equal(layer(x), dense(layer, x))
    assert layer.remark.startswith("last run by the dense product: ")
    assert why in layer.remark
    rows = pyops.explain(nn.Sequential(layer)).rows
    assert layer.remark in rows[0].reason


def test_a_small_layer_has_no_choice() -> None:
    layer = MaskedLinear(20, 30)
    layer(torch.ones(64, 20))
    assert layer.remark == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_large_weights_are_masked_as_bits(dtype: torch.dtype) -> None:
    layer = MaskedLinear(512, 300).to(dtype)
    layer.set_mask(torch.rand(300, 512) < 0.2)
    with torch.no_grad():
        layer.weight.masked_fill_(~layer.weight_mask, torch.nan)
    made = layer.masked_weight()
    assert torch.equal(made, torch.where(layer.weight_mask, layer.weight, 0.0))
    made.mul(torch.inf).sum().backward()
    assert bool((layer.weight.grad[~layer.weight_mask] == 0).all())
    assert bool(layer.weight.grad[layer.weight_mask].isinf().all())


def test_what_follows_the_layer_sees_the_dense_product() -> None:
    layer, x = layer_of(), torch.randn(ROWS, K)
    want = dense(layer, x)
    state = dict(layer.named_parameters()) | dict(layer.named_buffers())
    for run in (
        torch.compile(layer, fullgraph=True, backend="eager"),
        torch.compile(layer, fullgraph=True, backend="aot_eager"),
        torch.jit.trace(layer, x),
        torch.export.export(layer, (x,)).module(),
        torch.fx.symbolic_trace(layer),
        make_fx(layer)(x),
        lambda x: torch.func.functional_call(layer, state, (x,)),
        torch.func.vmap(layer),
        lambda x: torch.func.vjp(layer, x)[0],
    ):
        assert torch.allclose(run(x), want, atol=1e-5)
    shorter = x[:40]  # another number of rows: nothing of the first call is baked in
    assert torch.allclose(torch.jit.trace(layer, x)(shorter), dense(layer, shorter), atol=1e-5)
    graph = torch.export.export(layer, (x,)).graph
    assert not [node for node in graph.nodes if "pyops" in str(node.target)]
    assert not [node for node in make_fx(layer)(x).graph.nodes if "pyops" in str(node.target)]


def test_autocast_and_forward_mode() -> None:
    layer, x = layer_of(), torch.randn(ROWS, K)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        assert torch.equal(out, dense(layer, x))
    assert out.dtype == torch.bfloat16
    direction = torch.randn(ROWS, K)
    tangent = torch.func.jvp(layer, (x,), (direction,))[1]
    assert torch.allclose(tangent, dense(layer, direction) - layer.bias, atol=1e-5)
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, direction)))
    assert torch.allclose(out.tangent, tangent, atol=1e-5)


def test_gradients_of_gradients() -> None:
    layer, found = layer_of(), []
    for product in (layer, lambda x: dense(layer, x)):
        x = torch.ones(ROWS, K, requires_grad=True)
        (dx,) = torch.autograd.grad(product(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(dx.square().mean(), layer.weight)[0])
    assert torch.allclose(*found, rtol=1e-4, atol=1e-4 * float(found[1].abs().max()))
    assert bool((found[0][~layer.weight_mask] == 0).all())


@compiled
def test_copies_begin_with_nothing_packed() -> None:
    layer, x = layer_of(), torch.randn(ROWS, K)
    layer.kernel = "auto"
    check(layer, x)
    assert set(layer.state_dict()) == {"weight", "bias", "weight_mask"}
    for other in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._pattern is None
        assert other.kernel == "auto"
        check(other, x)
    layer.kernel = "dense"
    assert copy.deepcopy(layer).kernel == "dense"
    assert set(layer.to_float().__dict__) == set(nn.Linear(1, 1).__dict__)


def test_refusals() -> None:
    layer = layer_of()
    with pytest.raises(ValueError, match=r"MaskedLinear.kernel is 'fast', expected one of"):
        layer.kernel = "fast"
    for bad in (torch.randn(ROWS, K + 1), torch.randn(ROWS, K).double(), torch.tensor(1.0)):
        with pytest.raises(RuntimeError) as given:
            layer(bad)
        with pytest.raises(RuntimeError) as expected:
            dense(layer, bad)
        assert str(given.value) == str(expected.value)
