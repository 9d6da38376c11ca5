"""``fuse``: float nets on our convolutions and Linears, each with what follows it in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .graph.net_float import FloatForward, FloatPlan
from .graph.net_fold import Folded
from .graph.net_forward import set_not_traced
from .graph.net_inputs import guess_inputs
from .graph.net_sequences import fold_sequences
from .graph.simple_code import CannotTraceError
from .nn.containers import disable_fast_paths
from .nn.fused_conv2d import algorithm_for
from .nn.packed_base import PackedBase
from .nn.record import Record, set_record
from .nn.registry import FUSED, replacement
from .ops.conv_relu_checks import DTYPES
from .quantize.convert import float_bytes, put
from .quantize.copying import copy_model, freeze
from .quantize.measure import arguments_of, run
from .quantize.plan import Candidate, complaints, make_plan
from .quantize.quantize import check_model
from .quantize.scheme import Scheme
from .quantize.select import Patterns
from .quantize.static.batches import tensors_of
from .quantize.static.net import Net, make_net
from .sparse_choice import Choice, choose

FUSE_ALGORITHMS = ("auto", "direct", "sparse")


def fuse(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    strict: bool = False,
    example_inputs: Any = None,
    algorithm: str = "auto",
    inplace: bool = False,
) -> nn.Module:
    """Replaces ``nn.Conv2d``, ``nn.Conv1d`` and ``nn.Linear`` by layers that do what follows too.

    Batch norms are folded into weights, and sums and activations run in the layer's call
    (``pyops.ops.conv_relu``), on channels_last images. A model that ``torch.fx`` can trace runs as
    one graph, whose layers and pools run together (``pyops.ops.run_net``); of any other, each
    layer runs by itself. All else stays torch's. The result is for inference: it is in eval mode
    and its parameters require no grad. ``pyops.explain`` says what was replaced and why the rest
    was not.

    Args:
        model: any ``nn.Module``. It is not changed: the result's other parameters are new objects
            over the same storage and its buffers are copies.
        dtype: float32 or bfloat16: what weights, and values between layers, become; sums stay
            float32. A model that runs as one graph casts its float inputs once and returns results
            in the dtype of the first of them; of any other, inputs must be of ``dtype``. None: the
            model's own.
        include: convert only what these match: one or several names, globs or types. A container
            stands for everything in it.
        exclude: leave what these match to torch.
        strict: raise if a layer that is not excluded stays torch's.
        example_inputs: a tensor, a tuple of positional arguments or a dict of keywords: the tensors
            of the calls that run as one graph. By default noise for a model of one argument, in a
            size that it takes. The model runs on them, to compare its graph with it.
        algorithm: "auto", "direct" or "sparse". Of float32 convolutions with 3 x 3 taps, stride 1,
            dilation 1, one group and at least 32 channels on either side "auto" makes Winograd's
            F(2x2, 3x3): 16 products for every 36, errors of the same size (``pyops.ops.conv_relu``
            states the bounds), 25 / 9 of the memory for the weight. Infinities may become NaN, and
            values above 2**126 may overflow. "sparse": as "auto", but weights with so many zeros
            that it pays are packed sparse (``pyops.ops.sparse_linear``).
        inplace: convert ``model`` itself and free each float weight as it goes.

    Returns:
        The converted copy, or ``model`` with ``inplace=True``.

    Raises:
        TypeError: not an ``nn.Module``; a scripted, compiled or wrapped (DDP) one; one that cannot
            be copied; ``dtype`` is another one.
        ValueError: nothing to replace; a layer is converted already; a pattern matches nothing;
            ``strict`` is violated (every layer and reason is listed); the model fails on
            ``example_inputs``; ``algorithm`` is another one.
    """
    return convert(
        model,
        dtype=dtype,
        include=include,
        exclude=exclude,
        strict=strict,
        example_inputs=example_inputs,
        algorithm=algorithm,
        inplace=inplace,
    )


def convert(
    model: nn.Module,
    *,
    dtype: torch.dtype | None,
    include: Patterns | None,
    exclude: Patterns | None,
    strict: bool,
    example_inputs: Any,
    algorithm: str,
    inplace: bool = False,
    timed: bool = False,
) -> nn.Module:
    """``fuse``; ``timed``: sparse weights where they are faster on ``example_inputs``."""
    check_model(model, inplace, "fuse")
    if algorithm not in FUSE_ALGORITHMS:
        raise ValueError(f"fuse: algorithm must be one of {FUSE_ALGORITHMS}, but is {algorithm!r}")
    if dtype is not None and dtype not in DTYPES:
        raise TypeError(f"fuse: dtype must be torch.float32 or torch.bfloat16, but is {dtype}")
    plan = make_plan(model, Scheme(FUSED, {}), include, exclude)
    _check_plan(model, plan, dtype, strict)
    arguments = None if example_inputs is None else arguments_of(example_inputs)
    choices: dict[str, Choice] = {}
    target = model if inplace else copy_model(model)  # nothing runs on the caller's own
    if algorithm == "sparse":
        choices = choose(target, plan, dtype, arguments if timed else None, "fuse")
    if arguments is not None and not timed:
        run(target, arguments, "fuse")
    freeze(target)
    chosen = {path for candidate in plan if not candidate.why_float for path in candidate.paths}
    inputs: dict[str, Tensor] = {}
    try:
        inputs = _inputs(target, arguments)
        if "" in chosen:
            raise CannotTraceError("it is one layer")
        net = make_net(target, chosen, inputs)
    except CannotTraceError as error:
        return _layer_by_layer(target, plan, dtype, algorithm, choices, inputs, str(error))
    _put_layers(target, plan, net.folded, dtype, algorithm, choices)
    _put_net(target, net, inputs, dtype)
    return target


def _check_plan(
    model: nn.Module, plan: list[Candidate], dtype: torch.dtype | None, strict: bool
) -> None:
    for candidate in plan:
        if candidate.why_float is None and dtype is None:
            own: Any = model.get_submodule(candidate.name).weight
            if own.dtype not in DTYPES:
                candidate.why_float = f"weight is {own.dtype}: give dtype= float32 or bfloat16"
    name = type(model).__name__
    if not plan:
        raise ValueError(f"fuse: nothing to replace in {name}: no Conv1d, Conv2d or Linear")
    left = complaints(plan)
    if all(candidate.why_float for candidate in plan):
        lines = [f"{c.name or '(the model)'}: {c.why_float}" for c in plan][:10]
        more = [f"... and {len(plan) - 10} more"] if len(plan) > 10 else []
        raise ValueError("\n  ".join([f"fuse: nothing to replace in {name}:", *lines, *more]))
    if strict and left:
        raise ValueError(
            f"strict=True and {len(left)} layer(s) would stay torch's:\n  " + "\n  ".join(left)
        )


def _inputs(
    model: nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]] | None
) -> dict[str, Tensor]:
    if arguments is None:
        with torch.random.fork_rng(devices=[]):  # the model may draw numbers, not the caller's
            return guess_inputs(model, copy_model(model).to("meta"))
    tensors = tensors_of(model, arguments)
    if isinstance(tensors, str):
        raise CannotTraceError(tensors)
    return tensors


def _put_layers(
    target: nn.Module,
    plan: list[Candidate],
    folded: Mapping[str, str],
    dtype: torch.dtype | None,
    algorithm: str,
    choices: Mapping[str, Choice],
) -> nn.Module:
    """Puts the layers in, and ``Folded`` in the place of norms; all else becomes ``dtype``."""
    packed: dict[tuple[int, int, str], PackedBase] = {}
    counted: set[int] = set()
    for candidate in plan:
        old: Any = target.get_submodule(candidate.name)
        size = float_bytes(old, without_weight=candidate.weight_key in counted)
        reason = candidate.why_float or "replaced"
        new = old
        ms: tuple[float | None, float | None] = (None, None)
        if candidate.why_float is None:
            counted.add(candidate.weight_key)
            choice = choices.get(candidate.name)
            if choice is None:
                choice = Choice("direct" if algorithm == "direct" else algorithm_for(old, dtype))
            own, ms = choice.algorithm, choice.ms
            reason += f"; {choice.why}" if choice.why else ""
            key = (candidate.weight_key, getattr(old, "groups", 1), own)
            cls: Any = replacement(old, FUSED)
            new = cls.from_float(old, packed.get(key), dtype=dtype, algorithm=own)
            packed[key] = new.packed
            target = put(target, candidate.paths, new)
        record = Record(candidate.class_name, reason, size, ms_before=ms[0], ms_after=ms[1])
        set_record(new, record)
    for norm, layer in folded.items():
        before = type(target.get_submodule(norm)).__name__
        put(target, [norm], Folded(layer, before))
    if dtype is not None:
        target.to(dtype)
    disable_fast_paths(target)
    return freeze(target)


def _put_net(
    target: nn.Module, net: Net, inputs: Mapping[str, Tensor], dtype: torch.dtype | None
) -> None:
    shapes = {name: [list(x.shape), _name(x.dtype)] for name, x in inputs.items()}
    found = FloatPlan(shapes, folded=net.folded, dtype="" if dtype is None else _name(dtype))
    FloatForward.put_float(target, net.graph, net.tensors, net.notes, found)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _layer_by_layer(
    target: nn.Module,
    plan: list[Candidate],
    dtype: torch.dtype | None,
    algorithm: str,
    choices: Mapping[str, Choice],
    inputs: Mapping[str, Tensor],
    why: str,
) -> nn.Module:
    chosen = {c.name for c in plan if c.why_float is None and len(c.paths) == 1}
    folded = fold_sequences(target, chosen, inputs)
    target = _put_layers(target, plan, folded, dtype, algorithm, choices)
    text = f"each layer runs by itself: {why}"
    if dtype is not None:
        text += f"; its inputs must be {_name(dtype)}"
    set_not_traced(target, text)
    return target
