"""``Pruner``: weights removed step by step while a model trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.masked_module import MaskedModule
from ..quantize.quantize import check_model
from ..quantize.select import Patterns
from .layers import (
    Weight,
    check_plan,
    finite,
    make_plan,
    mask_layers,
    prunable,
    same_layers,
    weights_of,
)
from .masks import apply_masks, check_before, check_changeable, choose_masks, leave_small
from .options import Options, make_options
from .pruner_state import check_layers, check_values, digest, told
from .schedule import CubicSchedule, Schedule


class Pruner:
    """Raises the sparsity of a model in a training loop of the caller's, on a schedule.

    Works in place: layers of ``model`` become masked ones (see ``prune``) when the pruner is made,
    over the same parameters, so an optimizer made before or after works. ``step`` is called once
    after each ``optimizer.step()``. A weight that is gone stays gone: of a model that is pruned
    already, weights go from the step on whose sparsity is above what it has.

        pruner = pyops.prune.Pruner(
            model, 0.9, schedule=pyops.prune.CubicSchedule(0, 1000, every=50), optimizer=optimizer
        )
        for images, labels in batches:
            ...
            optimizer.step()
            pruner.step()

    With ``DistributedDataParallel`` make it of the module on every process, before or after that is
    wrapped; the first process decides on the masks of all. Use ``torch.compile`` after it is made:
    masks are buffers that change in place, so nothing is compiled again.
    ``swa_utils.AveragedModel`` copies them at each update; ``use_buffers=True`` would average them.

    Parameters may be replaced while it lives (``model.load_state_dict(assign=True)``): without
    ``optimizer`` it goes on with the new ones, with it ``step`` wants them in that.

    Args:
        model: any ``nn.Module``; it is changed.
        sparsity: the share of weights to remove in the end. None: 0.9, or what the pattern says.
        pattern, scope, include, exclude, strict, generator: as for ``prune``. N:M patterns go from
            M:M to N:M one by one.
        criterion: one that needs no data: "l1", "l2" or "random".
        schedule: which step has which sparsity.
        optimizer: its state of the removed weights (momenta and squares: every tensor of the
            weight's shape) is set to 0 with them. Without it a momentum from before goes on
            writing to removed weights, which ``step`` sets back to 0.

    Raises:
        TypeError: as ``prune``; ``optimizer`` is none.
        ValueError: as ``prune``; a criterion that needs data; ``optimizer`` holds none of the
            weights; the schedule starts above ``sparsity``; the model lacks more already, or is a
            single layer itself.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float | None = None,
        *,
        schedule: Schedule,
        pattern: str = "unstructured",
        criterion: str = "l1",
        scope: str = "layer",
        optimizer: torch.optim.Optimizer | None = None,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        strict: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        options = make_options(sparsity, None, pattern, criterion, scope, generator, "Pruner")
        if options.criterion.data:
            raise ValueError(
                f"Pruner: criterion {criterion!r} needs calibration data: use pyops.prune"
            )
        for method in ("due", "sparsity", "done"):
            if not callable(getattr(schedule, method, None)):
                given = type(schedule).__name__
                raise TypeError(f"Pruner: schedule is a {given}, which has no {method}()")
        if isinstance(schedule, CubicSchedule) and schedule.initial > options.sparsity:
            raise ValueError(
                f"Pruner: the schedule starts with a sparsity of {schedule.initial}, expected at "
                f"most the final {options.sparsity:g}"
            )
        check_model(model, False, "Pruner")
        plan = make_plan(model, include, exclude)
        leave_small(model, plan, options)
        check_plan(model, plan, strict, "Pruner")
        if prunable(model) and not isinstance(model, MaskedModule):
            raise ValueError(
                f"Pruner: the model is a {type(model).__name__} itself, which cannot become a "
                "masked layer in place: put it into an nn.Sequential"
            )
        check_before(model, plan, options, "Pruner")
        check_changeable(model, plan, "Pruner")
        weights = weights_of(model, plan)
        held = _check_optimizer(optimizer, weights)
        with torch.inference_mode(False):
            mask_layers(model, plan, options.label)
        self.model = model
        self.schedule = schedule
        self.optimizer = optimizer
        self.steps = 0
        self._share = 0.0  # what the schedule said last
        self._options: Options = options
        self._layers = [weight.layers for weight in weights_of(model, plan)]
        self._held = [id(weight.parameter) in held for weight in weights]

    @property
    def final(self) -> float:
        """The share of weights that is gone in the end."""
        return self._options.sparsity

    @property
    def sparsity(self) -> float:
        """The share of the weights of all its layers that is gone now."""
        masks = self._masks(self._weights())
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    @property
    def done(self) -> bool:
        """Whether masks change no more."""
        return self.schedule.done(self.steps)

    @torch.inference_mode(False)
    @torch.no_grad()
    def step(self) -> bool:
        """After each step of the optimizer: removes what is due. Returns whether masks changed.

        They do not between the schedule's steps, nor where its share rounds to what is gone.

        Raises:
            ValueError: the schedule says a share outside 0 to the final one, or less than before; a
                weight is NaN or infinite when masks are due; a layer of the model is no longer the
                masked one, or its weight no longer tied, or no longer in the optimizer (the layer
                is named). Nothing is changed.
        """
        weights = self._weights()
        self._check_held(weights)
        changed = bool(self.schedule.due(self.steps + 1)) and self._remove(weights)
        self.steps += 1
        self._zero(weights)
        return changed

    def _weights(self) -> list[Weight]:
        return same_layers(self.model, self._layers, "Pruner")

    def _masks(self, weights: Sequence[Weight]) -> list[Tensor]:
        return [weight.layers[weight.name].weight_mask for weight in weights]

    def _check_held(self, weights: Sequence[Weight]) -> None:
        if self.optimizer is None:
            return
        held = _held_by(self.optimizer)
        for weight, before in zip(weights, self._held, strict=True):
            if before and id(weight.parameter) not in held:
                raise ValueError(
                    f"Pruner: the weight of {weight.name!r} is another Parameter than the "
                    "optimizer holds: it was replaced (load_state_dict(assign=True), .to()); make "
                    "optimizer and pruner of the model as it is now"
                )

    def _remove(self, weights: Sequence[Weight]) -> bool:
        share = self.schedule.sparsity(self.steps + 1, self.final)
        said = f"Pruner: the schedule says a sparsity of {share} at step {self.steps + 1}"
        if not 0 <= share <= self.final + 1e-9:
            raise ValueError(f"{said}, expected at least 0 and at most the final {self.final:g}")
        if share < self._share:
            raise ValueError(f"{said} after {self._share}: what is gone cannot come back")
        for weight, mask in zip(weights, self._masks(weights), strict=True):
            if not finite(torch.where(mask, weight.parameter, 0)):  # what is gone becomes 0
                raise ValueError(f"Pruner: the weight of {weight.name!r} holds NaN or Inf")
        before = [mask.clone() for mask in self._masks(weights)]
        found = choose_masks(weights, [None] * len(weights), self._options, share)
        apply_masks(weights, found)
        self._share = share
        after = self._masks(weights)
        return not all(torch.equal(*pair) for pair in zip(before, after, strict=True))

    def _zero(self, weights: Sequence[Weight]) -> None:
        for weight, mask in zip(weights, self._masks(weights), strict=True):
            parameter, gone = weight.parameter, ~mask
            parameter.masked_fill_(gone, 0)
            state = {} if self.optimizer is None else self.optimizer.state.get(parameter, {})
            for value in state.values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(gone, 0)

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` takes; ``torch.load`` needs no pickle for it.

        Masks are in the model's own, here are their counts and hashes. Without a ``generator``
        criterion "random" draws from torch's own, whose state is the caller's to keep.
        """
        generator = self._options.criterion.generator
        return {
            **self._config(),
            "steps": self.steps,
            "share": self._share,
            "generator": None if generator is None else generator.get_state(),
            "left": {name: int(mask.sum()) for name, mask in self._named_masks().items()},
            "masks": {name: digest(mask) for name, mask in self._named_masks().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where another pruner of the same arguments stood.

        Raises:
            TypeError: not a dict, or a value in it of another type.
            ValueError: a key is missing, or a value differs from that of this pruner (of the
                schedule: its class and what it was made of); or the model's masks are not those of
                that time: its own ``load_state_dict`` comes first. Nothing is changed.
        """
        check_values(state, self.state_dict(), self._config())
        check_layers(state, self._named_masks())
        generator = self._options.criterion.generator
        if generator is not None:
            generator.set_state(state["generator"].cpu())
        self.steps, self._share = state["steps"], float(state["share"])

    def _config(self) -> dict[str, Any]:
        options = self._options
        return {
            "sparsity": options.sparsity,
            "pattern": options.pattern.name,
            "criterion": options.criterion.name,
            "scope": options.scope,
            "schedule": told(self.schedule),
        }

    def _named_masks(self) -> dict[str, Tensor]:
        return {
            name: layer.weight_mask
            for weight in self._weights()
            for name, layer in weight.layers.items()
        }


def _held_by(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _check_optimizer(optimizer: Any, weights: list[Weight]) -> set[int]:
    """The parameters that it holds."""
    if optimizer is None:
        return set()
    if not isinstance(optimizer, torch.optim.Optimizer):
        given = type(optimizer).__name__
        raise TypeError(f"Pruner: optimizer is a {given}, expected a torch.optim.Optimizer")
    held = _held_by(optimizer)
    if not any(id(weight.parameter) in held for weight in weights):
        raise ValueError(
            f"Pruner: optimizer holds none of the {len(weights)} weights to prune: make it of this "
            "model's parameters"
        )
    return held
