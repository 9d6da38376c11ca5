"""Multiply-accumulates of a model's layers, before and after channels leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ...quantize.measure import run
from ...quantize.static.batches import Call
from .layers import count_of, depthwise


class Macs:
    """What each ``nn.Linear`` and convolution multiplies in one call of the model, by its path.

    Output values times the weights that each of them takes (transposed: input values). Products
    without a layer, as those of attention, are not counted: they stay as they are.
    """

    def __init__(self, model: nn.Module, call: Call, workflow: str) -> None:
        self._model = model
        self.layers: dict[str, int] = {}
        handles = []
        for path, module in model.named_modules():
            if isinstance(module, (nn.Linear, _ConvNd)):
                hook = self._counter(path)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
        try:
            run(model, call, workflow)
        finally:
            for handle in handles:
                handle.remove()

    @property
    def total(self) -> int:
        """Of all layers."""
        return sum(self.layers.values())

    def after(self, kept: Mapping[str, Mapping[str, Tensor]]) -> dict[str, int]:
        """Of each layer, where it keeps these channels of its sides."""
        layers = self.layers.items()
        return {path: self._layer(path, count, kept.get(path, {})) for path, count in layers}

    def report(self, kept: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """``{"before": total, "after": total, "layers": {path: [before, after]}}``."""
        after = self.after(kept)
        layers = {path: [count, after[path]] for path, count in self.layers.items()}
        return {"before": self.total, "after": sum(after.values()), "layers": layers}

    def _layer(self, path: str, count: int, kept: Mapping[str, Tensor]) -> int:
        layer = self._model.get_submodule(path)
        for axis, positions in kept.items():
            if not (axis == "in" and depthwise(layer)):  # a filter of it has one input
                count = count * len(positions) // count_of(layer, axis)
        return count

    def _counter(self, path: str) -> Any:
        def count(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            values = output
            if isinstance(layer, _ConvTransposeNd):
                values = args[0] if args else kwargs["input"]
            macs = values.numel() * layer.weight[0].numel()
            self.layers[path] = self.layers.get(path, 0) + macs

        return count
