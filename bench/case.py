"""What a bench and its peers agree on: cases to compute, results to check, reasons to skip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
    "int32_gemm" takes a, b; "model" takes ``model`` and ``inputs``; others have no peers.
    ``make_ours`` prepares our call (packing is not timed). ``check_ours`` and ``check_peer``
    take a result and raise WrongResultError. ``peak`` names the roofline's peak that bounds our
    kernel, where that is not the int8 peak of its level; ``kernel`` the one that runs,
    where that is not the op's active one.
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
    model: nn.Module | None = None
    inputs: tuple[Tensor, ...] = ()


def as_model(case: Case) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the float model and inputs of a "model" or "linear" case."""
    if case.model is not None:
        return case.model, case.inputs
    weight = case.tensors["weight"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": case.tensors["bias"]})
    return nn.Sequential(linear).eval(), (case.tensors["x"],)


def sqnr_db(result: Tensor, exact: Tensor) -> float:
    """Return 10 log10(signal / error power) of ``result`` against ``exact``, same shape."""
    exact = exact.double()
    error = (result.double() - exact).square().sum()
    return float(10 * (exact.square().sum() / error.clamp_min(1e-300)).log10())
