"""What criteria have to know about a model's data: layer inputs, or gradients of a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..quantize.copying import evaluating
from ..quantize.static.batches import Call
from .criteria import Criterion
from .inputs import columns_of
from .layers import Weight
from .matrix import matrix_of
from .ranks import largest_over_ranks, sum_over_ranks

Loss = Callable[[nn.Module, Any], Tensor]


def inputs_seen(
    model: nn.Module,
    weights: Sequence[Weight],
    criterion: Criterion,
    calls: Sequence[Call],
    advance: Callable[[], None],
) -> list[Tensor | None]:
    """What ``criterion.collect`` makes of each weight's inputs; None where no call reaches it.

    On several processes the sum over all of them.

    Raises:
        ValueError: an input holds NaN or Inf.
    """
    sums: list[Tensor | None] = [None] * len(weights)

    def watch(index: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            for columns in columns_of(layer, x.detach().to(dtype)):
                sums[index] = criterion.collect(columns, sums[index])

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(index), with_kwargs=True)
        for index, weight in enumerate(weights)
        for layer in weight.layers.values()
    ]
    try:
        with evaluating(model):
            for args, kwargs in calls:
                model(*args, **kwargs)
                advance()
    finally:
        for handle in handles:
            handle.remove()
    _complete(sums, weights, criterion)
    for found, weight in zip(sums, weights, strict=True):
        if found is not None and not bool(torch.isfinite(found).all()):
            raise ValueError(f"prune: the input of {weight.name!r} holds NaN or Inf")
    return sums


def _complete(sums: list[Tensor | None], weights: Sequence[Weight], criterion: Criterion) -> None:
    """Sums over processes. A layer that only others reached has zeros here."""
    device = weights[0].parameter.device
    reached = largest_over_ranks([int(one is not None) for one in sums], device)
    for index, weight in enumerate(weights):
        if reached[index] and sums[index] is None:
            matrix = matrix_of(weight.parameter.detach())
            dtype = torch.promote_types(matrix.dtype, torch.float32)
            none = matrix.new_zeros((weight.groups, matrix.shape[1], 0), dtype=dtype)
            sums[index] = criterion.collect(none, None)
    sum_over_ranks([one for one in sums if one is not None])


def gradients_seen(
    model: nn.Module,
    weights: Sequence[Weight],
    batches: Iterable[Any],
    loss: Loss,
    advance: Callable[[], None],
) -> list[Tensor | None]:
    """The gradient of the summed loss by each weight, ``[OC, K]``; None where it has none.

    ``.grad`` and ``requires_grad`` of the parameters stay as they are. On several processes the sum
    over all of them.

    Raises:
        TypeError: the loss is no tensor.
        ValueError: it has more than one value or depends on no weight; there is no batch; a
            gradient is NaN or infinite.
    """
    parameters = [weight.parameter for weight in weights]
    before = [parameter.requires_grad for parameter in parameters]
    sums: list[Tensor | None] = [None] * len(weights)
    count = 0
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            for count, batch in enumerate(batches, 1):  # noqa: B007
                value = _checked(loss(model, batch))
                found = torch.autograd.grad(value, parameters, allow_unused=True)
                for index, gradient in enumerate(found):
                    if gradient is not None:
                        matrix = matrix_of(gradient).float()
                        old = sums[index]
                        sums[index] = matrix if old is None else old + matrix
                advance()
    finally:
        for parameter, value_before in zip(parameters, before, strict=True):
            parameter.requires_grad_(value_before)
    if not count:
        raise ValueError("prune: calibration holds no batch")
    reached = largest_over_ranks([int(one is not None) for one in sums], parameters[0].device)
    for index, parameter in enumerate(parameters):
        if reached[index] and sums[index] is None:
            sums[index] = torch.zeros_like(matrix_of(parameter.detach()), dtype=torch.float32)
    sum_over_ranks([one for one in sums if one is not None])
    for one, weight in zip(sums, weights, strict=True):
        if one is not None and not bool(torch.isfinite(one).all()):
            raise ValueError(f"prune: the gradient of {weight.name!r} holds NaN or Inf")
    return sums


def _checked(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"prune: loss returned a {type(value).__name__}, expected a Tensor")
    if value.numel() != 1:
        raise ValueError(f"prune: loss returned {list(value.shape)}, expected a single value")
    if not value.requires_grad:
        raise ValueError("prune: loss returned a value that depends on no weight")
    return value
