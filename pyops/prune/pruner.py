"""``Pruner``: weights removed step by step while a model trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..quantize.quantize import check_model
from ..quantize.select import Patterns
from .layers import Weight, check_plan, finite, make_plan, mask_layers, weights_of
from .masks import apply_masks, choose_masks, leave_small
from .options import Options, make_options
from .schedule import Schedule


class Pruner:
    """Raises the sparsity of a model in a training loop of the caller's, on a schedule.

    Works in place: layers of ``model`` become masked ones (see ``prune``) when the pruner is made,
    over the same parameters, so an optimizer made before or after works. ``step`` is called once
    after each ``optimizer.step()``. A weight that is gone stays gone.

        pruner = pyops.prune.Pruner(
            model, 0.9, schedule=pyops.prune.CubicSchedule(0, 1000, every=50), optimizer=optimizer
        )
        for images, labels in batches:
            ...
            optimizer.step()
            pruner.step()

    With ``DistributedDataParallel`` make it of the module on every process, before or after that is
    wrapped; the first process decides on the masks of all.

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
            weights.
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
        check_model(model, True, "Pruner")
        plan = make_plan(model, include, exclude)
        leave_small(model, plan, options)
        check_plan(model, plan, strict, "Pruner")
        _check_optimizer(optimizer, weights_of(model, plan))
        mask_layers(model, plan, options.label)
        self.model = model
        self.schedule = schedule
        self.optimizer = optimizer
        self.steps = 0
        self._options: Options = options
        self._weights = weights_of(model, plan)

    @property
    def final(self) -> float:
        """The share of weights that is gone in the end."""
        return self._options.sparsity

    @property
    def sparsity(self) -> float:
        """The share of the weights of all its layers that is gone now."""
        masks = [next(iter(one.layers.values())).weight_mask for one in self._weights]
        left = sum(int(mask.sum()) for mask in masks)
        return 1 - left / sum(mask.numel() for mask in masks)

    @property
    def done(self) -> bool:
        """Whether masks change no more."""
        return self.schedule.done(self.steps)

    @torch.no_grad()
    def step(self) -> bool:
        """After each step of the optimizer: removes what is due. Returns whether masks changed.

        Raises:
            ValueError: a weight is NaN or infinite when masks are due (its layer is named; nothing
                is changed), or the schedule says a share outside [0, 1).
        """
        due = self.schedule.due(self.steps + 1)
        if due:
            self._remove(self.schedule.sparsity(self.steps + 1, self.final))
        self.steps += 1
        self._zero()
        return due

    def _remove(self, sparsity: float) -> None:
        if not 0 <= sparsity < 1:
            raise ValueError(
                f"Pruner: the schedule says a sparsity of {sparsity} at step {self.steps + 1}, "
                "expected at least 0 and below 1"
            )
        for weight in self._weights:
            if not finite(weight.parameter):
                raise ValueError(f"Pruner: the weight of {weight.name!r} holds NaN or Inf")
        nothing = [None] * len(self._weights)
        apply_masks(self._weights, choose_masks(self._weights, nothing, self._options, sparsity))

    def _zero(self) -> None:
        for weight in self._weights:
            parameter = weight.parameter
            gone = ~next(iter(weight.layers.values())).weight_mask
            parameter.masked_fill_(gone, 0)
            state = {} if self.optimizer is None else self.optimizer.state.get(parameter, {})
            for value in state.values():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(gone, 0)

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` takes. Masks are in the model's own."""
        generator = self._options.criterion.generator
        return {
            **self._config(),
            "steps": self.steps,
            "generator": None if generator is None else generator.get_state(),
            "left": self._left(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where another pruner of the same arguments stood.

        Raises:
            ValueError: a key is missing, or a value differs from that of this pruner; or the
                model's masks are not those of that time: its own ``load_state_dict`` comes first.
        """
        mine = self._config()
        missing = sorted({*mine, "steps", "generator", "left"} - {*state})
        if missing:
            raise ValueError(f"Pruner: the state has no {missing[0]!r}")
        for name, value in mine.items():
            if state[name] != value:
                raise ValueError(
                    f"Pruner: {name} is {state[name]!r} in the state, but {value!r} here"
                )
        for name, left in self._left().items():
            if state["left"].get(name) != left:
                raise ValueError(
                    f"Pruner: {name!r} has {left} weights left, but {state['left'].get(name)} in "
                    "the state: load the model's state_dict first"
                )
        generator = self._options.criterion.generator
        if (generator is None) != (state["generator"] is None):
            raise ValueError("Pruner: the state and this pruner differ in having a generator")
        if generator is not None:
            generator.set_state(state["generator"])
        self.steps = int(state["steps"])

    def _config(self) -> dict[str, Any]:
        options = self._options
        return {
            "sparsity": options.sparsity,
            "pattern": options.pattern.name,
            "criterion": options.criterion.name,
            "scope": options.scope,
        }

    def _left(self) -> dict[str, int]:
        return {
            name: int(layer.weight_mask.sum())
            for weight in self._weights
            for name, layer in weight.layers.items()
        }


def _check_optimizer(optimizer: Any, weights: list[Weight]) -> None:
    if optimizer is None:
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        given = type(optimizer).__name__
        raise TypeError(f"Pruner: optimizer is a {given}, expected a torch.optim.Optimizer")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(weight.parameter) in held for weight in weights):
        raise ValueError(
            f"Pruner: optimizer holds none of the {len(weights)} weights to prune: make it of this "
            "model's parameters"
        )
