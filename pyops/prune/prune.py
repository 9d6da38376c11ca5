"""``prune``: masks for the weights of a model, in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..quantize.copying import copy_model
from ..quantize.progress import bar
from ..quantize.quantize import check_model
from ..quantize.select import Patterns
from ..quantize.static.batches import calls_of
from .calibrate import Loss, gradients_seen, inputs_seen
from .channels import prune_channels
from .layers import Weight, check_plan, make_plan, mask_layers, weights_of
from .masks import (
    apply_masks,
    check_before,
    check_changeable,
    choose_masks,
    leave,
    leave_small,
)
from .options import Options, check_shares, make_options

CHANNEL = "channel"


def prune(
    model: nn.Module,
    sparsity: float | None = None,
    *,
    pattern: str = "unstructured",
    criterion: str = "l1",
    scope: str = "layer",
    retain: float | None = None,
    calibration: Iterable[Any] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    loss: Loss | None = None,
    generator: torch.Generator | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    strict: bool = False,
    example_inputs: Any = None,
    progress: bool = False,
    inplace: bool = False,
) -> nn.Module:
    """Removes weights of ``nn.Linear``, ``nn.Conv2d`` and ``nn.Conv1d``.

    These layers become ``pyops.nn.MaskedLinear``, ``MaskedConv2d`` and ``MaskedConv1d``: float
    layers that can be trained, whose removed weights are 0 and stay so. ``pyops.explain`` says how
    sparse each one is and why others stayed dense. ``pyops.prune.unmask`` makes plain layers of
    them again, ``pyops.prune.Pruner`` prunes step by step in a training loop.

    Depthwise convolutions stay dense unless ``include`` names them, and so do layers with too few
    weights for any to go. Layers with a tied weight have one mask. A masked layer can be pruned
    further: what is gone stays gone and counts, so ``sparsity`` is that of the result. On several
    processes (``torch.distributed``) all have to call this, each with its part of the calibration
    batches; all get the same masks.

    Args:
        model: any ``nn.Module``. It is not changed: the result shares no tensor with it, since it
            may be trained on. Its modules and parameters keep their mode and ``requires_grad``.
        sparsity: the share of weights to remove, above 0 and below 1; exactly that many, rounded to
            whole units of the pattern, but no layer loses its best unit. None: 0.9, or what the
            pattern itself says.
        pattern: "unstructured"; "N:M" (as "2:4": N of every M consecutive inputs of an output
            stay); "N:MxT" (one choice for T consecutive outputs); "block:RxC" (R outputs by C
            inputs); "channel" (whole channels, with all that depends on them, out of layers that
            become smaller: ``pyops.prune.prune_channels``). A convolution's inputs are ordered by
            position in the kernel, then channel (``weight.permute(0, 2, 3, 1)``). Sizes that do
            not divide leave a smaller last group.
        criterion: "l1" (magnitude), "l2", "random", "gradient", "wanda" or "sparsegpt" (which
            changes the weights that stay); see ``pyops.prune.criteria``.
        scope: "layer": each layer loses this share ("wanda": each output of it, but less where
            others lack more already). "global": one threshold for all layers.
        retain: the share of weights to keep, in place of ``sparsity``.
        calibration: batches for "gradient", "wanda" and "sparsegpt": tensors, tuples or lists of
            positional arguments, or dicts of keywords. The model runs on them in eval mode.
        forward: ``forward(model, batch)`` calls the model with a batch of any other kind.
        loss: for "gradient", instead of ``forward``: ``loss(model, batch)`` returns a scalar.
        generator: for "random": where the numbers come from.
        include: prune only what these match: one or several names, globs or types. A container
            stands for everything in it.
        exclude: leave what these match dense.
        strict: raise if a layer that is not excluded stays dense.
        example_inputs: for "channel": what the model runs on; other patterns take none.
        progress: show a progress bar on stderr.
        inplace: prune ``model`` itself.

    Returns:
        The pruned copy, or ``model`` with ``inplace=True``.

    Raises:
        TypeError: not an ``nn.Module``; a scripted, compiled or wrapped (DDP) one; one that cannot
            be copied; an argument of another type.
        ValueError: an unknown pattern, criterion or scope; a share outside (0, 1), both of
            ``sparsity`` and ``retain``, or one that the pattern contradicts; arguments that do not
            go together; nothing to prune; a pattern of ``include`` or ``exclude`` matches nothing;
            ``strict`` is violated; a layer is sparser than that already, or lacks weights that the
            pattern would keep (a part of a block, or more than M - N of M inputs); ``inplace`` and
            weights made in inference mode; calibration is empty or leads to NaN or Inf in a layer
            (which is named).
    """
    if pattern == CHANNEL:
        refused: dict[str, Any] = {"calibration": calibration, "forward": forward, "loss": loss}
        refused |= {"strict": strict or None, "progress": progress or None}
        return _shrink(
            model,
            sparsity,
            retain,
            refused,
            criterion=criterion,
            scope=scope,
            example_inputs=example_inputs,
            include=include,
            exclude=exclude,
            generator=generator,
            inplace=inplace,
        )
    options = make_options(sparsity, retain, pattern, criterion, scope, generator)
    check_model(model, inplace, "prune")
    _check_data(options, calibration, forward, loss)
    if example_inputs is not None:
        raise ValueError(f"prune: pattern {pattern!r} takes no example_inputs=")
    plan = make_plan(model, include, exclude)
    leave_small(model, plan, options)
    check_plan(model, plan, strict, "prune")
    check_before(model, plan, options)
    if inplace:
        check_changeable(model, plan, "prune")
    target = model if inplace else copy_model(model, trainable=True)
    with torch.inference_mode(False):
        weights = weights_of(target, plan)
        seen = _look(target, weights, options, calibration, forward, loss, partial(bar, progress))
        for weight, found in zip(weights, seen, strict=True):
            if options.criterion.data and found is None:
                leave(plan, weight, "calibration does not reach it")
        check_plan(model, plan, strict, "prune")
        check_before(target, plan, options)  # a global share is now of fewer layers
        reached = [
            index
            for index, weight in enumerate(weights)
            if not options.criterion.data or seen[index] is not None
        ]
        weights, seen = [weights[i] for i in reached], [seen[i] for i in reached]
        with bar(progress, "pruning", len(weights)) as advance:
            masks = choose_masks(weights, seen, options, options.sparsity, advance)
        target = mask_layers(target, plan, options.label)
        apply_masks(weights_of(target, plan), masks)
    return target


def _shrink(
    model: nn.Module,
    sparsity: float | None,
    retain: float | None,
    refused: Mapping[str, Any],
    **options: Any,
) -> nn.Module:
    """Pattern "channel", which needs no mask: it makes layers smaller."""
    for keyword, value in refused.items():
        if value is not None:
            raise ValueError(f"prune: pattern {CHANNEL!r} takes no {keyword}=")
    if sparsity is not None and retain is not None:
        raise ValueError("prune: give sparsity or retain, not both")
    check_shares(sparsity, retain, "prune")
    if sparsity is None:
        if retain is None:
            raise ValueError(f"prune: pattern {CHANNEL!r} needs sparsity= or retain=")
        sparsity = 1 - retain
    return prune_channels(model, sparsity, **options)


def _check_data(
    options: Options,
    calibration: Iterable[Any] | None,
    forward: Callable[[nn.Module, Any], Any] | None,
    loss: Loss | None,
) -> None:
    name, data = options.criterion.name, options.criterion.data
    wants = {"calibration": data != "", "loss": data == "loss"}
    for keyword, value in (("calibration", calibration), ("loss", loss), ("forward", forward)):
        if value is None and wants.get(keyword):
            raise ValueError(f"prune: criterion {name!r} needs {keyword}=")
        if value is not None and not wants.get(keyword, data == "inputs"):
            instead = "loss= calls the model" if data == "loss" else f"{name!r} looks at no data"
            raise ValueError(f"prune: {keyword}= does not go with criterion {name!r}: {instead}")
        if keyword != "calibration" and value is not None and not callable(value):
            given = type(value).__name__
            raise TypeError(f"prune: {keyword} is a {given}, expected a function (model, batch)")


def _look(
    model: nn.Module,
    weights: Sequence[Weight],
    options: Options,
    calibration: Iterable[Any] | None,
    forward: Callable[[nn.Module, Any], Any] | None,
    loss: Loss | None,
    bar: Callable[[str, int], AbstractContextManager[Callable[[], None]]],
) -> list[Tensor | None]:
    """What the criterion has to know of each weight; None where it is nothing."""
    if calibration is None:
        return [None] * len(weights)
    if loss is not None:
        if isinstance(calibration, Tensor):
            calls_of(model, calibration, None, "prune")  # its refusal
        batches = list(calibration)
        with bar("calibrating", len(batches)) as advance:
            return gradients_seen(model, weights, batches, loss, advance)
    calls = calls_of(model, calibration, forward, "prune")
    with bar("calibrating", len(calls)) as advance:
        return inputs_seen(model, weights, options.criterion, calls, advance)
