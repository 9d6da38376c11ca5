"""``quantize``: int8 and int4 Linear layers, no data needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ..graph import fuse_layers
from ..nn.containers import disable_fast_paths
from ..nn.registry import STATIC, replacements
from ..ops.checks import FLOATS, floats
from .convert import convert
from .copying import copy_model, freeze
from .measure import Measured, arguments_of, run_example
from .observers import OBSERVERS
from .plan import Candidate, apply_break_even, complaints, keep_ties, make_plan
from .progress import bar
from .scheme import Scheme, make_scheme
from .select import Patterns
from .static.run import quantize_static

logger = logging.getLogger("pyops")


def quantize(
    model: nn.Module,
    *,
    calibration: Iterable[Any] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    observer: str = "mse",
    weights: str | None = None,
    group_size: int | None = None,
    symmetric: bool | None = None,
    dtype: torch.dtype | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    strict: bool = False,
    example_inputs: Any = None,
    never_slower: bool | None = None,
    fuse: bool = True,
    inplace: bool = False,
    progress: bool = False,
) -> nn.Module:
    """Replaces ``nn.Linear`` (and transformers' ``Conv1D``) by int8 or int4 layers.

    By default weights become symmetric int8 with a scale per output channel, and activations are
    quantized row by row when the layer runs (the scheme of ZeroQuant, Yao et al. 2022,
    arXiv:2206.01861). With ``weights`` only the weights are quantized, which pays where one row, or
    few, pass the model at a time (decoding). The result is for inference: it is in eval mode and
    its parameters require no grad. ``pyops.explain`` says what was replaced and why the rest was
    not.

    Args:
        model: any ``nn.Module`` with float32, bfloat16 or float16 weights. It is not changed: the
            result's other parameters are new objects over the same storage (so changing a value in
            place shows in both) and its buffers are copies.
        calibration: batches, read once and held until the end: tensors, tuples or lists of
            positional arguments, or dicts of keywords. With them, convolutions and Linears become
            static int8: norms, activations and sums run inside them and 8-bit codes between them,
            each tensor with the scale and zero point that the batches show. A model that
            ``torch.fx`` can trace runs as one graph for calls with these arguments; of any other,
            each layer quantizes its own input. Equalization of layers and correction of biases
            are used where the model's output on the batches is better with them.
        forward: ``forward(model, batch)`` calls the model with a batch of any other kind.
        observer: how a tensor's range is found: "min_max", "moving_average", "percentile",
            "entropy" or "mse" (``pyops.quantize.observers``).
        weights: None: dynamic int8. "int8": ``pyops.nn.WeightOnlyInt8Linear``. "int4":
            ``pyops.nn.Int4Linear``.
        group_size: with "int4", how many values along K share a scale: 32, 64 or 128 (default).
        symmetric: with "int4", no zero points (default), or with False a zero point per group.
        dtype: what everything around the converted layers becomes, and so the values between them:
            float32, bfloat16 or float16. As after ``model.to(dtype)``, float inputs must then be of
            it, and float buffers, such as a table of rotary angles, are rounded to it. Those of
            ``example_inputs`` are converted. None: the model's own.
        include: convert only what these match: one or several names, globs or types. A container
            stands for everything in it. A layer that is named here is converted at any size.
        exclude: leave what these match in float.
        strict: raise if a layer that has a replacement and is not excluded stays in float.
        example_inputs: a tensor, a tuple of positional arguments or a dict of keywords. The model
            runs on them once, which measures each layer's error (``sqnr_db``). With ``fuse``, a
            model that fuses better as a whole is captured for calls like this one.
        never_slower: time each layer in float and converted at the shapes of ``example_inputs`` and
            keep the faster. Default: on when ``example_inputs`` is given. Off, or for a layer the
            run does not reach: layers too small to win at any batch size stay in float.
        fuse: run layers, norms, activations, residual sums and gates that follow one another, and
            layers that read one tensor, in one call. A module whose forward can be traced
            (``pyops.graph``) gets a rewritten one; classes, parts and names stay.
        inplace: convert ``model`` itself and free each float weight as it goes.
        progress: show a progress bar on stderr.

    Returns:
        The converted copy, or ``model`` with ``inplace=True``.

    Raises:
        TypeError: not an ``nn.Module``; a scripted, compiled or wrapped (DDP) one; one that cannot
            be copied; ``dtype`` is another one.
        ValueError: an unknown value of ``weights``, ``group_size`` or ``symmetric``, or one that
            does not go with ``weights``; nothing to replace; a layer is converted already; a
            pattern matches nothing; ``strict`` is violated (every layer and reason is listed);
            ``never_slower`` without ``example_inputs``; the model fails on ``example_inputs``;
            ``calibration`` is empty, or leads to NaN or Inf in a layer (which is named).
    """
    scheme = make_scheme(weights, group_size, symmetric)
    check_model(model, inplace, "quantize")
    if calibration is not None:
        options = (weights, dtype, example_inputs, never_slower)
        _check_static(options, observer)
        scheme = Scheme(STATIC, {})
        plan = make_plan(model, scheme, include, exclude)
        _check_plan(model, plan, scheme, strict)
        return quantize_static(
            model, plan, calibration, forward, observer, inplace, partial(bar, progress)
        )
    if forward is not None:
        raise ValueError("forward= says how to run calibration batches: it needs calibration=")
    if dtype is not None:
        floats("quantize", "dtype", dtype)
    if never_slower and example_inputs is None:
        raise ValueError("never_slower=True needs example_inputs to time the layers at")
    timed = example_inputs is not None and never_slower is not False
    plan = make_plan(model, scheme, include, exclude)
    if not timed:
        apply_break_even(plan, scheme)
        keep_ties(model, plan)
    _check_plan(model, plan, scheme, strict)
    target = model if inplace else copy_model(model)
    measured: dict[str, Measured] = {}
    example = None if example_inputs is None else _example(example_inputs, dtype)
    if example is not None:
        probe = target if dtype is None else copy_model(target).to(dtype)
        with bar(progress, "measuring", len(plan)) as advance:
            measured = run_example(probe, plan, scheme, *example, timed, advance)
        del probe
    if timed:
        _keep_faster(model, plan, scheme, measured, strict)
    chosen = sum(candidate.why_float is None for candidate in plan)
    with bar(progress, "packing", chosen) as advance:
        target = convert(target, plan, scheme, measured, advance)
    if dtype is not None:
        target.to(dtype)
    disable_fast_paths(target)
    freeze(target)
    if fuse:
        fuse_layers(target, example)
    return target


def _check_static(options: tuple[Any, ...], observer: str) -> None:
    names = ("weights", "dtype", "example_inputs", "never_slower")
    for name, value in zip(names, options, strict=True):
        if value is not None:
            raise ValueError(f"quantize: {name}={value!r} does not go with calibration=")
    if observer not in OBSERVERS:
        known = ", ".join(map(repr, sorted(OBSERVERS)))
        raise ValueError(f"quantize: observer is {observer!r}, expected one of {known}")


def _example(
    example_inputs: Any, dtype: torch.dtype | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments to measure and to capture the model with."""

    def convert(value: Any) -> Any:
        is_float = isinstance(value, torch.Tensor) and value.dtype in FLOATS
        return value.to(dtype) if is_float else value

    arguments = arguments_of(example_inputs)
    return arguments if dtype is None else tree_map(convert, arguments)


def check_model(model: nn.Module, inplace: bool, workflow: str) -> None:
    """Whether a workflow can convert such a model.

    Raises:
        TypeError: not an ``nn.Module``; a scripted, compiled or wrapped one.
        ValueError: ``inplace`` and the model itself would become another object.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{workflow} takes an nn.Module, but got {type(model).__name__}")
    for name, module in model.named_modules():
        what = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"{what} is a ScriptModule: {workflow} the Python model it came from")
        if (
            type(module).__name__ == "OptimizedModule"
            or getattr(module, "_compiled_call_impl", None) is not None
        ):
            raise TypeError(f"{what} is compiled already: {workflow} first, then torch.compile")
        if isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            raise TypeError(f"{what} is a wrapper: {workflow} its .module")
    if inplace and replacements(model):
        raise ValueError(
            f"inplace=True cannot turn the {type(model).__name__} itself into another object: "
            "use the returned copy (inplace=False)"
        )


def _check_plan(model: nn.Module, plan: list[Candidate], scheme: Scheme, strict: bool) -> None:
    if not any(candidate.why_float is None for candidate in plan):
        raise ValueError(_nothing(model, plan, scheme))
    left = complaints(plan)
    if strict and left:
        raise ValueError(
            f"strict=True and {len(left)} layer(s) would stay in float:\n  " + "\n  ".join(left)
        )


def _nothing(model: nn.Module, plan: list[Candidate], scheme: Scheme) -> str:
    text = f"quantize: nothing to replace in {type(model).__name__}: "
    if not plan:
        return (
            text
            + f"it holds no layer that has an {scheme.label} replacement"
            + (
                " (nn.Conv1d, nn.Conv2d, nn.Linear)"
                if scheme.weights == STATIC
                else " (nn.Linear, Conv1D)"
            )
        )
    lines = [f"{c.name or '(the model)'}: {c.why_float}" for c in plan]
    more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
    return text + "\n  ".join(["every layer stays in float:", *lines[:10], *more])


def _keep_faster(
    model: nn.Module,
    plan: list[Candidate],
    scheme: Scheme,
    measured: dict[str, Measured],
    strict: bool,
) -> None:
    """The faster for what was timed, float or converted; for the rest, the size rule."""
    untimed = []
    for candidate in plan:
        result = measured.get(candidate.name)
        total = result.total_ms() if result else None
        if result is None or total is None:
            untimed.append(candidate)
        elif total[1] > total[0]:
            candidate.why_float = (
                f"float is faster here: {total[0]:.3g} ms, {scheme.label} {total[1]:.3g} ms, "
                f"input {result.shapes()}"
            )
    apply_break_even(untimed, scheme)
    keep_ties(model, plan)
    if strict or len(untimed) == len(plan):
        _check_plan(model, plan, scheme, strict)
    elif not any(candidate.why_float is None for candidate in plan):
        # The answer to what was asked, so a result; but it must not be a silent one.
        logger.warning(
            "quantize: %s is slower for every layer of %s at these inputs; all stay in float",
            scheme.label,
            type(model).__name__,
        )
