"""What calls do with channels: layers, norms, activations, sums, pools, means and concatenation."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ...graph.net_trace import part_of
from ...graph.trace import argument
from .layers import KINDS
from .walk import Channels, KeptError, Walk, rule


def functions(module: Any, names: str) -> list[Any]:
    """The functions of these names; a torch that lacks one has no calls of it."""
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


def everywhere(names: str) -> list[Any]:
    """The functions of torch and ``torch.nn.functional``, and the methods, of these names."""
    found = [*functions(torch, names), *functions(F, names)]
    return [*dict.fromkeys(found), *(name for name in names.split() if hasattr(Tensor, name))]


_BY_ITSELF = """abs celu clamp clamp_max clamp_min clone cos elu erf exp float half double bfloat16
gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log log1p logsigmoid mish neg negative
nan_to_num pow relu relu6 rsqrt selu sigmoid sign silu sin softplus softshrink softsign sqrt square
tanh tanhshrink threshold to type_as"""
_TOGETHER = """add sub subtract mul multiply div divide true_divide maximum minimum where
expand_as"""
_ACTIVATIONS = """CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh Identity LeakyReLU
LogSigmoid Mish ReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink Threshold
Dropout Dropout1d Dropout2d Dropout3d AlphaDropout"""
_POOLS = "max_pool{0}d avg_pool{0}d adaptive_avg_pool{0}d adaptive_max_pool{0}d lp_pool{0}d"
_POOL_LAYERS = """MaxPool{0}d AvgPool{0}d AdaptiveAvgPool{0}d AdaptiveMaxPool{0}d LPPool{0}d
ZeroPad{0}d ReflectionPad{0}d ReplicationPad{0}d ConstantPad{0}d CircularPad{0}d"""


@rule(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _layer(walk: Walk, node: fx.Node) -> Channels:
    module: Any = part_of(node, walk.model)
    inputs, outputs = walk.slot(module, "in"), walk.slot(module, "out")
    behind: Any = KINDS[type(module)].behind
    dim = len(walk.shape(node)) - 1 - behind
    _meet(walk, node, inputs, dim)
    return Channels(dim, outputs)


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.PReLU)
def _per_channel(walk: Walk, node: fx.Node) -> Channels | None:
    module: Any = part_of(node, walk.model)
    if type(module) is nn.PReLU and module.num_parameters == 1:
        return walk.channels(node.args[0])
    slot = walk.slot(module, "out")
    _meet(walk, node, slot, 1)
    return Channels(1, slot)


def _meet(walk: Walk, node: fx.Node, slot: Any, dim: int) -> None:
    """The layer's side and the channels that reach it are the same, if they lie where it looks."""
    found = walk.channels(node.args[0] if node.args else None)
    if found is not None and found.dim == dim:
        walk.atoms.tie(slot, found.atoms)
        return
    if found is not None:
        reason = f"{walk.name(node)} reads another dimension than that of the channels"
        walk.atoms.keep(found.atoms, reason)
    walk.atoms.keep(slot, f"{walk.name(node)} reads what has a fixed size")


@rule(
    *everywhere(_BY_ITSELF),
    *everywhere(_TOGETHER),
    *functions(nn, _ACTIVATIONS),
    *functions(operator, "add sub mul truediv pow neg"),
    F.dropout,
    F.dropout2d,
)
def _elementwise(walk: Walk, node: fx.Node) -> Channels | None:
    """Operands broadcast; of those that are as wide as the result, channels are tied in pairs."""
    inputs = [one for one in node.all_input_nodes if one in walk.shapes]
    found = [(one, walk.channels(one)) for one in inputs]
    if all(channels is None for _, channels in found):
        return None
    shape = walk.shape(node)
    dims = {
        len(shape) - len(walk.shapes[one]) + channels.dim
        for one, channels in found
        if channels is not None
    }
    if len(dims) > 1:
        raise KeptError(f"{walk.name(node)} meets channels in different dimensions")
    (dim,) = dims
    wide, fixed = [], False
    for one, channels in found:
        own = dim - len(shape) + len(walk.shapes[one])
        size = walk.shapes[one][own] if own >= 0 else 1
        if channels is not None and size == shape[dim]:
            wide.append(channels.atoms)
        elif channels is not None:
            walk.atoms.keep(channels.atoms, f"{walk.name(node)} spreads it over other channels")
        elif size == shape[dim] and size > 1:
            fixed = True
    if not wide:
        return None
    for other in wide[1:]:
        walk.atoms.tie(wide[0], other)
    if fixed:
        walk.atoms.keep(wide[0], f"{walk.name(node)} meets a tensor of a fixed size")
    return Channels(dim, wide[0])


def _pool(spatial: int) -> None:
    names = _POOLS.format(spatial)
    layers = functions(nn, _POOL_LAYERS.format(spatial))
    calls = dict.fromkeys([*functions(F, names), *functions(torch, names)])

    @rule(*calls, *layers)
    def _(walk: Walk, node: fx.Node) -> Channels | None:
        return _behind(walk, node, spatial)


for _spatial in (1, 2, 3):
    _pool(_spatial)


@rule(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate)
def _resized(walk: Walk, node: fx.Node) -> Channels | None:
    return _behind(walk, node, len(walk.shape(node)) - 2)


@rule(F.pad)
def _padded(walk: Walk, node: fx.Node) -> Channels | None:
    pads = argument(node, 1, "pad", None)
    if not isinstance(pads, (tuple, list)):
        raise KeptError("pad has sizes that are not written in the model")
    return _behind(walk, node, len(pads) // 2)


def _behind(walk: Walk, node: fx.Node, spatial: int) -> Channels | None:
    """A call that mixes the last ``spatial`` dimensions and leaves those before them."""
    source = node.args[0] if node.args else None
    found = walk.channels(source)
    if found is None:
        return None
    if found.dim >= len(walk.shape(source)) - spatial:
        raise KeptError(f"{walk.name(node)} mixes them")
    if len(walk.shape(node)) != len(walk.shape(source)):
        raise KeptError(f"{walk.name(node)} has another number of dimensions behind it")
    return found


@rule(*everywhere("mean sum amax amin"))
def _reduced(walk: Walk, node: fx.Node) -> Channels | None:
    found = walk.channels(node.args[0] if node.args else None)
    if found is None:
        return None
    before, after = walk.shape(node.args[0]), walk.shape(node)
    dims = argument(node, 1, "dim", None)
    listed = [dims] if isinstance(dims, int) else dims
    if not isinstance(listed, (tuple, list)) or not all(isinstance(d, int) for d in listed):
        raise KeptError(f"{walk.name(node)} is over all of them")
    gone = {d % len(before) for d in listed}
    if found.dim in gone or not gone:
        raise KeptError(f"{walk.name(node)} is over all of them")
    kept = len(before) == len(after)
    return Channels(found.dim - (0 if kept else sum(d < found.dim for d in gone)), found.atoms)


@rule(nn.Softmax, nn.LogSoftmax, *everywhere("softmax log_softmax"))
def _softmax(walk: Walk, node: fx.Node) -> Channels | None:
    found = walk.channels(node.args[0] if node.args else None)
    if found is None:
        return None
    module: Any = part_of(node, walk.model)
    dim = argument(node, 1, "dim", None) if module is None else module.dim
    if not isinstance(dim, int) or dim % len(walk.shape(node)) == found.dim:
        raise KeptError(f"{walk.name(node)} is over all of them")
    return found


@rule(*functions(torch, "cat concat concatenate"))
def _concatenated(walk: Walk, node: fx.Node) -> Channels | None:
    parts: Any = argument(node, 0, "tensors", ())
    dim = argument(node, 1, "dim", node.kwargs.get("axis", 0))
    if not isinstance(parts, (tuple, list)):
        raise KeptError("cat takes a list that is not written in the model")
    found = [walk.channels(one) for one in parts]
    if all(one is None for one in found):
        return None
    shape = walk.shape(node)
    dims = {one.dim for one in found if one is not None}
    if len(dims) > 1 or not isinstance(dim, int):
        raise KeptError("cat meets channels in different dimensions")
    (own,) = dims
    if own == dim % len(shape):
        every = [_atoms(walk, p, c, own) for p, c in zip(parts, found, strict=True)]
        return Channels(own, np.concatenate(every))
    wide = [one.atoms for one in found if one is not None]
    for other in wide[1:]:
        walk.atoms.tie(wide[0], other)
    if len(wide) < len(found):
        walk.atoms.keep(wide[0], "cat meets a tensor of a fixed size")
    return Channels(own, wide[0])


def _atoms(walk: Walk, part: Any, channels: Channels | None, dim: int) -> Any:
    if channels is not None:
        return channels.atoms
    fixed = walk.atoms.new(walk.shape(part)[dim])
    walk.atoms.keep(fixed, f"{walk.name(part)} has a fixed size")
    return fixed
