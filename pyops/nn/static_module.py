"""What layers with a scale for their input share: it is a number that calibration found."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .packed_base import PackedBase
from .packed_module import PackedModule

_NUMBERS = ("input_scale", "input_zero_point")


class StaticModule(PackedModule):
    """Base of the layers that take codes: uint8 with one scale and zero point for a tensor.

    A graph gives them codes and takes codes. Called as a module, a layer quantizes its float input
    with ``input_scale`` and ``input_zero_point`` and returns floats.
    """

    is_layer = True  # for pyops.graph

    def __init__(
        self,
        packed: PackedBase,
        bias: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        transposed: bool = False,
        input_scale: float = 1.0,
        input_zero_point: int = 0,
    ) -> None:
        super().__init__(packed, bias, dtype=dtype, transposed=transposed)
        self.input_scale = float(input_scale)
        self.input_zero_point = int(input_zero_point)
        if not 0 < self.input_scale < float("inf") or not 0 <= self.input_zero_point <= 255:
            raise ValueError(
                f"{type(self).__name__}: input scale {input_scale} and zero point "
                f"{input_zero_point}, expected a positive number and 0 to 255"
            )

    def options_of(self) -> dict[str, Any]:
        """The numbers of its input."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def codes_of(self, x: Tensor) -> Tensor:
        """The codes of a float input; refuses train mode and gradients."""
        self.output_dtype(x)
        at = (self.input_scale, self.input_zero_point)
        codes: Tensor = torch.ops.pyops.int8_quantize.default(x, *at, 4)
        return codes

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "input_scale"] = torch.tensor(self.input_scale)
        destination[prefix + "input_zero_point"] = torch.tensor(self.input_zero_point)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name in _NUMBERS:  # a graph holds them too, so they are compared and not taken
            given = state_dict.get(prefix + name)
            if given is None:
                missing_keys.append(prefix + name)
            elif float(given) != getattr(self, name):
                error_msgs.append(
                    f"{prefix}{name} is {float(given):.9g}, but this layer was calibrated to "
                    f"{getattr(self, name):.9g}: load such a model with pyops.load"
                )
        rest = {k: v for k, v in state_dict.items() if k not in {prefix + n for n in _NUMBERS}}
        arguments = (prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(rest, *arguments)
        for name in _NUMBERS:
            if prefix + name in unexpected_keys:
                unexpected_keys.remove(prefix + name)
