"""A whole model as one graph, by ``torch.export``: for models that one-level tracing cannot read.

``capture_model`` runs the forward once on fake tensors of the example's shapes, with int8 layers as
single nodes. ``export_nodes.py`` writes what comes out as ``trace.py`` would, ``patterns.py``
rewrites it, and ``export_forward.py`` runs it for the calls that it stands for. Sizes are left open
where the model allows it. An export takes an open size for two or more, so a batch of one gets a
graph of its own.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..nn.int8_linear import Int8Linear
from .attention_rows import attention_on_rows
from .export_example import encode
from .export_forward import Arguments, Captured, CapturedForward, Leaf, Tree, same
from .export_nodes import CONSTANT, drop_unread, normal_form, path_of
from .export_shapes import sizes_of
from .export_simplify import convert_masks_once
from .export_watch import Reads, Watch, recording
from .forward import Variant
from .guards import SIMPLE, runs_own_forward
from .patterns import rewrite
from .regions import Notes
from .simple_code import CannotTraceError
from .trace import _lock, first_sentence

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_BATCHES = (1, 3)  # 3: unlikely to be another size of the example as well
_ACTIVATIONS = "transformers.activations"  # whose modules patterns.py knows by their class

torch.library.define("pyops_capture::leaf", "(Tensor x, int part, int k, int n) -> Tensor")


@torch.library.register_fake("pyops_capture::leaf")
def _(x: Tensor, part: int, k: int, n: int) -> Tensor:
    if not k:
        return torch.empty_like(x)
    if x.dtype not in _FLOATS:
        raise TypeError(f"an int8 layer takes a float tensor, but got {x.dtype}")
    torch._check(x.shape[-1] == k)  # type: ignore[no-untyped-call]
    return x.new_empty((*x.shape[:-1], n))


def capture_model(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> CapturedForward:
    """The graphs of ``model`` for calls like ``model(*args, **kwargs)``; the model is unchanged.

    Only the types and shapes of the tensors matter, not their values.

    Raises:
        CannotTraceError: with what the model does.
    """
    given, names, defaults = _bind(model, args, kwargs)
    trees: dict[str, Tree] = {}
    shapes: list[torch.Size] = []
    for name, value in given.items():
        trees[name] = _tree(value, f"{name} holds", shapes)
    if not shapes:
        raise CannotTraceError("the example holds no tensor")
    arguments = Arguments(trees, names, defaults)
    example = encode(given)
    graphs, reason = [], None
    read: Reads = {}
    parts: dict[str, nn.Module] = {}
    constants: dict[str, Tensor] = {}
    for batch in _batches(shapes):
        sizes = [(batch, *shape[1:]) if batch else shape for shape in shapes]
        try:
            graph = _Capture(model, arguments, sizes, parts, constants, read).run()
        except CannotTraceError as error:
            reason = error
        else:
            graphs.append(graph)
    if not graphs:
        assert reason is not None
        raise reason
    captured = CapturedForward(model, arguments, graphs, Watch(model, read))
    captured.parts, captured.constants, captured.example = parts, constants, example
    return captured


def _bind(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]:
    """(arguments by name, names that can be given by position, defaults)."""
    parameters = list(inspect.signature(type(model).forward).parameters.values())[1:]
    names = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    if len(args) > len(names):
        raise CannotTraceError("its forward takes arguments that have no name")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    for name, value in defaults.items():
        if name in given and same(given[name], value):
            del given[name]
    return given, names, defaults


def _tree(value: Any, where: str, shapes: list[Any]) -> Tree:
    """The structure of a value; the shapes of its tensors are appended to ``shapes``."""
    leaves, spec = pytree.tree_flatten(value)
    ends: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            ends.append(Leaf(len(shapes), leaf.dtype, leaf.device))
            shapes.append(leaf.shape)
        elif isinstance(leaf, SIMPLE):
            ends.append(leaf)
        else:
            raise CannotTraceError(f"{where} a {type(leaf).__name__}")
    return Tree(ends, spec)


def _batches(shapes: list[torch.Size]) -> Iterator[int]:
    """The first dimensions to make graphs for; 0: only as in the example."""
    first = {shape[0] if shape else 0 for shape in shapes}
    if len(first) != 1 or 0 in first:
        yield 0
    else:
        yield from _BATCHES


class _Capture:
    """One export of the model, with tensors of these sizes."""

    def __init__(
        self,
        model: nn.Module,
        arguments: Arguments,
        sizes: list[Any],
        parts: dict[str, nn.Module],
        constants: dict[str, Tensor],
        read: Reads,
    ) -> None:
        self.model = model
        self.arguments = arguments
        self.sizes = sizes
        self.parts = parts
        self.constants = constants
        self.read = read
        self.output: Tree | None = None

    def run(self) -> Captured:
        before = Watch(self.model)
        why = before.changed()
        if why is not None:
            raise CannotTraceError(why)
        try:
            with _lock, _kept(self.model), _leaves(self.model) as paths, torch.no_grad():
                with recording(self.model) as read:
                    program, inputs = self._export()
        except CannotTraceError:
            raise
        except Exception as error:  # whatever the forward or torch.export raises
            raise CannotTraceError(first_sentence(error)) from error
        if before.changed() is not None:
            raise CannotTraceError("it changes an object that it reads as it runs")
        for key, attributes in read.items():
            self.read.setdefault(key, set()).update(attributes)
        graph = normal_form(program, paths, "model.", self.constants)
        results = next(iter(reversed(graph.nodes))).args[0]
        self.arguments.returned |= any(node.op == "placeholder" for node in results)
        convert_masks_once(graph)
        attention_on_rows(graph)
        notes = self._rewrite(graph)
        names = tuple(node.name for node in graph.nodes if node.op == "placeholder")
        assert self.output is not None
        sizes = sizes_of(program, inputs)
        return Captured(sizes, Variant.of(graph, names, notes), self.output)

    def _export(self) -> tuple[torch.export.ExportedProgram, list[Tensor]]:
        tensors = [
            torch.zeros(size, dtype=leaf.dtype, device=leaf.device)
            for size, leaf in zip(self.sizes, self.arguments.leaves, strict=True)
        ]
        auto = torch.export.Dim.AUTO
        # Told apart here, as export would warn of each size that it cannot leave open.
        dynamic = [
            {
                i: auto if size > 1 else torch.export.Dim.STATIC
                for i, size in enumerate(tensor.shape)
            }
            for tensor in tensors
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                _Call(self), (tensors,), dynamic_shapes=(dynamic,), strict=False
            )
        kinds = program.graph_signature
        if kinds.buffers_to_mutate or kinds.user_inputs_to_mutate:
            raise CannotTraceError("it changes a buffer or an input in place")
        inputs = [n for n in program.graph.nodes if n.name in kinds.user_inputs]
        return program, [node.meta["val"] for node in inputs]

    def call(self, tensors: list[Tensor]) -> list[Tensor]:
        """What is exported: the tensors in what the forward returns."""
        trees = self.arguments.trees.items()
        values = {name: tree.rebuild(tensors) for name, tree in trees}
        found: list[Any] = []
        value = self.model.forward(**values)
        self.output = _tree(value, "it returns", found)
        return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]

    def _rewrite(self, graph: fx.Graph) -> Notes:
        """Fuses in place. The parts lie side by side in one module, each under its path."""
        targets = {str(node.target) for node in graph.nodes if node.op == "call_module"}
        reads = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        targets |= {target.rpartition(".")[0] for target in reads} - {CONSTANT}
        for target in targets:
            self.parts[target] = self.model.get_submodule(path_of(target))
        owner = nn.Module()
        owner.add_module(CONSTANT, nn.Module())  # literals are no parameters
        for target in targets:
            owner.add_module(target, self.parts[target])
        notes, guards = rewrite(graph, owner)
        assert not guards  # no part is called whose code decides: Watch looks at everything else
        drop_unread(graph)
        return {path_of(name): list(map(path_of, found)) for name, found in notes.items()}


class _Call(nn.Module):
    """A forward of nothing but tensors."""

    def __init__(self, capture: _Capture) -> None:
        super().__init__()
        self.model = capture.model
        self.capture = capture

    def forward(self, tensors: list[Tensor]) -> list[Tensor]:
        return self.capture.call(tensors)


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Attributes are afterwards what they were: torch.export puts copies of containers there."""
    before = [(module, dict(module.__dict__)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            for name in module.__dict__.keys() - attributes.keys():
                del module.__dict__[name]
            module.__dict__.update(attributes)


@contextmanager
def _leaves(model: nn.Module) -> Iterator[list[str]]:
    """Int8 layers, and activations that torch has as one function, become single nodes.

    Yields their paths. So packed weights are not in the graph, which a forced ISA packs anew.
    """
    paths: list[str] = []
    leaves: list[nn.Module] = []
    for path, module in model.named_modules():
        if "/" in path:
            raise CannotTraceError(f"{path} has a slash in its name")
        if not runs_own_forward(module):
            raise CannotTraceError(f"the forward of {path or 'the model'} was replaced")
        if type(module) is Int8Linear or _activation(module):
            paths.append(path)
            leaves.append(module)
    try:
        for number, leaf in enumerate(leaves):
            leaf.__dict__["forward"] = _LeafForward(leaf, number)
        yield paths
    finally:
        for leaf in leaves:
            leaf.__dict__.pop("forward", None)


class _LeafForward:
    def __init__(self, leaf: nn.Module, number: int) -> None:
        layer = isinstance(leaf, Int8Linear)
        self.size = (leaf.in_features, leaf.out_features) if layer else (0, 0)
        self.number = number

    def __call__(self, input: Tensor) -> Tensor:
        result: Tensor = torch.ops.pyops_capture.leaf(input, self.number, *self.size)
        return result


def _activation(module: nn.Module) -> bool:
    home = type(module).__module__
    return home == _ACTIVATIONS and not any(True for _ in module.parameters())
