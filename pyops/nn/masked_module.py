"""What pruned layers share: a weight, and beside it a mask of what is left of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..ops.masked_matmul_keep import is_plain, kept_with_grad

if TYPE_CHECKING:
    from typing_extensions import Self

# By the float class, exactly.
MASKED: dict[type[nn.Module], type[MaskedModule]] = {}
# So many weights are masked as bits in less time than by torch.where; a million in a quarter of it.
LEAST_KEPT = 1 << 17
_Layer = TypeVar("_Layer", bound="type[MaskedModule]")


def masks(source: type[nn.Module]) -> Callable[[_Layer], _Layer]:
    """Registers the decorated class as what pruning makes of exactly ``source``."""

    def register(layer: _Layer) -> _Layer:
        layer.float_class = source
        MASKED[source] = layer
        return layer

    return register


class MaskedModule(nn.Module):
    """Base of the pruned layers; each extends the float class whose arguments it takes.

    The parameter ``weight`` can be trained. The buffer ``weight_mask`` (bool, the weight's shape)
    is True where a weight is left. Elsewhere the weight is 0, counts as 0 whatever an optimizer
    writes there, and its gradient is exactly 0, also where the layer's output has infinite ones.
    ``state_dict`` has the keys of the float layer and ``weight_mask``; loading one sets the weights
    that its mask leaves out to 0.
    """

    float_class: ClassVar[type[nn.Module]]
    # What an instance may hold beside what its float layer has.
    _extra: ClassVar[tuple[str, ...]] = ()
    weight: Tensor
    weight_mask: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("weight_mask", torch.ones_like(self.weight, dtype=torch.bool))

    @classmethod
    def from_float(cls, layer: nn.Module, mask: Tensor | None = None) -> Self:
        """A pruned layer over the same parameters as ``layer``, which stays as it is.

        Args:
            layer: of the class that this one extends.
            mask: what is left, bool, of the weight's shape; None: everything. Weights that it
                leaves out become 0, in the parameter that both layers share.

        Raises:
            TypeError: another class, or a mask that is not bool.
            ValueError: a mask of another shape.
        """
        if type(layer) is not cls.float_class:
            raise TypeError(
                f"{cls.__name__}.from_float takes a {cls.float_class.__name__}, but got "
                f"{type(layer).__name__}"
            )
        new = cls.__new__(cls)
        _take(new, layer)
        new.register_buffer("weight_mask", torch.ones_like(new.weight, dtype=torch.bool))
        if mask is not None:
            new.set_mask(mask)
        return new

    def to_float(self) -> nn.Module:
        """The float layer over the same parameters; what the mask leaves out is 0 in them."""
        self.zero_masked()
        new = self.float_class.__new__(self.float_class)
        _take(new, self)
        del new._buffers["weight_mask"]
        for name in self._extra:
            new.__dict__.pop(name, None)
        return new

    @torch.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """Takes the values of ``mask`` and sets the weights that it leaves out to 0.

        Raises:
            TypeError: not a bool tensor.
            ValueError: not of the weight's shape, or weight or mask are of torch.inference_mode,
                outside of which they cannot be written. Nothing has changed then.
        """
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"mask is {given}, expected a torch.bool Tensor")
        if mask.shape != self.weight.shape:
            raise ValueError(
                f"mask is {list(mask.shape)}, but the weight is {list(self.weight.shape)}"
            )
        for name, tensor in (("weight", self.weight), ("weight_mask", self.weight_mask)):
            if tensor.is_inference() and not torch.is_inference_mode_enabled():
                raise ValueError(
                    f"set_mask: {name} was made in torch.inference_mode and is written in it "
                    "alone: call set_mask there, or give the layer a clone made outside of it"
                )
        # The weight first: where it cannot be written, torch raises before the mask is another.
        self.weight.masked_fill_(~mask.to(self.weight.device), 0)
        self.weight_mask.copy_(mask)

    @torch.no_grad()
    def zero_masked(self) -> None:
        """Sets every weight that the mask leaves out to 0."""
        self.weight.masked_fill_(~self.weight_mask, 0)

    def masked_weight(self) -> Tensor:
        """What forward multiplies by. Not a product: 0 times an infinite gradient is NaN."""
        weight, mask = self.weight, self.weight_mask
        if is_plain(weight, mask) and weight.numel() >= LEAST_KEPT and weight.element_size() > 1:
            return kept_with_grad(weight, mask)
        return torch.where(mask, weight, 0.0)

    @property
    def remark(self) -> str:
        """What ``explain`` adds of its kernels; "": nothing."""
        return ""

    @property
    def sparsity(self) -> float:
        """The share of the weights that the mask leaves out."""
        return 1 - int(self.weight_mask.sum()) / self.weight_mask.numel()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        before = self.weight
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if self.weight.is_meta != self.weight_mask.is_meta:
            if self.weight_mask.is_meta:
                self.weight = before
                error_msgs.append(
                    f"{prefix}weight_mask is on the meta device and has no values, but those of "
                    f"{prefix}weight were given: the state has to hold both, or the mask first"
                )
            return  # the weight is still to come, and what it has where the mask is False counts 0
        if self.weight is before:
            self.zero_masked()
        else:  # assigned: its memory is the caller's
            with torch.no_grad():
                self.weight.data = self.masked_weight()


def _take(new: nn.Module, old: nn.Module) -> None:
    """All that ``old`` holds, in dictionaries of its own."""
    for name, value in old.__dict__.items():
        new.__dict__[name] = copy.copy(value) if isinstance(value, (dict, set)) else value
