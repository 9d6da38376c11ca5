"""What calls do with channels that give a tensor another shape, or read its shape."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ...graph import calls
from ...graph.net_trace import part_of
from ...graph.trace import argument
from .walk import Channels, Count, KeptError, Sizes, Value, Walk, rule


@rule(nn.Flatten, torch.flatten, "flatten")
def _flattened(walk: Walk, node: fx.Node) -> Channels | None:
    """Each channel becomes a run of as many items as the flattened dimensions behind it hold."""
    found = walk.channels(node.args[0])
    if found is None:
        return None
    shape = walk.shape(node.args[0])
    module: Any = part_of(node, walk.model)
    if module is None:
        start, end = argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1)
    else:
        start, end = module.start_dim, module.end_dim
    if not isinstance(start, int) or not isinstance(end, int):
        raise KeptError("flatten has dimensions that are not written in the model")
    start, end = start % len(shape), end % len(shape)
    if found.dim < start:
        return found
    if found.dim > end:
        return Channels(found.dim - (end - start), found.atoms)
    if start == 0 and prod(shape[: found.dim]) > 1:
        raise KeptError("flatten puts them into one dimension with the batch")
    runs = np.repeat(found.atoms, prod(shape[found.dim + 1 : end + 1]))
    return Channels(start, np.tile(runs, prod(shape[start : found.dim])))


@rule("view", "reshape", torch.reshape, reads_sizes=True)
def _viewed(walk: Walk, node: fx.Node) -> Channels | None:
    """The channels' dimension may take in those behind it, if its size is -1 or their number."""
    found = walk.channels(node.args[0])
    given: Any = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = tuple(given[0])
    counts = {i: walk.values.get(one) for i, one in enumerate(given) if isinstance(one, fx.Node)}
    if found is None:
        if any(one is not None for one in counts.values()):
            raise KeptError(f"{walk.name(node)} computes with their number")
        return None
    before, after = walk.shape(node.args[0]), walk.shape(node)
    if len(given) != len(after):
        raise KeptError(f"{walk.name(node)} has sizes that are not written in the model")
    dim = _place(before, after, found)
    if dim is None:
        raise KeptError(f"{walk.name(node)} splits or mixes them")
    run = after[dim] // len(found.atoms)
    number = counts.pop(dim, None)
    if any(one is not None for one in counts.values()):
        raise KeptError(f"{walk.name(node)} computes with their number")
    if isinstance(number, Count) and run == 1 and len(number.atoms) == after[dim]:
        walk.atoms.tie(number.atoms, found.atoms)
    elif given[dim] != -1:
        raise KeptError(f"{walk.name(node)} has the fixed size {after[dim]} where they are")
    return Channels(dim, np.repeat(found.atoms, run))


def _place(before: tuple[int, ...], after: tuple[int, ...], found: Channels) -> int | None:
    """The dimension of a view whose items are whole runs of one channel after the other."""
    ahead, count = prod(before[: found.dim]), len(found.atoms)
    fits = [
        dim
        for dim, size in enumerate(after)
        if prod(after[:dim]) == ahead and size >= count and size % count == 0
    ]
    return fits[-1] if fits else None


@rule("permute", torch.permute)
def _permuted(walk: Walk, node: fx.Node) -> Channels | None:
    found = walk.channels(node.args[0])
    if found is None:
        return None
    order: Any = node.args[1:] or (node.kwargs.get("dims"),)
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = tuple(order[0])
    if not all(isinstance(dim, int) for dim in order):
        raise KeptError("permute has dimensions that are not written in the model")
    order = [dim % len(walk.shape(node)) for dim in order]
    return Channels(order.index(found.dim), found.atoms)


@rule("transpose", torch.transpose)
def _transposed(walk: Walk, node: fx.Node) -> Channels | None:
    found = walk.channels(node.args[0])
    if found is None:
        return None
    swapped = argument(node, 1, "dim0", None), argument(node, 2, "dim1", None)
    if not all(isinstance(dim, int) for dim in swapped):
        raise KeptError("transpose has dimensions that are not written in the model")
    one, other = (dim % len(walk.shape(node)) for dim in swapped)
    return Channels({one: other, other: one}.get(found.dim, found.dim), found.atoms)


@rule("unsqueeze", torch.unsqueeze)
def _unsqueezed(walk: Walk, node: fx.Node) -> Channels | None:
    found = walk.channels(node.args[0])
    dim = argument(node, 1, "dim", None)
    if found is None:
        return None
    if not isinstance(dim, int):
        raise KeptError("unsqueeze has a dimension that is not written in the model")
    new = dim % len(walk.shape(node))
    return Channels(found.dim + (new <= found.dim), found.atoms)


@rule("squeeze", torch.squeeze)
def _squeezed(walk: Walk, node: fx.Node) -> Channels | None:
    found = walk.channels(node.args[0])
    if found is None:
        return None
    shape = walk.shape(node.args[0])
    dims = argument(node, 1, "dim", tuple(range(len(shape))))
    listed = dims if isinstance(dims, (tuple, list)) else (dims,)
    if len(found.atoms) == 1 or not all(isinstance(dim, int) for dim in listed):
        raise KeptError("squeeze may drop their dimension")
    gone = {dim % len(shape) for dim in listed if shape[dim] == 1}
    return Channels(found.dim - sum(dim < found.dim for dim in gone), found.atoms)


@rule(getattr, "size", "dim")
def _size(walk: Walk, node: fx.Node) -> Value:
    """The shape, or one of its items; other attributes, but views, do not depend on channels."""
    found = walk.channels(node.args[0])
    if found is None:
        return None
    if node.target is getattr:
        if node.args[1] == "shape":
            return Sizes(found.dim, found.atoms)
        if node.args[1] in ("ndim", "dtype", "device", "is_cuda"):
            return None
        raise KeptError(f"the model reads their {node.args[1]}")
    dim = argument(node, 1, "dim", None)
    if node.target == "dim":
        return None
    if dim is None:
        return Sizes(found.dim, found.atoms)
    if not isinstance(dim, int):
        raise KeptError("size has a dimension that is not written in the model")
    same = dim % len(walk.shape(node.args[0])) == found.dim
    return Count(found.atoms) if same else None


@rule(calls.unpack, reads_sizes=True)
def _unpacked(walk: Walk, node: fx.Node) -> Value:
    value = walk.values.get(node.args[0])  # type: ignore[arg-type]
    if isinstance(value, Channels):
        raise KeptError("the model takes them apart")
    return value


@rule(operator.getitem, reads_sizes=True)
def _item(walk: Walk, node: fx.Node) -> Value:
    source: Any = node.args[0]
    value, index = walk.values.get(source), node.args[1]
    if any(walk.values.get(one) is not None for one in node.all_input_nodes if one is not source):
        raise KeptError("the model indexes with their number")
    if isinstance(value, Sizes):
        return _item_of_sizes(walk, node, value)
    if not isinstance(value, Channels):
        return None
    items = list(index) if isinstance(index, tuple) else [index]
    known = all(i is None or i is Ellipsis or isinstance(i, (int, slice)) for i in items)
    if not known:
        raise KeptError("the model indexes with a tensor")
    ndim = len(walk.shape(source))
    used = sum(i is not None and i is not Ellipsis for i in items)
    if Ellipsis not in items:
        items.append(Ellipsis)
    at = items.index(Ellipsis)
    items[at : at + 1] = [slice(None)] * (ndim - used)
    before = after = 0
    for item in items:
        if before == value.dim and item is not None:
            if item != slice(None):
                raise KeptError("the model takes some of them")
            return Channels(after, value.atoms)
        before += item is not None
        after += not isinstance(item, int)
    raise AssertionError(f"{items} of {ndim} dimensions")


def _item_of_sizes(walk: Walk, node: fx.Node, value: Sizes) -> Value:
    source: Any = node.args[0]
    index: Any = node.args[1]
    while source not in walk.shapes:  # what the shape is of
        source = source.args[0]
    dims = range(len(walk.shapes[source]))
    if isinstance(index, int):
        return Count(value.atoms) if dims[index] == value.dim else None
    if not isinstance(index, slice) or any(
        isinstance(one, fx.Node) for one in (index.start, index.stop, index.step)
    ):
        raise KeptError("the model indexes their shape")
    found = dims[index]
    return Sizes(found.index(value.dim), value.atoms) if value.dim in found else None
