"""Blocks of transformers in plain torch: what stands between two attentions is one call."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyops

WIDTH, HIDDEN, HEADS = 64, 160, 4
CLOSE = 2e-2  # as in test_norms.py


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, WIDTH))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * h.to(x.dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * cos + torch.cat([-second, first], -1) * sin


class Llama(nn.Module):
    """RMSNorm, rotary attention with fewer keys than queries, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        half = WIDTH // 2
        self.read, self.mlp_read = RMSNorm(), RMSNorm()
        self.q = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k, self.v = (nn.Linear(WIDTH, half, bias=False) for _ in range(2))
        self.o = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = (nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.size = WIDTH // HEADS

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.size)).transpose(1, 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.read(x)
        q, k, v = self.heads(self.q(y)), self.heads(self.k(y)), self.heads(self.v(y))
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        k, v = torch.cat([k, k], 1), torch.cat([v, v], 1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        y = self.mlp_read(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Bert(nn.Module):
    """Post-norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.Dropout()

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.drop(self.o(self.attend(x))))
        return self.norm2(x + self.drop(self.down(F.gelu(self.up(x)))))


class Gpt(Bert):
    """Pre-norm; two blocks in one graph, so that a call reaches from one into the other."""

    def block(self, x: Tensor) -> Tensor:
        x = x + self.o(self.attend(self.norm1(x)))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Two(nn.Module):
    """Whole models are one graph where they are exported; here, by writing them so."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.ModuleList(Bert().q for _ in range(2))
                                          for _ in range(4))  # fmt: skip
        self.up = nn.ModuleList(Bert().up for _ in range(2))
        self.down = nn.ModuleList(Bert().down for _ in range(2))
        self.norm1 = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.norm2 = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(2):
            y = self.norm1[i](x)
            q, k, v = (layer(y).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                       for layer in (self.q[i], self.k[i], self.v[i]))  # fmt: skip
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self.o[i](mixed)
            x = x + self.down[i](F.gelu(self.up[i](self.norm2[i](x))))
        return x


def calls_of(*groups: list[str]) -> list[str]:
    """The notes that say what else runs in a layer's call."""
    return [
        f"one call with {', '.join(other for other in group if other != name)}"
        for group in groups
        for name in group
    ]


MODELS = {
    Llama: {
        "q": ["RMSNorm + quantize", "one call with k, v", "attention by pyops"],
        "k": ["RMSNorm + quantize", "one call with q, v"],
        "v": ["RMSNorm + quantize", "one call with q, k"],
        "o": ["residual", "one call with gate, up, down"],
        "gate": ["RMSNorm + quantize", "silu", "one call with o, up, down"],
        "up": ["RMSNorm + quantize", "gate", "one call with o, gate, down"],
        "down": ["residual", "one call with o, gate, up"],
    },
    Bert: {
        "q": ["one call with k, v", "attention by pyops"],
        "k": ["one call with q, v"],
        "v": ["one call with q, k"],
        "o": ["residual", "one call with up, down"],
        "up": ["LayerNorm + quantize", "gelu", "one call with o, down"],
        "down": ["residual", "LayerNorm", "one call with o, up"],
    },
    Gpt: {
        "q": ["LayerNorm + quantize", "one call with k, v", "attention by pyops"],
        "k": ["LayerNorm + quantize", "one call with q, v"],
        "v": ["LayerNorm + quantize", "one call with q, k"],
        "o": ["residual", "one call with up, down"],
        "up": ["LayerNorm + quantize", "gelu_tanh", "one call with o, down"],
        "down": ["residual", "one call with o, up"],
    },
}
NUMBER_OF_CALLS = {Llama: 2, Bert: 2, Gpt: 2, Two: 3}


def inputs(cls: type[nn.Module], rows: int = 5) -> tuple[Tensor, ...]:
    x = torch.linspace(-2, 2, 2 * rows * WIDTH).mul(31).sin().reshape(2, rows, WIDTH)
    size = WIDTH // HEADS
    angle = torch.arange(rows)[:, None] * torch.linspace(0.1, 1, size)
    return (x, angle.cos(), angle.sin()) if cls is Llama else (x,)


@pytest.mark.parametrize("cls", MODELS)
def test_what_runs_in_one_call(tools, cls):
    fused = tools.convert(cls())
    assert tools.notes(fused) == MODELS[cls]
    reasons = {row.name: row.reason for row in pyops.explain(fused).rows}
    for name, notes in MODELS[cls].items():
        assert reasons[name].endswith(f"; fused: {', '.join(notes)}")


def test_a_call_reaches_from_one_block_into_the_next(tools):
    notes = tools.notes(tools.convert(Two()))
    assert notes["o.0"] == ["residual", "one call with up.0, down.0, q.1, k.1, v.1"]
    assert notes["q.1"] == ["LayerNorm + quantize", "one call with o.0, up.0, down.0, k.1, v.1"]
    assert notes["o.1"] == ["residual", "one call with up.1, down.1"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 70])
@pytest.mark.parametrize("cls", NUMBER_OF_CALLS)
def test_results(tools, cls, rows, dtype):
    """As without fusion; bfloat16 runs end to end, and no further from the float model."""
    model = cls().eval()
    fused, unfused = (tools.convert(model, fuse).to(dtype) for fuse in (True, False))
    args = tuple(x.to(dtype) for x in inputs(cls, rows))
    with torch.no_grad():
        with tools.count() as calls:
            out = fused(*args)
        assert calls.count("int8_rows") == NUMBER_OF_CALLS[cls]
        assert set(calls) <= {"int8_rows", "attention"}
        expected, truth = unfused(*args), model(*inputs(cls, rows))
    assert out.dtype == dtype
    assert tools.same(out, expected, CLOSE if dtype is torch.float32 else 4e-2)
    if rows > 1:  # of a single row, the two errors differ by chance
        errors = [(y.float() - truth).norm() for y in (out, expected)]
        assert errors[0] <= errors[1] * 1.1


@pytest.mark.parametrize("cls", NUMBER_OF_CALLS)
def test_results_do_not_depend_on_the_instruction_set(tools, cls):
    fused, args = tools.convert(cls()), inputs(cls)
    with torch.no_grad():
        expected = fused(*args)
        for name in pyops.isa.available():
            with pyops.isa.force(name):
                assert torch.equal(fused(*args), expected), name


@pytest.mark.parametrize("cls", NUMBER_OF_CALLS)
def test_compile(tools, cls):
    fused, args = tools.convert(cls()), inputs(cls)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
        assert tools.same(compiled(*args), fused(*args), 1e-6)
    torch.compiler.reset()
