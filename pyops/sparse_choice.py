"""Which weights are packed sparse: by timing on an example's inputs, or by the estimate."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .nn.fused_conv2d import algorithm_for
from .nn.packed_module import PackedModule
from .nn.packed_weight import WeightOnlyInt8Weight
from .nn.record import get_record, set_record
from .nn.registry import FUSED, replacement
from .nn.sparse_codes import SparseCodes
from .ops.checks import FLOATS
from .ops.conv_relu_checks import DTYPES
from .ops.sparse_cost import (
    LEAST_ZEROS,
    break_even,
    pays,
    share_of_dense,
    why_dense,
    why_sparse,
    worth_timing,
    zeros_of,
)
from .quantize.copying import copy_model
from .quantize.measure import Measured, Pair, run_pairs
from .quantize.plan import Candidate

logger = logging.getLogger("pyops")
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Choice:
    """How a layer's weight is packed, and why. ``ms``: dense and sparse, where they were timed."""

    algorithm: str
    why: str = ""
    ms: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Estimate:
    """Of one weight; see ``pyops.ops.sparse_cost``."""

    zeros: float
    share: float
    even: float | None

    @property
    def open(self) -> bool:
        """Whether timing might find either one faster."""
        return worth_timing(self.zeros, self.share)

    def decide(self, measured: Iterable[Measured]) -> tuple[bool, str]:
        """Whether it is packed sparse, and why, by the times of the layers that hold it."""
        timed = [(one, total) for one in measured if (total := one.total_ms()) is not None]
        dense_says = why_dense(self.zeros, self.share, self.even)
        if not timed:
            sparse = pays(self.share)
            return sparse, why_sparse(self.share) if sparse else dense_says
        before, after = (sum(total[i] for _, total in timed) for i in (0, 1))
        inputs = ", ".join(dict.fromkeys(one.shapes() for one, _ in timed))
        if after <= before:
            told = f"sparse is faster here: {after:.3g} ms, dense {before:.3g} ms"
            return True, f"{told}, input {inputs}"
        told = f"dense is faster here: {before:.3g} ms, sparse {after:.3g} ms"
        return False, f"{told}, input {inputs}; {dense_says}"


def choose(
    model: nn.Module,
    plan: Sequence[Candidate],
    dtype: torch.dtype | None,
    arguments: Arguments | None,
    workflow: str,
) -> dict[str, Choice]:
    """The choice for each float layer that will be replaced, by name; tied weights have one.

    ``dtype``: what weights become. ``arguments``: what the model runs on to time the layers that
    might be faster sparse; None: the estimate decides.

    Raises:
        ValueError: the model fails on them.
    """
    layers: dict[str, Any] = {
        one.name: model.get_submodule(one.name) for one in plan if one.why_float is None
    }
    dense = {name: algorithm_for(layer, dtype) for name, layer in layers.items()}
    holders: dict[tuple[int, int], list[str]] = {}
    for one in plan:
        if one.name in layers:
            key = (one.weight_key, getattr(layers[one.name], "groups", 1))
            holders.setdefault(key, []).append(one.name)
    estimates = {
        names[0]: estimate(layers[names[0]], [dense[name] for name in names], dtype)
        for names in holders.values()
    }
    measured: dict[str, Measured] = {}
    if arguments is not None:
        pairs = {
            name: _float_pair(dense[name], dtype)
            for names in holders.values()
            for name in names
            if estimates[names[0]].open
        }
        measured = run_pairs(model, pairs, arguments, workflow)
    choices = {}
    for names in holders.values():
        sparse, why = estimates[names[0]].decide(measured[n] for n in names if n in measured)
        for name in names:
            ms = measured[name].total_ms() if name in measured else None
            choices[name] = Choice("sparse" if sparse else dense[name], why, ms or (None, None))
    _warn(model, bool(measured), any(one.algorithm == "sparse" for one in choices.values()))
    return choices


def estimate(
    layer: Any, algorithms: Sequence[str] = ("direct",), dtype: torch.dtype | None = None
) -> Estimate:
    """Of a float layer whose weight becomes ``dtype``; dense it runs by the ``algorithms``."""
    weight: Tensor = layer.weight.detach()
    image = _image(weight)
    groups = getattr(layer, "groups", 1)
    shares = {one: share_of_dense(image, groups, one, dtype) for one in algorithms}
    worst = max(shares, key=shares.__getitem__)
    even = break_even(image.shape, groups, worst, dtype or weight.dtype)
    return Estimate(zeros_of(weight), shares[worst], even)


def _image(weight: Tensor) -> Tensor:
    return weight.reshape(*weight.shape[:2], *[1] * (4 - weight.dim()), *weight.shape[2:])


def _float_pair(dense: str, dtype: torch.dtype | None) -> Pair:
    def pair(layer: nn.Module, x: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
        cls: Any = replacement(layer, FUSED)
        first, second = (
            cls.from_float(layer, dtype=dtype, algorithm=one) for one in (dense, "sparse")
        )
        x = x.to(first.packed.dtype)
        return first, second, x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    return pair


def hold_sparse(made: nn.Module, plain: nn.Module, arguments: Arguments | None) -> nn.Module:
    """Packs int8 weights of ``made`` sparse, in place, and records why, or why not.

    ``plain``: the float model that it was made of, whose layers see the inputs to time at.

    Raises:
        ValueError: that model fails on ``arguments``.
    """
    holders: dict[int, dict[str, PackedModule]] = {}
    for name, layer in made.named_modules():
        packed = layer.packed if isinstance(layer, PackedModule) else None
        if isinstance(packed, SparseCodes) and not isinstance(packed, WeightOnlyInt8Weight):
            assert isinstance(layer, PackedModule)
            holders.setdefault(id(packed), {})[name] = layer
    estimates = {key: _of_codes(next(iter(layers.values()))) for key, layers in holders.items()}
    measured: dict[str, Measured] = {}
    if arguments is not None:
        pairs = {
            name: _codes_pair(layer)
            for key, layers in holders.items()
            for name, layer in layers.items()
            if estimates[key].open
        }
        plain = copy_model(plain, workflow="sparsify")  # it may be the caller's own
        measured = run_pairs(plain, pairs, arguments, "sparsify")
    chosen = []
    for key, layers in holders.items():
        sparse, why = estimates[key].decide(measured[n] for n in layers if n in measured)
        chosen.append(sparse)
        if sparse:
            packed = next(iter(layers.values())).packed
            assert isinstance(packed, SparseCodes)
            packed.hold_sparse()
        for name, layer in layers.items():
            _note(layer, sparse, why, measured.get(name))
    _warn(made, bool(measured), any(chosen))
    return made


def _of_codes(layer: PackedModule) -> Estimate:
    packed: Any = layer.packed
    weight = _image(packed.parts()["weight"])
    even = break_even(weight.shape, packed.groups, dtype=torch.int8)
    return Estimate(packed.zeros(), packed.sparse_share(), even)


def _codes_pair(made: PackedModule) -> Pair:
    def pair(layer: nn.Module, x: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
        other = copy.deepcopy(made)
        packed: Any = other.packed
        packed.hold_sparse()
        return made, other, x

    return pair


def _note(layer: PackedModule, sparse: bool, why: str, measured: Measured | None) -> None:
    """``ms``: float and what runs where ``quantize`` timed the layer, else dense and sparse."""
    record = get_record(layer)
    if record is None:
        return
    record = replace(record, reason=f"{record.reason}; {why}")
    total = None if measured is None else measured.total_ms()
    if total is not None and record.ms_before is None:
        record = replace(record, ms_before=total[0], ms_after=total[1])
    elif total is not None and sparse:
        record = replace(record, ms_after=total[1])
    set_record(layer, record)


def _warn(model: nn.Module, timed: bool, sparse: bool) -> None:
    if timed and not sparse:
        # The answer to what was asked, so a result; but it must not be a silent one.
        logger.warning(
            "sparsify: sparse is slower for every layer of %s at these inputs; all stay dense",
            type(model).__name__,
        )


def zeros_note(layer: nn.Module) -> str:
    """What ``explain`` adds for a float layer with zeros: from how many on sparse kernels pay."""
    weight = layer._parameters.get("weight")
    if replacement(layer, FUSED) is None or not isinstance(weight, Tensor):
        return ""
    if weight.device.type == "meta" or weight.dtype not in DTYPES:
        return ""
    zeros = zeros_of(weight.detach())
    if zeros < LEAST_ZEROS:
        return ""
    return f"; {zeros:.0%} of its weights are 0: {pays_from(layer)}"


def pays_from(layer: Any) -> str:
    """From how many zeros without a pattern on sparse kernels pay for a float layer, in words."""
    weight: Tensor = layer.weight.detach()
    shape, groups = _image(weight).shape, getattr(layer, "groups", 1)
    dtype = weight.dtype if weight.dtype in DTYPES else torch.float32
    name = str(dtype).removeprefix("torch.")
    if dtype != weight.dtype:  # the layer's own type has no float kernels
        name += f" (dtype={dtype})" if weight.dtype in FLOATS else " (of model.float())"
    found: Mapping[str, float | None] = {
        name: break_even(shape, groups, algorithm_for(layer, dtype), dtype),
        "int8": break_even(shape, groups, dtype=torch.int8) if weight.dtype in FLOATS else None,
    }
    told = ", ".join(f"{even:.0%} in {one}" for one, even in found.items() if even is not None)
    return (
        f"sparse kernels (pyops.sparsify) pay from {told}" if told else "sparse kernels never pay"
    )
