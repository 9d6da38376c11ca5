"""int8_rows: bit for bit the reference, and one op after another."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyops import backends, ops
from pyops.ops import RowProgram, packing
from pyops.ops.int8_gemm_rows_reference import LAYER_NORM, LINEAR, RMS_NORM, norm_reference
from pyops.testing.cases.int8_gemm_rows import (
    Maker,
    RowsCase,
    group_case,
    llama_case,
    mlp_case,
    post_norm_case,
    random_rows,
)
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.shapes import simd_sizes
from pyops.testing.threads import on_threads

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SIZES = simd_sizes(100)
ROWS = (1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 97, 128, 200)
SEEDS = range(90)


def random_case(seed: int) -> RowsCase:
    return random_rows(seed, ROWS, [*SIZES, 0] if seed % 10 == 0 else SIZES)


def assert_all_same(out: list[Tensor], expected: list[Tensor], label: str) -> None:
    assert len(out) == len(expected)
    for i, (a, b) in enumerate(zip(out, expected, strict=True)):
        assert_same(a, b, f"{label} [{i}]")


def assert_exact(case: RowsCase, label: str) -> None:
    out, label = case.run(), f"{label} {case.label}"
    assert_all_same(out, case.reference(), label)
    assert_all_same(out, case.chained(), f"chained {label}")


def test_random_programs_equal_the_reference(kernel: str) -> None:
    for seed in SEEDS:
        assert_exact(random_case(seed), f"{kernel} seed {seed}")


def test_the_cases_cover_every_option() -> None:
    """What the test above draws, so that no option goes missing with a change of seeds."""
    steps: list[tuple[int, ...]] = []
    for seed in SEEDS:
        ints = random_case(seed).program.steps
        steps += [tuple(ints[i : i + 6]) for i in range(0, len(ints), 6)]
    linear = [step for step in steps if step[0] == LINEAR]
    assert {step[4] for step in linear} == set(range(len(ops.ACTIVATIONS)))
    operands = {(step[2] >= 0, step[3] >= 0, step[5]) for step in linear}
    assert len(operands) == 8
    norms = {(step[0], step[5]) for step in steps if step[0] != LINEAR}
    assert norms == {(LAYER_NORM, g) for g in range(4)} | {(RMS_NORM, g) for g in range(2)}
    assert any(len(random_case(seed).program.outputs) > 2 for seed in SEEDS)
    assert {random_case(seed).out_dtype for seed in SEEDS} == {*FLOATS}


@pytest.mark.parametrize("m", [1, 5, 70, 200])
def test_the_parts_of_a_transformer(kernel: str, m: int) -> None:
    for seed in range(3):
        assert_exact(post_norm_case(seed, m, 48, 200), f"{kernel} BERT")
        assert_exact(llama_case(seed, m, 48, 130), f"{kernel} Llama")
        assert_exact(group_case(seed, m, [48, 17, 65], 40), f"{kernel} group")
        assert_exact(mlp_case(seed, m, 130, 24, 33), f"{kernel} MLP")


@pytest.mark.parametrize("dimension", ["width", "hidden"])
def test_every_tail(kernel: str, dimension: str) -> None:
    for size in SIZES:
        sizes = {"width": 36, "hidden": 66, dimension: size}
        assert_exact(post_norm_case(size, 37, **sizes), kernel)
        assert_exact(llama_case(size, 37, **sizes), kernel)


def test_every_tail_of_a_group(kernel: str) -> None:
    """The columns of a layer start at a whole panel of the product, wherever the last one ends."""
    for size in SIZES:
        assert_exact(group_case(size, 9, [size, 17, size], 68), kernel)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    """Rows 5 and 60 go step by step at some numbers of threads, 128 and 400 by blocks of rows."""
    cases = [make(m, m, 260, 530) for m in (1, 5, 60, 128, 400) for make in (
        post_norm_case, llama_case)]  # fmt: skip
    cases += [group_case(m, m, [130, 333, 70], 260) for m in (1, 5, 97, 300)]
    with on_threads(1):
        expected = [case.chained() for case in cases]
    with on_threads(threads):
        for case, out in zip(cases, expected, strict=True):
            assert_all_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


@pytest.mark.parametrize(("m", "width", "hidden"), [(0, 5, 6), (3, 0, 6), (3, 5, 0), (0, 0, 0),
                                                    (200, 0, 6), (200, 5, 0)])  # fmt: skip
def test_empty_sizes(kernel: str, m: int, width: int, hidden: int) -> None:
    for seed in range(4):
        assert_exact(post_norm_case(seed, m, width, hidden), kernel)
        assert_exact(llama_case(seed, m, width, hidden), kernel)
        assert_exact(group_case(seed, m, [width, hidden, 5], width), kernel)


def norm_error(x: Tensor, weight: Tensor, centered: bool, eps: float) -> tuple[Tensor, Tensor]:
    """The exact norm without bias, in float64, and how far float32 may be from it.

    Each of n additions rounds once (n * u of the sum of magnitudes is more than 64 partial sums
    need); u = 2^-24 for each of the other steps.
    """
    v, u, n = x.double(), 2.0**-24, x.shape[-1]
    mean = v.mean(-1, keepdim=True) if centered else torch.zeros_like(v[..., :1])
    mean_error = (n + 2) * u * v.abs().mean(-1, keepdim=True) if centered else mean
    d = v - mean
    d_error = mean_error + u * (d.abs() + mean_error)
    variance = d.square().mean(-1, keepdim=True)
    squares_error = 2 * d.abs() * d_error + d_error.square()
    variance_error = squares_error.mean(-1, keepdim=True) + (n + 4) * u * (
        variance + squares_error.mean(-1, keepdim=True)
    )
    low = (variance + eps - variance_error).clamp(min=1e-300)
    r = (variance + eps).rsqrt()
    r_error = low.rsqrt() - r + 4 * u * low.rsqrt()
    exact = d * r * weight.double()
    error = (
        weight.double().abs() * (d_error * (r + r_error) + d.abs() * r_error) + 3 * u * exact.abs()
    )
    return exact, error


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
def test_norms_are_within_their_bound(kernel: str, dtype: torch.dtype, centered: bool) -> None:
    """Of the exact norm, as torch's are; for rows far from 0 and with large outliers too."""
    rng = torch.Generator().manual_seed(3)
    for n in (*SIZES, 384, 1000):
        x = torch.randn(8, n, generator=rng)
        x[1], x[2], x[3] = x[1] + 100, x[2] * 1e4, x[3] * 1e-4
        x[4, 0] = 3e3
        x, weight = x.to(dtype), torch.randn(n, generator=rng)
        program = RowProgram(1)
        make = program.layer_norm if centered else program.rms_norm
        options = {"bias": False} if centered else {}
        program.returns(make(0, eps=1e-5, **options))
        out = ops.int8_rows(program, [x], [weight], out_dtype=torch.float32)[0]
        exact, error = norm_error(x, weight, centered, 1e-5)
        assert_within(out, exact, error, f"{kernel} {n} {dtype}")
        theirs = F.layer_norm if centered else F.rms_norm
        ours = theirs(x.float(), (n,), weight, eps=1e-5)
        assert_within(out, ours, 2 * error, f"{kernel} {n} {dtype} torch")
        assert_same(out, norm_reference(x, weight, None, 1e-5, centered, torch.float32), kernel)


def test_bad_rows_stay_alone(kernel: str) -> None:
    for m in (70, 5):
        case = post_norm_case(1, m, 40, 33)
        case.inputs = [torch.randn(x.shape).to(x.dtype) for x in case.inputs]
        case.inputs[0][2, 39], case.inputs[1][3, 0] = torch.nan, -torch.inf
        bad = [r in (2, 3) for r in range(m)]
        (out,) = case.run()
        assert torch.isnan(out).all(1).tolist() == bad
        assert torch.isfinite(out[~torch.tensor(bad)]).all()


def test_infinite_values_in_a_norm(kernel: str) -> None:
    """As in torch: RMSNorm divides the others by infinity, LayerNorm has no mean."""
    x = torch.tensor([[1.0, torch.inf, -2.0], [1.0, -1.0, 0.5]])
    for program, theirs in ((RowProgram(1), F.layer_norm), (RowProgram(1), F.rms_norm)):
        if theirs is F.layer_norm:
            program.returns(program.layer_norm(0, eps=1e-5, weight=False, bias=False))
        else:
            program.returns(program.rms_norm(0, eps=1e-5, weight=False))
        out = ops.int8_rows(program, [x], [])[0]
        assert torch.equal(out.isnan(), theirs(x, (3,), eps=1e-5).isnan())
        assert torch.allclose(out, theirs(x, (3,), eps=1e-5), rtol=1e-6, equal_nan=True)


def test_values_between_layers_that_overflow_spoil_their_row_alone(kernel: str) -> None:
    """float16 registers may become Inf, which the second quantizer has to report."""
    make = Maker(3, 40, torch.float16)
    x = make.input(8)
    case = make.case(make.linear(make.linear(x, 12), 9))
    case.inputs = [torch.ones(40, 8)]
    case.inputs[0][11] = 1e9
    (out,) = case.run()
    assert_exact(case, kernel)
    assert torch.isnan(out[11]).all()
    assert torch.isfinite(out[torch.arange(40) != 11]).all()


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    keep: list[object] = []
    for m, width, hidden in ((1, 1, 1), (7, 17, 3), (70, 35, 67), (8, 64, 128)):
        for seed in range(4):
            for case in (
                post_norm_case(seed, m, width, hidden),
                llama_case(seed, m, width, hidden),
            ):
                inputs = [guarded(x, keep) for x in case.inputs]
                tensors = [guarded(t, keep) for t in case.packed()]
                out = ops.int8_rows(case.program, inputs, tensors, out_dtype=case.out_dtype)
                assert_all_same(out, case.run(), kernel)


def test_a_layer_may_follow_itself(kernel: str) -> None:
    make = Maker(1, 40)
    x = make.input(20)
    y = make.linear(x, 20)
    make.program.linear(y)
    make.tensors *= 2
    assert_exact(make.case(2), kernel)


def test_results_that_nobody_reads(kernel: str) -> None:
    for m in (3, 200):
        make = Maker(1, m)
        x = make.input(20)
        make.norm(x)
        make.linear(x, 30)
        make.norm(make.linear(x, 7), layer=False)
        assert_exact(make.case(make.linear(x, 9)), kernel)


def test_the_plain_layout_is_one_too() -> None:
    """The reference takes the plain packing, and the kernels refuse it unless it is theirs."""
    case = mlp_case(1, 4, 8, 8, 8)
    assert case.reference()[0].shape == (4, 8)
    if backends.layout("int8_gemm") == "plain":
        return
    tensors = case.packed()
    tensors[3] = packing.pack_plain(case.tensors[3])
    with pytest.raises(RuntimeError, match="int8_rows: the weight is packed as"):
        ops.int8_rows(case.program, case.inputs, tensors)
