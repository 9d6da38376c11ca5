"""Which values of a net are codes, and who owns the scale and zero point of each.

A step takes codes if a layer comes before or after it with nothing but such steps between. It makes
codes where somebody takes them, floats otherwise. The owner of an edge is the step that makes its
values; max pooling and moves hand on the edge of what they read, and a step that only a
concatenation reads takes over the concatenation's.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from . import net_steps as steps
from .net_fold import path_of
from .net_steps import NONE
from .net_trace import part_of
from .trace import argument

_COMPUTE = (steps.layer, steps.add, steps.concat, steps.pool, steps.adaptive_pool)
_MOVES = {
    torch.flatten,
    torch.reshape,
    torch.permute,
    torch.transpose,
    torch.squeeze,
    torch.unsqueeze,
    F.pixel_shuffle,
    F.channel_shuffle,
}
_MOVE_METHODS = {"flatten", "permute", "transpose", "squeeze", "unsqueeze"}
_MOVE_MODULES = (nn.Flatten, nn.PixelShuffle, nn.ChannelShuffle)
_SIZE_READERS = {"size", "dim", "numel"}
_CODE_ACTS = ("relu", "clamp")


@dataclass
class Edges:
    """``codes``: nodes that make codes. ``owner``: whose edge a node's codes have.

    ``steps8``: nodes that run on codes. ``names``: of owners, the same in every trace of the model.
    """

    codes: set[fx.Node]
    owner: dict[fx.Node, fx.Node]
    steps8: set[fx.Node]
    names: dict[fx.Node, str]

    @property
    def owners(self) -> list[fx.Node]:
        """Each once, in the order of the graph."""
        return list(dict.fromkeys(self.owner.values()))


def find_edges(graph: fx.Graph, model: nn.Module) -> Edges:
    """For a graph of steps in which every layer has become, or will become, an int8 one."""
    nodes = list(graph.nodes)
    able = {node for node in nodes if _takes_codes(node, model)}
    behind: set[fx.Node] = set()
    for node in nodes:
        if node in able and any(_is_source(one, behind) for one in _values(node)):
            behind.add(node)
    ahead: set[fx.Node] = set()
    for node in reversed(nodes):
        if node in able and any(_is_source(one, ahead) for one in node.users):
            ahead.add(node)
    layers = {node for node in nodes if node.target is steps.layer}
    steps8 = layers | ((behind | ahead) & able)
    codes = _made_as_codes(nodes, steps8)
    steps8 = {node for node in steps8 if node.target in _COMPUTE or node in codes}
    return Edges(codes, _owners(nodes, codes, steps8), steps8, _names(nodes))


def _is_source(node: fx.Node, known: set[fx.Node]) -> bool:
    return node.target is steps.layer or node in known


def _values(node: fx.Node) -> list[fx.Node]:
    """The float tensors that it reads, slopes of activations not among them."""
    return [one for one in node.all_input_nodes if one.op != "get_attr" and one.meta.get("shape")]


def _takes_codes(node: fx.Node, model: nn.Module) -> bool:
    if node.meta.get("shape") is None or not _values(node):  # or an item of a tuple
        return False
    if node.target is steps.add:
        return len(node.meta["shape"]) > 0
    return node.target in _COMPUTE or is_move(node, model) or is_code_activation(node)


def is_code_activation(node: fx.Node) -> bool:
    """A ReLU or a clamp that stands alone: of codes, a clamp too."""
    act: Any = node.args[1] if node.target is steps.activate else NONE
    return act[0] in _CODE_ACTS


def is_move(node: fx.Node, model: nn.Module) -> bool:
    """Whether a call puts values elsewhere and computes none."""
    module = part_of(node, model)
    if module is not None:
        nearest = type(module) is nn.Upsample and module.mode == "nearest"
        return nearest or type(module) in (_MOVE_MODULES) or type(module) is nn.UpsamplingNearest2d
    if node.op == "call_method":
        return node.target in _MOVE_METHODS
    if node.target is F.interpolate:
        return argument(node, 3, "mode", "nearest") == "nearest"
    if node.target is operator.getitem:
        index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
        return all(isinstance(one, (slice, int, type(None), type(...))) for one in index)
    return node.op == "call_function" and node.target in _MOVES


def reads_sizes(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its shape alone."""
    if node.op == "call_method":
        return node.target in _SIZE_READERS
    return node.target is getattr and node.args[1] in ("shape", "ndim")


def _made_as_codes(nodes: list[fx.Node], steps8: set[fx.Node]) -> set[fx.Node]:
    codes: set[fx.Node] = set()
    for node in reversed(nodes):
        if node.meta.get("shape") is None or node.op == "get_attr":
            continue
        if any(u in steps8 and (u.target in _COMPUTE or u in codes) for u in node.users):
            codes.add(node)
    return codes


def _owners(
    nodes: list[fx.Node], codes: set[fx.Node], steps8: set[fx.Node]
) -> dict[fx.Node, fx.Node]:
    owner: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node in codes:
            hands_on = node in steps8 and (node.target not in _COMPUTE or _is_max(node))
            owner[node] = owner[_values(node)[0]] if hands_on else node
    for node in nodes:
        if node.target is steps.concat and node in codes and node in steps8:
            for x in _values(node):
                if owner[x] is x and x in steps8 and len(x.users) == 1:
                    owner = {one: node if at is x else at for one, at in owner.items()}
    return owner


def _is_max(node: fx.Node) -> bool:
    pools = (steps.pool, steps.adaptive_pool)
    return node.target in pools and bool(node.args[1] == steps.MAX)


def _names(nodes: list[fx.Node]) -> dict[fx.Node, str]:
    seen: Counter[str] = Counter()
    names = {}
    for node in nodes:
        if node.op in ("get_attr", "output"):
            continue
        if node.target is steps.layer:
            base = path_of(node)
        elif node.op in ("placeholder", "call_module"):
            base = str(node.target)
        else:
            base = getattr(node.target, "__name__", str(node.target))
        seen[base] += 1
        names[node] = base if seen[base] == 1 else f"{base}#{seen[base]}"
    return names


def islands(graph: fx.Graph, edges: Edges) -> list[list[str]]:
    """Groups of neighbouring steps that run in float between steps on codes."""
    nodes = [n for n in graph.nodes if n.op.startswith("call") and n not in edges.steps8]
    nodes = [n for n in nodes if n.meta.get("shape") is not None]
    after = _reached(nodes, edges.steps8, lambda n: _values(n))
    before = _reached(nodes[::-1], edges.steps8, lambda n: list(n.users))
    groups: list[set[fx.Node]] = []
    for node in (n for n in nodes if n in after and n in before):
        touching = [g for g in groups if any(one in g for one in _values(node))]
        merged = set().union({node}, *touching)
        groups = [g for g in groups if g not in touching] + [merged]
    return [[edges.names[n] for n in nodes if n in group] for group in groups]


def _reached(
    nodes: Iterable[fx.Node],
    sources: set[fx.Node],
    neighbours: Callable[[fx.Node], list[fx.Node]],
) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in nodes:
        if any(one in sources or one in found for one in neighbours(node)):
            found.add(node)
    return found
