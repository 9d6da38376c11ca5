"""``sparsify``: pruned models on sparse kernels, layer by layer where they are the faster ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .fuse import convert
from .prune.layers import masked_layers
from .prune.unmask import unmask
from .quantize.measure import arguments_of
from .quantize.quantize import check_model, quantize
from .quantize.select import Patterns
from .sparse_choice import hold_sparse


def sparsify(
    model: nn.Module,
    *,
    dtype: torch.dtype | str | None = None,
    calibration: Iterable[Any] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    strict: bool = False,
    example_inputs: Any = None,
    never_slower: bool | None = None,
) -> nn.Module:
    """Runs a pruned model on kernels that hold and multiply only what is not zero.

    As ``pyops.fuse``, of a model whose masked layers (``pyops.prune``) are plain ones again: batch
    norms are folded, what follows a layer runs in its call, and each ``nn.Conv2d``, ``nn.Conv1d``
    and ``nn.Linear`` gets the kernels that are faster for its zeros: timed on ``example_inputs``,
    else by an estimate from its share of zeros, its pattern and its shape
    (``pyops.ops.sparse_cost``). ``pyops.explain`` says which and why, and of layers left dense how
    many zeros they have and from how many on sparse kernels are estimated to be faster. Any pattern
    is taken as it is. What is not multiplied does not spread: an infinity or NaN in a layer's input
    reaches the outputs that have an entry for it, and maybe others.

    Args:
        model: any ``nn.Module``, pruned by ``pyops.prune`` or otherwise. It is not changed.
        dtype: float32 or bfloat16: what weights and values between layers become. None: the
            model's own. "int8": ``pyops.quantize``, and sparse kernels where they are faster than
            dense int8 ones; the same numbers come out of either. Without ``calibration`` each layer
            runs by itself (``quantize(fuse=False)``), which may cost more than zeros save.
        calibration, forward: as for ``pyops.quantize``; for "int8" alone.
        include, exclude, strict, example_inputs: as for ``pyops.fuse``, or ``pyops.quantize``; with
            ``calibration`` they serve ``never_slower`` alone.
        never_slower: time each layer that might be the faster one sparse both ways, in turn, on
            what it sees in a run on ``example_inputs``, and keep the faster (``explain`` shows both
            times). Default: on when ``example_inputs`` is given. Off, or for a layer the run does
            not reach: the estimate decides. Without ``calibration``, "int8" is timed against float
            as in ``pyops.quantize``.

    Returns:
        A converted copy, for inference.

    Raises:
        TypeError, ValueError: as ``pyops.fuse``, or ``pyops.quantize``; ``never_slower=True``
            without ``example_inputs``.
    """
    check_model(model, False, "sparsify")
    if never_slower and example_inputs is None:
        raise ValueError("sparsify: never_slower=True needs example_inputs to time the layers at")
    codes = dtype in ("int8", torch.int8)
    if isinstance(dtype, str) and not codes:
        raise ValueError(f"sparsify: dtype must be a float dtype or 'int8', but is {dtype!r}")
    for name, value in (("calibration", calibration), ("forward", forward)):
        if value is not None and not codes:
            raise ValueError(f"sparsify: {name}= goes with dtype='int8', but dtype is {dtype}")
    plain = unmask(model) if list(masked_layers(model)) else model
    options: dict[str, Any] = {"include": include, "exclude": exclude, "strict": strict}
    timed = example_inputs is not None and never_slower is not False
    if not codes:
        assert not isinstance(dtype, str)
        options["example_inputs"] = example_inputs
        with _own_errors("fuse"):
            return convert(plain, dtype=dtype, algorithm="sparse", timed=timed, **options)
    arguments = None if example_inputs is None else arguments_of(example_inputs)
    if calibration is None:  # with it, quantize takes neither
        options |= {"example_inputs": example_inputs, "never_slower": never_slower}
    with _own_errors("quantize"):
        # Calls that hold several layers quantized row by row take dense weights alone.
        joined = calibration is not None
        made = quantize(plain, calibration=calibration, forward=forward, fuse=joined, **options)
    return hold_sparse(made, plain, arguments if timed else None)


@contextmanager
def _own_errors(inner: str) -> Iterator[None]:
    """Errors of a workflow that this one calls, in its own name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        if not text.startswith(f"{inner}: "):
            raise
        raise type(error)(f"sparsify: {text.removeprefix(f'{inner}: ')}") from error
