"""What a bench and its peers agree on: cases to compute, results to check, reasons to skip."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from conv_layers import ConvLayer
from torch import Tensor, nn

Call = Callable[[], Tensor]


class UnavailableError(RuntimeError):
    """A peer is absent or does not work here; the message is the reason."""


class WrongResultError(RuntimeError):
    """A result is not what it should be, so its time means nothing."""


@dataclass(frozen=True)
class Case:
    """One thing to compute and time.

    ``kind`` says which peers can compute it: "linear" takes ``tensors`` x, weight, bias;
    "int32_gemm" takes a, b; "conv" takes x, weight, bias and the stride, padding and groups that
    ``geometry`` says; "static_linear" takes x, weight, bias and what ``static`` says;
    "static_conv" takes the same and the ``layer`` that it is; "sparse_linear" takes x and weight,
    which is dense and has zeros, in float32, and "sparse_linear bf16" the same in bfloat16;
    "model", "model pruned" and "convnet int8|fp32|bf16|pruned", and "convnet pruned int8" and
    "model pruned int8", take ``model`` and ``inputs``, and ``calibration`` returns inputs like real
    ones, where ``inputs`` are not; others have no peers. ``make_ours`` prepares our call (packing
    is not timed) or raises UnavailableError, ``variants`` other calls of ours, which take long to
    prepare.
    ``check_ours`` and ``check_peer`` take a result and raise WrongResultError; ``quality`` returns
    numbers to print beside the time.

    ``products`` are int8 weights, each with its rows of activations, where they decide which kernel
    of ``op`` runs; ``kernel`` names it where no int8 weight decides, and ``peak`` the roofline's
    peak that bounds it where that is not the int8 peak of its level. ``rivals``: a label, and the
    peers of which the fastest counts.
    """

    kind: str
    name: str
    operations: float
    bytes_moved: float
    make_ours: Callable[[], Call]
    check_ours: Callable[[Tensor], None]
    check_peer: Callable[[Tensor], None]
    op: str | None = None
    peak: str | None = None
    kernel: str | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    geometry: Mapping[str, int] = field(default_factory=dict)
    static: StaticScales | None = None
    layer: ConvLayer | None = None
    model: nn.Module | None = None
    inputs: tuple[Tensor, ...] = ()
    calibration: Callable[[], tuple[tuple[Tensor, ...], ...]] | None = None
    products: tuple[tuple[Tensor, int], ...] = ()
    variants: Mapping[str, Callable[[], Call]] = field(default_factory=dict)
    quality: Callable[[Tensor], dict[str, float]] | None = None
    rivals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class StaticScales:
    """Scales and zero points of a product whose input and output are uint8, and its activation.

    ``scale_residual``: of a uint8 tensor ``residual`` that is added, where there is one.
    """

    scale_x: float
    zero_point_x: int
    scale_w: Tensor
    scale_out: float
    zero_point_out: int
    relu: bool
    scale_residual: float = 1.0
    zero_point_residual: int = 0


def as_model(case: Case) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the float model and inputs of a "model" or "linear" case."""
    if case.model is not None:
        return case.model, case.inputs
    weight = case.tensors["weight"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": case.tensors["bias"]})
    return nn.Sequential(linear).eval(), (case.tensors["x"],)


def calibration_of(case: Case) -> tuple[tuple[Tensor, ...], ...]:
    """Return inputs like real ones: the case's own where it names no others."""
    return case.calibration() if case.calibration else (as_model(case)[1],)


def require(packages: tuple[str, ...]) -> None:
    """Raise UnavailableError unless the packages are installed."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UnavailableError(f"not installed: {missing}; run: pip install {' '.join(packages)}")


def sqnr_db(result: Tensor, exact: Tensor) -> float:
    """Return 10 log10(signal / error power) of ``result`` against ``exact``, same shape."""
    exact = exact.double()
    error = (result.double() - exact).square().sum()
    return float(10 * (exact.square().sum() / error.clamp_min(1e-300)).log10())
