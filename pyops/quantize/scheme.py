"""What ``quantize`` turns float layers into: ``weights=`` and the options that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..nn.packed_base import PackedBase
from ..nn.packed_module import PackedModule
from ..nn.registry import layers, replacement, schemes
from ..ops.weight_only_packing import GROUP_SIZES


@dataclass(frozen=True)
class Scheme:
    """``options``: keywords for the layers' ``from_float``, checked."""

    weights: str | None
    options: dict[str, Any]

    @property
    def label(self) -> str:
        """What reasons call it: "int8", "weight-only int8", "int4"."""
        return layers(self.weights)[0].weights

    def replacement(self, module: nn.Module) -> type[PackedModule] | None:
        """The class that exactly ``type(module)`` becomes."""
        return replacement(module, self.weights)

    def build(self, module: nn.Module, packed: PackedBase | None = None) -> PackedModule:
        """The replacement of a layer that has one; ``packed``: its weight, packed before."""
        cls = self.replacement(module)
        assert cls is not None
        return cls.from_float(module, packed, **self.options)


def make_scheme(weights: str | None, group_size: int | None, symmetric: bool | None) -> Scheme:
    """The scheme that the keywords ask for.

    Raises:
        ValueError: an unknown value, or an option that layers for ``weights`` do not take.
    """
    known = schemes()
    if not isinstance(weights, str | None) or weights not in known:
        raise ValueError(
            f"quantize: weights is {weights!r}, expected one of {', '.join(map(repr, known))}"
        )
    given = {"group_size": group_size, "symmetric": symmetric}
    options = {name: value for name, value in given.items() if value is not None}
    takes = {name for layer in layers(weights) for name in layer.options}
    for name, value in options.items():
        if name not in takes:
            of = ", ".join(
                f"weights={other!r}"
                for other in known
                if any(name in layer.options for layer in layers(other))
            )
            raise ValueError(
                f"quantize: {name}={value!r} goes with {of}, but weights is {weights!r}"
            )
    if group_size is not None and (type(group_size) is not int or group_size not in GROUP_SIZES):
        raise ValueError(f"quantize: group_size is {group_size!r}, expected 32, 64 or 128")
    if symmetric is not None and type(symmetric) is not bool:
        raise ValueError(f"quantize: symmetric is {symmetric!r}, expected True or False")
    return Scheme(weights, options)
