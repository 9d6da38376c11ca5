"""Which float layer is replaced by which layer of ours, and why a layer is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from .masked_module import MaskedModule

if TYPE_CHECKING:
    from .packed_module import PackedModule

STATIC = "static"  # what calibration leads to; no value of ``weights``
FUSED = "fused"  # what fuse leads to; none either
_DIMS = {"torch.nn.modules.conv.Conv1d": 3, "torch.nn.modules.conv.Conv2d": 4}
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

# By what `weights` asks for, None being dynamic int8; then by the float class's qualified name.
_replacements: dict[str | None, dict[str, type[PackedModule]]] = {}
_Layer = TypeVar("_Layer", bound="type[PackedModule]")


def replaces(
    *sources: type[nn.Module] | str, weights: str | None = None
) -> Callable[[_Layer], _Layer]:
    """Registers the decorated layer class as the replacement of exactly these classes.

    A string is a qualified class name, for a class whose package we do not want to import.
    ``weights``: the value of ``quantize(weights=)`` that it is for; None is dynamic int8.
    """

    def register(layer: _Layer) -> _Layer:
        table = _replacements.setdefault(weights, {})
        for source in sources:
            table[source if isinstance(source, str) else _qualified(source)] = layer
        return layer

    return register


def schemes() -> tuple[str | None, ...]:
    """The values of ``weights`` that there are layers for."""
    return None, *sorted(
        weights for weights in _replacements if weights not in (None, STATIC, FUSED)
    )


def layers(weights: str | None) -> tuple[type[PackedModule], ...]:
    """The layer classes for one value of ``weights``."""
    return tuple(_replacements.get(weights, {}).values())


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module runs more than its forward."""
    return any(getattr(module, hooks, None) for hooks in _HOOKS)


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def replacement(module: nn.Module, weights: str | None = None) -> type[PackedModule] | None:
    """The class registered for exactly ``type(module)``."""
    return _replacements.get(weights, {}).get(_qualified(type(module)))


def replacements(module: nn.Module) -> tuple[type[PackedModule], ...]:
    """The classes registered for exactly ``type(module)``, for any ``weights``."""
    found = (replacement(module, weights) for weights in _replacements)
    return tuple(cls for cls in found if cls is not None)


def replacement_name(name: str) -> type[PackedModule] | None:
    """The registered layer class of that name, for reading files."""
    classes = (cls for table in _replacements.values() for cls in table.values())
    return next((cls for cls in classes if cls.__name__ == name), None)


def matches(module: nn.Module) -> bool:
    """Whether the module is of a registered class or a subclass of one: explain shows it."""
    return any(map(_registered, type(module).__mro__))


def matches_for(module: nn.Module, weights: str | None) -> bool:
    """The same for the layers of one value of ``weights``."""
    table = _replacements.get(weights, {})
    return any(_qualified(cls) in table for cls in type(module).__mro__)


def _registered(cls: type) -> bool:
    return any(_qualified(cls) in table for table in _replacements.values())


def why_not(module: nn.Module) -> str | None:
    """Why a layer that ``matches`` cannot be replaced; None where it can be.

    Looks at the layer alone; what its surroundings do with its weight is the caller's part.
    """
    if isinstance(module, MaskedModule):
        return "its weight is masked: pyops.prune.unmask(model) bakes the mask in"
    return why_not_plain(module) or _why_not_kernel(module)


def why_not_plain(module: nn.Module) -> str | None:
    """Why a layer is not simply one of torch's, with its own weight and forward."""
    cls = type(module)
    if any(p is not None and nn.parameter.is_lazy(p) for p in module._parameters.values()):
        return "its weight is not initialized: run the float model once"
    if parametrize.is_parametrized(module):
        return "has a parametrization"
    if has_hooks(module):
        return "has hooks, which a replacement would lose"
    if not _registered(cls):
        base = next(filter(_registered, cls.__mro__))
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
    if weight is None:
        return "its weight is not a Parameter"
    if type(weight) is not nn.Parameter or type(weight.data) is not torch.Tensor:
        return f"its weight is a {type(weight).__name__}, not a plain Parameter"
    return None


def _why_not_kernel(module: nn.Module) -> str | None:
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return f"padding_mode is {module.padding_mode!r}: kernels pad with zeros"
    weight: nn.Parameter = module.weight  # type: ignore[assignment]
    dims = _DIMS.get(_qualified(type(module)), 2)
    if weight.dtype not in _FLOATS:
        return f"weight is {str(weight.dtype).removeprefix('torch.')}, not float32, bf16 or fp16"
    if weight.device.type == "meta":
        return "weight is on the meta device: there are no values to quantize"
    if weight.dim() != dims or weight.numel() == 0:
        return f"weight is {list(weight.shape)}: nothing to multiply"
    return None


def why_not_depth(in_features: int, layer: type[PackedModule] | None) -> str | None:
    """The limit on K of the class that would replace a layer."""
    if layer is None or layer.max_in_features is None or in_features <= layer.max_in_features:
        return None
    return (
        f"in_features is {in_features}, more than {layer.max_in_features} "
        "(int32 sums could overflow)"
    )
