"""What every layer with a packed weight shares: state_dict, moves and casts, inference only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from .packed_base import Config, PackedBase, keep_dtype

if TYPE_CHECKING:
    from typing_extensions import Self


class PackedModule(nn.Module):
    """Base of the int8 and int4 layers. ``state_dict`` holds the plain tensors of the packed weight
    (``PackedBase.parts``: ``weight``, ``weight_scale`` ...) and the layer's buffers; loading
    repacks. Casts (``.half()``, ``.to(dtype)``) change only the dtype that ``weight`` reports:
    scales and bias stay fp32.
    """

    weights: ClassVar[str]  # what reports call them
    weight_class: ClassVar[type[PackedBase]]
    max_in_features: ClassVar[int | None] = None
    options: ClassVar[tuple[str, ...]] = ()  # keywords of from_float, from those of quantize
    workflow: ClassVar[str] = "quantize"  # what makes such layers
    packed: PackedBase
    bias: Tensor | None

    def __init__(
        self,
        packed: PackedBase,
        bias: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.packed = packed
        self.dtype = dtype
        self.transposed = transposed
        self.training = False
        with torch.inference_mode(False):
            kept = None if bias is None else bias.detach().to(torch.float32, copy=True)
        self.register_buffer("bias", kept)

    @classmethod
    def from_float(cls, layer: nn.Module, packed: PackedBase | None = None, **options: Any) -> Self:
        """Converts a float layer; ``packed`` is given where its weight was packed before."""
        raise NotImplementedError

    @classmethod
    def part_shapes(
        cls, shape: Sequence[int], transposed: bool, config: Config
    ) -> dict[str, list[int]]:
        """The shapes of the packed weight's parts, for a float weight of this shape."""
        n, k = reversed(shape) if transposed else shape
        return cls.weight_class.shapes(n, k, config)

    @classmethod
    def rebuild(
        cls, like: nn.Module, packed: PackedBase, bias: Tensor | None, **options: Any
    ) -> Self:
        """The layer that replaces ``like`` with a weight and bias that were saved."""
        return cls(packed, bias, **options)

    def options_of(self) -> dict[str, Any]:
        """Keywords of the constructor beyond those that every layer has, as JSON."""
        return {}

    @property
    def op(self) -> str:
        """Whose kernel runs; explain shows it."""
        return self.weight_class.op

    @property
    def weight(self) -> Tensor:
        """A dequantized copy in the float layer's dtype, for code that only reads it."""
        weight = self.packed.dequantize(self.dtype)
        return weight.t().contiguous() if self.transposed else weight

    @property
    def weight_scale(self) -> Tensor:
        """fp32: one scale per output channel [N], or per group [N, groups]."""
        return self.packed.parts()["weight_scale"]

    def output_dtype(self, x: Tensor) -> torch.dtype:
        """The input's dtype, or autocast's where that is on.

        Raises RuntimeError in train mode and on an input that would need a gradient.
        """
        if self.training:
            raise RuntimeError(
                f"{type(self).__name__} is for inference but it is in train mode: "
                f"call model.eval(), or train the float model and {self.workflow} it afterwards"
            )
        self.refuse_grad(x)
        device = x.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return x.dtype

    def refuse_grad(self, x: Tensor) -> None:
        """Raises RuntimeError on an input that would need a gradient."""
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{type(self).__name__} has no gradient but its input requires grad: run under "
                "torch.inference_mode() or torch.no_grad(), or detach the input"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.packed.apply_(fn)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.packed.device)).dtype
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = keep_dtype(fn, buffer)
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for name, part in self.packed.parts().items():
            destination[prefix + name] = part
        super()._save_to_state_dict(destination, prefix, keep_vars)

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
        shapes = self.packed.own_shapes()
        keys = [prefix + name for name in shapes]
        rest = {key: value for key, value in state_dict.items() if key not in keys}
        for name, buffer in self._buffers.items():  # assign=True would take over another dtype
            if buffer is not None and isinstance(rest.get(prefix + name), Tensor):
                rest[prefix + name] = rest[prefix + name].to(buffer.dtype)
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        absent = [key for key in keys if key not in state_dict]
        if strict:
            missing_keys.extend(absent)
        if not absent:
            parts = {name: state_dict[prefix + name] for name in shapes}
            self._load_packed(parts, shapes["weight"], prefix, error_msgs)
        elif len(absent) < len(keys):  # an error even where strict=False allows missing keys
            names = " and ".join(shapes)
            error_msgs.append(f"{absent[0]} is missing: {names} belong together")

    def _load_packed(
        self, parts: Mapping[str, Tensor], expected: list[int], prefix: str, error_msgs: list[str]
    ) -> None:
        weight = parts["weight"]
        if list(weight.shape) != expected:
            error_msgs.append(
                f"size mismatch for {prefix}weight: the file has {list(weight.shape)}, "
                f"the layer expects {expected}"
            )
            return
        device = self.packed.device if self.packed.device.type != "meta" else weight.device
        try:
            self.packed.assign_parts({name: part.to(device) for name, part in parts.items()})
        except ValueError as error:
            error_msgs.append(f"{prefix}weight: {error}")
