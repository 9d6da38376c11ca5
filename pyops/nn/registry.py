"""Which float layer is replaced by which int8 layer, and why a layer is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..ops.packing import MAX_K

if TYPE_CHECKING:
    from .packed_module import PackedModule

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

_replacements: dict[str, type[PackedModule]] = {}
_Layer = TypeVar("_Layer", bound="type[PackedModule]")


def replaces(*sources: type[nn.Module] | str) -> Callable[[_Layer], _Layer]:
    """Registers the decorated layer class as the replacement of exactly these classes.

    A string is a qualified class name, for a class whose package we do not want to import.
    """

    def register(layer: _Layer) -> _Layer:
        for source in sources:
            _replacements[source if isinstance(source, str) else _qualified(source)] = layer
        return layer

    return register


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def replacement(module: nn.Module) -> type[PackedModule] | None:
    """The class registered for exactly ``type(module)``."""
    return _replacements.get(_qualified(type(module)))


def replacement_name(name: str) -> type[PackedModule] | None:
    """The registered int8 layer class of that name, for reading files."""
    return next((cls for cls in _replacements.values() if cls.__name__ == name), None)


def matches(module: nn.Module) -> bool:
    """Whether the module is of a registered class or a subclass of one: explain shows it."""
    return any(_qualified(cls) in _replacements for cls in type(module).__mro__)


def why_not(module: nn.Module) -> str | None:
    """Why a layer that ``matches`` cannot be replaced; None where it can be.

    Looks at the layer alone; what its surroundings do with its weight is the caller's part.
    """
    cls = type(module)
    if any(p is not None and nn.parameter.is_lazy(p) for p in module._parameters.values()):
        return "its weight is not initialized: run the float model once"
    if parametrize.is_parametrized(module):
        return "has a parametrization"
    if any(getattr(module, hooks, None) for hooks in _HOOKS):
        return "has hooks, which a replacement would lose"
    if replacement(module) is None:
        base = next(c for c in cls.__mro__ if _qualified(c) in _replacements)
        same = getattr(cls, "forward", None) is getattr(base, "forward", None)
        own = "" if same else "with its own forward "
        return f"{cls.__name__} is a subclass of {base.__name__} {own}(exact types only)"
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    extra = [*module._parameters, *module._buffers, *module._modules]
    extra = [name for name in extra if name not in ("weight", "bias")]
    if extra:
        return f"holds {extra[0]!r} besides weight and bias"
    weight = module._parameters.get("weight")
    return "its weight is not a Parameter" if weight is None else _why_not_weight(weight)


def _why_not_weight(weight: nn.Parameter) -> str | None:
    if type(weight) is not nn.Parameter or type(weight.data) is not torch.Tensor:
        return f"its weight is a {type(weight).__name__}, not a plain Parameter"
    if weight.dtype not in _FLOATS:
        return f"weight is {str(weight.dtype).removeprefix('torch.')}, not float32, bf16 or fp16"
    if weight.device.type == "meta":
        return "weight is on the meta device: there are no values to quantize"
    if weight.dim() != 2 or weight.numel() == 0:
        return f"weight is {list(weight.shape)}: nothing to multiply"
    return None


def why_not_depth(in_features: int) -> str | None:
    """The ops' limit on K."""
    if in_features > MAX_K:
        return f"in_features is {in_features}, more than {MAX_K} (int32 sums could overflow)"
    return None
