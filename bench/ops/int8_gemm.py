"""``int8_linear``, ``int8_gemm`` to fp32 and to int32, and ``int8_rows``: group, MLP, layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from case import Call, Case
from products import (
    SETS,
    TORCH_AO,
    exact_product,
    expect_close,
    expect_equal,
    quantize_rows,
)
from torch import Tensor, nn

from pyops import ops

# (M, K, N): a transformer's query, key and value (three K x K) and its MLP (K to N to K).
LAYERS = ((1, 384, 1536), (128, 384, 1536), (1024, 384, 1536), (128, 768, 3072))
TINY_LAYERS = ((3, 24, 40),)
DYNAMIC_RIVALS = {"torch.ao dynamic": TORCH_AO}


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of the set ``shapes``; in "few" only ``int8_linear``."""
    for maker in (linear,) if shapes == "few" else (linear, gemm_fp32, gemm_int32):
        for m, k, n in SETS[shapes]:
            yield maker(m, k, n)
    if shapes in ("all", "main", "tiny"):
        for m, k, n in TINY_LAYERS if shapes == "tiny" else LAYERS:
            yield group(m, k)
            yield mlp(m, k, n)
            yield tail(m, k, n)


@lru_cache(maxsize=1)
def layer(k: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a random fp32 weight ``[n, k]`` and bias, and the weight's int8 values and scales."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n, k, generator=generator) / k**0.5
    return weight, torch.randn(n, generator=generator), *ops.quantize_weight(weight)


def linear(m: int, k: int, n: int) -> Case:
    """fp32 ``x [m, k]`` to fp32 ``[m, n]`` with bias; activations quantized per row."""
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(1))
    weight, bias, quantized, scale = layer(k, n)

    def make_ours() -> Call:
        packed = ops.int8_pack(quantized)
        return lambda: ops.int8_linear(x, packed, scale, bias)

    def check_ours(result: Tensor) -> None:
        rows, row_scale = quantize_rows(x)
        sums = exact_product(rows, quantized)
        expect_equal(result, sums.float() * row_scale * scale + bias)

    def check_peer(result: Tensor) -> None:
        expect_close(result, x.double() @ weight.double().T + bias)

    return Case(
        kind="linear",
        op="int8_gemm",
        name=f"int8_linear {m}x{k}x{n}",
        operations=2.0 * m * k * n,
        bytes_moved=4.0 * m * k + n * k + 4.0 * m * n,
        make_ours=make_ours,
        check_ours=check_ours,
        check_peer=check_peer,
        tensors={"x": x, "weight": weight, "bias": bias},
        products=((quantized, m),),
        rivals=DYNAMIC_RIVALS,
    )


def gemm_fp32(m: int, k: int, n: int) -> Case:
    """uint8 ``a [m, k]`` with scale and zero point per row to fp32 ``[m, n]``, with bias."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (m, k), generator=generator, dtype=torch.uint8)
    b = torch.randint(-127, 128, (n, k), generator=generator, dtype=torch.int8)
    scale_a = torch.rand(m, generator=generator) + 0.01
    scale_w = torch.rand(n, generator=generator) + 0.01
    zero_point = torch.randint(0, 256, (m,), generator=generator, dtype=torch.int32)
    bias = torch.randn(n, generator=generator)

    def make_ours() -> Call:
        packed = ops.int8_pack(b)
        return lambda: ops.int8_gemm(
            a, packed, n, scale_a=scale_a, zero_point_a=zero_point, scale_w=scale_w, bias=bias
        )

    def check_ours(result: Tensor) -> None:
        sums = exact_product(a.double() - zero_point[:, None], b)
        expect_equal(result, sums.float() * scale_a[:, None] * scale_w + bias)

    return Case(
        kind="int8_gemm",
        op="int8_gemm",
        name=f"int8_gemm u8->fp32 {m}x{k}x{n}",
        operations=2.0 * m * k * n,
        bytes_moved=m * k + n * k + 4.0 * m * n,
        make_ours=make_ours,
        check_ours=check_ours,
        check_peer=check_ours,
        products=((b, m),),
    )


def gemm_int32(m: int, k: int, n: int) -> Case:
    """int8 ``a [m, k]`` times int8 ``b [n, k]`` to int32 ``[m, n]``: the sums as they are."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-128, 128, (m, k), generator=generator, dtype=torch.int8)
    b = torch.randint(-127, 128, (n, k), generator=generator, dtype=torch.int8)

    def make_ours() -> Call:
        packed = ops.int8_pack(b)
        return lambda: ops.int8_gemm(a, packed, n, out_dtype=torch.int32)

    def check(result: Tensor) -> None:
        expect_equal(result, exact_product(a, b).int())

    return Case(
        kind="int32_gemm",
        op="int8_gemm",
        name=f"int8_gemm s8->int32 {m}x{k}x{n}",
        operations=2.0 * m * k * n,
        bytes_moved=m * k + n * k + 4.0 * m * n,
        make_ours=make_ours,
        check_ours=check,
        check_peer=check,
        tensors={"a": a, "b": b},
        products=((b, m),),
    )


class Siblings(nn.Module):
    """Linears that read one tensor; the last one's output stands for all."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(k, k) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = [layer(x) for layer in self.layers][-1]
        return out


def group(m: int, k: int) -> Case:
    """fp32 ``x [m, k]`` through three layers ``[k, k]``, as query, key and value."""
    torch.manual_seed(0)
    x, model = torch.randn(m, k), Siblings(k).eval()

    def make_ours() -> Call:
        program = ops.RowProgram(inputs=1)
        program.returns(*(program.linear(0) for _ in model.layers))
        tensors = [t for linear in model.layers for t in packed_layer(linear)]
        return lambda: ops.int8_rows(program, [x], tensors)[-1]

    return layers_case(f"int8_rows 3x {m}x{k}x{k}", model, x, make_ours)


def mlp(m: int, k: int, n: int) -> Case:
    """fp32 ``x [m, k]`` through ``[n, k]``, gelu and ``[k, n]``."""
    torch.manual_seed(0)
    x = torch.randn(m, k)
    model = nn.Sequential(nn.Linear(k, n), nn.GELU(), nn.Linear(n, k)).eval()

    def make_ours() -> Call:
        program = ops.RowProgram(inputs=1)
        program.returns(program.linear(program.linear(0, activation="gelu")))
        tensors = [*packed_layer(model[0]), *packed_layer(model[2])]
        return lambda: ops.int8_rows(program, [x], tensors)[0]

    return layers_case(f"int8_rows mlp {m}x{k}x{n}", model, x, make_ours)


class Tail(nn.Module):
    """What follows the attention in a post-norm layer; the input is also the residual."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.project, self.up, self.down = nn.Linear(k, k), nn.Linear(k, n), nn.Linear(n, k)
        self.norm1, self.norm2 = nn.LayerNorm(k), nn.LayerNorm(k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.project(x) + x)
        out: Tensor = self.norm2(self.down(nn.functional.gelu(self.up(x))) + x)
        return out


def tail(m: int, k: int, n: int) -> Case:
    """fp32 ``x [m, k]`` through ``[k, k]``, ``[n, k]`` and ``[k, n]``, residuals and norms."""
    torch.manual_seed(0)
    x, model = torch.randn(m, k), Tail(k, n).eval()

    def make_ours() -> Call:
        program = ops.RowProgram(inputs=1)
        middle = program.layer_norm(program.linear(0, residual=0), eps=model.norm1.eps)
        up = program.linear(middle, activation="gelu")
        program.returns(program.layer_norm(program.linear(up, residual=middle), eps=1e-5))
        tensors = [*packed_layer(model.project), *norm_tensors(model.norm1)]
        for linear in (model.up, model.down):
            tensors += packed_layer(linear)
        tensors += norm_tensors(model.norm2)
        return lambda: ops.int8_rows(program, [x], tensors)[0]

    return layers_case(f"int8_rows layer {m}x{k}x{n}", model, x, make_ours)


def norm_tensors(norm: nn.LayerNorm) -> list[Tensor]:
    """Return weight and bias."""
    return [norm.weight.detach(), norm.bias.detach()]


def quantized(layer: nn.Linear) -> Tensor:
    """Return the int8 weight of a float layer."""
    return ops.quantize_weight(layer.weight.detach())[0]


def packed_layer(layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Return packed weight, scale and bias of an ``nn.Linear``."""
    assert isinstance(layer, nn.Linear)
    weight, scale = ops.quantize_weight(layer.weight.detach())
    return ops.int8_pack(weight), scale, layer.bias.detach()


def layers_case(name: str, model: nn.Module, x: Tensor, make_ours: Callable[[], Call]) -> Case:
    """Peers run the float model or their own conversion of it."""
    with torch.inference_mode():
        exact = model(x)
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    weights = sum(layer.weight.numel() for layer in linears)
    return Case(
        kind="model",
        op="int8_gemm",
        name=name,
        operations=2.0 * x.shape[0] * weights,
        bytes_moved=4.0 * x.numel() + weights + 4.0 * exact.numel(),
        make_ours=make_ours,
        check_ours=lambda result: expect_close(result, exact),
        check_peer=lambda result: expect_close(result, exact),
        model=model,
        inputs=(x,),
        products=tuple(
            (ops.quantize_weight(layer.weight.detach())[0], x.shape[0]) for layer in linears
        ),
        rivals=DYNAMIC_RIVALS,
    )
