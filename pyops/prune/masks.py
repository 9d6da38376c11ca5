"""From weights to masks, and masks into layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..quantize.plan import Candidate
from .criteria import Work
from .layers import Weight, weights_of, work_matrix
from .matrix import matrix_of, weight_of
from .options import Options
from .ranks import from_first_rank

Found = tuple[Tensor, Tensor | None]


def work_of(weight: Weight, seen: Tensor | None = None) -> Work:
    """What a criterion gets."""
    left = weight.left()
    matrix = work_matrix(weight.parameter)
    if left is not None:
        left = matrix_of(left)
        matrix.masked_fill_(~left, 0)  # whatever an optimizer wrote there counts as 0
    return Work(weight.name, matrix, weight.groups, left, seen)


def choose_masks(
    weights: Sequence[Weight],
    seen: Sequence[Tensor | None],
    options: Options,
    sparsity: float,
    advance: Callable[[], None] = lambda: None,
) -> list[Found]:
    """(mask, new weight or None) of each weight, in its shape; those of the first process."""
    criterion, pattern = options.criterion, options.pattern
    found: list[Found] = []
    if options.scope == "global":
        works = [work_of(*pair) for pair in zip(weights, seen, strict=True)]
        found = criterion.choose(works, pattern, sparsity)
        advance()
    else:
        for pair in zip(weights, seen, strict=True):
            found += criterion.choose([work_of(*pair)], pattern, sparsity)
            advance()
    shaped = []
    for (mask, new), weight in zip(found, weights, strict=True):
        like = weight.parameter.detach()
        (mask,) = from_first_rank([mask])
        if new is not None:
            (new,) = from_first_rank([new])
            new = weight_of(new, like).to(like.dtype)
        shaped.append((weight_of(mask, like), new))
    return shaped


@torch.no_grad()
def apply_masks(weights: Sequence[Weight], found: Sequence[Found]) -> None:
    """Sets the masks of masked layers, and new values of their weights."""
    for weight, (mask, new) in zip(weights, found, strict=True):
        if new is not None:
            weight.parameter.copy_(new)
        for layer in weight.layers.values():
            layer.set_mask(mask)


def leave_small(model: nn.Module, plan: list[Candidate], options: Options) -> None:
    """Layers in which nothing would go stay dense."""
    if options.scope == "global":
        return
    pattern, share = options.pattern, options.sparsity
    for weight in weights_of(model, plan):
        shape = matrix_of(weight.parameter.detach()).shape
        if not pattern.removes([shape], share, options.criterion.by_row):
            why = f"too small: {shape[0]} x {shape[1]} weights, and of {share:.3g} of the units of "
            leave(plan, weight, f"{why}{pattern.name!r} none would go")


def leave(plan: list[Candidate], weight: Weight, why: str) -> None:
    """Every layer with this weight stays dense."""
    for candidate in plan:
        if candidate.name in weight.layers:
            candidate.why_float = why


def check_before(
    model: nn.Module, plan: list[Candidate], options: Options, workflow: str = "prune"
) -> None:
    """Raises:
    ValueError: a layer (with scope "global" the model) lacks more than is asked for already, or
        other weights than the pattern can leave out.
    """
    pattern, weights = options.pattern, weights_of(model, plan)
    gone = []
    for weight in weights:
        left = weight.left()
        gone.append(0 if left is None else pattern.gone(matrix_of(left)))
        conflict = None if left is None else pattern.conflict(matrix_of(left))
        if conflict is not None:
            raise ValueError(f"{workflow}: {weight.name!r} {conflict}: {_NO_WAY_BACK}")
    shapes = [matrix_of(weight.parameter.detach()).shape for weight in weights]
    if options.scope == "global":
        parts = [(f"the {type(model).__name__}", sum(gone), shapes)]
    else:
        names = [repr(weight.name) for weight in weights]
        parts = [(name, g, [shape]) for name, g, shape in zip(names, gone, shapes, strict=True)]
    for what, lacks, own in parts:
        allowed = pattern.removes(own, options.sparsity, options.criterion.by_row)
        if lacks > allowed:
            raise ValueError(
                f"{workflow}: {what} lacks {lacks} units of pattern {pattern.name!r} already, and "
                f"sparsity={options.sparsity:g} is {allowed}: {_NO_WAY_BACK}"
            )


_NO_WAY_BACK = (
    "what is gone cannot come back (pyops.prune.unmask makes ordinary weights of it that are 0)"
)


def check_changeable(model: nn.Module, plan: list[Candidate], workflow: str) -> None:
    """Raises:
    ValueError: a weight to be changed in place was made in inference mode.
    """
    for weight in weights_of(model, plan):
        if weight.parameter.is_inference():
            raise ValueError(
                f"{workflow}: the weight of {weight.name!r} was made in torch.inference_mode() and "
                "cannot be changed in place: clone it outside of that mode"
            )
