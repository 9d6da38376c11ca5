"""Random programs of ``int8_rows``, and the transformer's parts as programs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyops.ops import ACTIVATIONS, RowProgram, int8_linear, int8_pack, int8_rows, packing
from pyops.ops.epilogue import OUT_DTYPE_CODE
from pyops.ops.int8_gemm_rows_reference import LINEAR, STEP_INTS, int8_rows_reference

from .int8_gemm import FLOATS, random_codes


@dataclass
class RowsCase:
    """Arguments of ``int8_rows``; an int8 tensor stands for a packed weight."""

    program: RowProgram
    inputs: list[Tensor]
    tensors: list[Tensor]
    out_dtype: torch.dtype

    @property
    def label(self) -> str:
        shapes = [f"{list(x.shape)} {x.dtype}" for x in self.inputs]
        return f"{shapes} -> {self.out_dtype} {self.program}"

    def packed(self) -> list[Tensor]:
        """The tensors for the kernel that is active."""
        return [int8_pack(t) if t.dtype == torch.int8 else t for t in self.tensors]

    def run(self) -> list[Tensor]:
        return int8_rows(self.program, self.inputs, self.packed(), out_dtype=self.out_dtype)

    def reference(self) -> list[Tensor]:
        p, plain = self.program, packing.pack_plain
        tensors = [plain(t) if t.dtype == torch.int8 else t for t in self.tensors]
        code = OUT_DTYPE_CODE[self.out_dtype]
        return int8_rows_reference(self.inputs, tensors, p.steps, p.eps, p.outputs, code)

    def chained(self) -> list[Tensor]:
        """One op after another, by the kernel that is active; a norm is a program of one step."""
        registers, tensors = list(self.inputs), self.packed()
        for number, eps in enumerate(self.program.eps):
            step = self.program.steps[STEP_INTS * number : STEP_INTS * (number + 1)]
            kind, x, residual, gate, activation, given = step
            count = 2 + given if kind == LINEAR else given.bit_count()
            own, tensors = tensors[:count], tensors[count:]
            if kind != LINEAR:
                alone = RowProgram(1, [kind, 0, *step[2:]], [eps], [1])
                registers += int8_rows(alone, [registers[x]], own, out_dtype=self.out_dtype)
                continue
            y = int8_linear(
                registers[x],
                *own,
                residual=registers[residual] if residual >= 0 else None,
                activation=ACTIVATIONS[activation],
                out_dtype=self.out_dtype if gate < 0 else torch.float32,
            )
            if gate >= 0:
                y = (y * registers[gate].float()).to(self.out_dtype)
            registers.append(y)
        return [registers[at] for at in self.program.outputs]


class Maker:
    """Draws the tensors of a program while it is written."""

    def __init__(self, seed: int, m: int, out_dtype: torch.dtype | None = None) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        self.m = m
        self.out_dtype = FLOATS[self.pick(3)] if out_dtype is None else out_dtype
        self.program = RowProgram(inputs=0)
        self.inputs: list[Tensor] = []
        self.tensors: list[Tensor] = []
        self.widths: list[int] = []

    def pick(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.rng))

    def input(self, width: int, dtype: torch.dtype | None = None) -> int:
        """All inputs come before the steps."""
        x = torch.randn(self.m, width, generator=self.rng) * 10.0 ** (self.pick(5) - 2)
        if self.m and width and self.pick(8) == 0:
            x[self.pick(self.m)] = (0.0, torch.nan, torch.inf)[self.pick(3)]
        self.inputs.append(x.to(self.out_dtype if dtype is None else dtype))
        self.program.inputs += 1
        return self._made(width)

    def linear(
        self,
        x: int,
        n: int,
        *,
        residual: int | None = None,
        gate: int | None = None,
        activation: str = "none",
        bias: bool = True,
    ) -> int:
        k = self.widths[x]
        self.tensors.append(random_codes(self.rng, n, k, True, 0))
        self.tensors.append(torch.rand(n, generator=self.rng) * 0.02 / max(k, 1) ** 0.5 + 1e-6)
        if bias:
            self.tensors.append(torch.randn(n, generator=self.rng))
        self.program.linear(x, residual=residual, gate=gate, activation=activation, bias=bias)
        return self._made(n)

    def norm(
        self,
        x: int,
        *,
        layer: bool = True,
        weight: bool = True,
        bias: bool = True,
        eps: float = 1e-5,
    ) -> int:
        n = self.widths[x]
        for given in (weight, bias and layer):
            if given:
                values = torch.randn(n, generator=self.rng)
                self.tensors.append(values.to(FLOATS[self.pick(3)]))
        if layer:
            self.program.layer_norm(x, eps=eps, weight=weight, bias=bias)
        else:
            self.program.rms_norm(x, eps=eps, weight=weight)
        return self._made(n)

    def _made(self, width: int) -> int:
        self.widths.append(width)
        return len(self.widths) - 1

    def case(self, *outputs: int) -> RowsCase:
        self.program.returns(*outputs)
        return RowsCase(self.program, self.inputs, self.tensors, self.out_dtype)


def random_rows(seed: int, rows: tuple[int, ...], sizes: list[int]) -> RowsCase:
    """A program of 1 to 6 steps that depends on its arguments alone."""
    rng = torch.Generator().manual_seed(seed)

    def one_of(choices: list[int] | tuple[int, ...] | range) -> int:
        return choices[int(torch.randint(len(choices), (), generator=rng))]

    make = Maker(seed, one_of(rows))
    for _ in range(one_of(range(1, 4))):
        make.input(one_of(sizes), FLOATS[make.pick(3)])
    for _ in range(one_of(range(1, 7))):
        x = make.pick(len(make.widths))
        if make.pick(3) == 0:
            layer, eps = bool(make.pick(2)), (1e-12, 1e-5, 0.0)[make.pick(3)]
            make.norm(x, layer=layer, weight=bool(make.pick(4)), bias=bool(make.pick(2)), eps=eps)
            continue
        n = make.widths[make.pick(len(make.widths))] if make.pick(2) else one_of(sizes)
        same = [at for at, width in enumerate(make.widths) if width == n]
        operands = [same[make.pick(len(same))] if same and make.pick(2) else None for _ in range(2)]
        activation = ACTIVATIONS[make.pick(len(ACTIVATIONS))]
        make.linear(
            x, n, residual=operands[0], gate=operands[1], activation=activation,
            bias=bool(make.pick(2)),
        )  # fmt: skip
    made = range(make.program.inputs, len(make.widths))
    outputs = [at for at in made if make.pick(3) == 0 or at == made[-1]]
    return make.case(*outputs)


def group_case(seed: int, m: int, ns: list[int], k: int) -> RowsCase:
    """Layers that read one input, as query, key and value do."""
    make = Maker(seed, m)
    x = make.input(k)
    outputs = [make.linear(x, n, activation=ACTIVATIONS[make.pick(5)]) for n in ns]
    return make.case(*outputs)


def mlp_case(seed: int, m: int, hidden: int, n: int, k: int) -> RowsCase:
    """Two layers and a residual."""
    make = Maker(seed, m)
    x, residual = make.input(k), make.input(n)
    up = make.linear(x, hidden, activation=ACTIVATIONS[make.pick(5)])
    return make.case(make.linear(up, n, residual=residual))


def post_norm_case(seed: int, m: int, width: int, hidden: int) -> RowsCase:
    """From the attention of a BERT layer to the layer's end."""
    make = Maker(seed, m)
    attended, x = make.input(width), make.input(width)
    middle = make.norm(make.linear(attended, width, residual=x))
    up = make.linear(middle, hidden, activation="gelu")
    return make.case(make.norm(make.linear(up, width, residual=middle)))


def llama_case(seed: int, m: int, width: int, hidden: int) -> RowsCase:
    """From the attention of one Llama layer to the query, key and value of the next."""
    make = Maker(seed, m)
    attended, x = make.input(width), make.input(width)
    stream = make.linear(attended, width, residual=x, bias=False)
    read = make.norm(stream, layer=False)
    gate = make.linear(read, hidden, activation="silu", bias=False)
    up = make.linear(read, hidden, gate=gate, bias=False)
    stream = make.linear(up, width, residual=stream, bias=False)
    read = make.norm(stream, layer=False)
    return make.case(*(make.linear(read, n, bias=False) for n in (width, 16, 16)), stream)
