"""What a net runs instead of its forward: one graph, with what is needed to make it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from ..nn.packed_module import PackedModule
from .forward import GraphForward, Variant, graph_of
from .net_join import join_runs
from .net_trace import guards_of
from .regions import Notes

_NOT_TRACED = "_pyops_not_traced"


@dataclass(frozen=True)
class NetPlan:
    """``inputs``: shape and dtype by name. ``edges``: [scale, zero point] by the owner's name.

    ``folded``: {norm: layer}. ``islands``: groups of steps that run in float between int8 ones.
    ``decisions``: what calibration found better, in words.
    """

    inputs: dict[str, list[Any]] = field(default_factory=dict)
    edges: dict[str, list[Any]] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    islands: list[list[str]] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)


class NetForward(GraphForward):
    """The graph of a whole net in the place of ``owner.forward``; see ``GraphForward``.

    Beside what any graph watches, every module below the owner must be the one that was traced.
    """

    plan: NetPlan
    runs: list[int]  # the steps of each call of run_net
    ranks: dict[str, int]  # of the inputs
    takes_images: bool
    folds_into_linears: bool

    @classmethod
    def put(
        cls,
        owner: nn.Module,
        graph: fx.Graph,
        tensors: tuple[str, ...],
        notes: Notes,
        plan: NetPlan,
    ) -> None:
        """Makes ``owner``, which holds the new layers, run the graph, which calls modules by their
        paths in it. Runs of steps are joined, in place."""
        runs = join_runs(graph, owner)
        variant = Variant.of(graph, tensors, notes)
        forward = cls(owner, "forward", [variant], guards_of(owner))
        forward.plan = plan
        forward.runs = runs
        forward._look_for_ranks()
        owner.__dict__["forward"] = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A net of our layers is one for inputs of the rank that it was traced with; where that is
        another one, it runs as it was written.

        Raises:
            ValueError: another rank, and norms that are folded into Linears would be other ones.
        """
        if self.ranks:
            for name, value in (*zip(self.arguments, args, strict=False), *kwargs.items()):
                rank = self.ranks.get(name)
                if rank is None or not isinstance(value, Tensor) or value.dim() == rank:
                    continue
                if self.folds_into_linears:
                    raise ValueError(
                        f"{self.cls.__name__} was converted for {name} of {rank} dimensions, but "
                        f"{value.dim()} given, and a norm is folded into a Linear of it"
                    )
                # Linears of a program take rows, its convolutions batches of images.
                if value.dim() in (0, 4) or self.takes_images:
                    as_written: Any = getattr(type(self.owner), self.method)
                    return as_written(self.owner, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    def _look_for_ranks(self) -> None:
        layers = [
            (path, getattr(layer, "rank", 0))
            for path, layer in self.owner.named_modules()
            if isinstance(layer, PackedModule)
        ]
        linears = {path for path, rank in layers if rank == 0}
        self.takes_images = any(rank > 0 for _, rank in layers)
        self.folds_into_linears = any(path in linears for path in self.plan.folded.values())
        self.ranks = {name: len(shape) for name, (shape, _) in self.plan.inputs.items()}

    def describe(self) -> str:
        """For ``explain``."""
        count = len(self.plan.islands)
        text = f"{self.cls.__name__} runs as one graph with {count} float island(s)"
        names = "; ".join(", ".join(group) for group in self.plan.islands)
        text += f": {names}" if names else ""
        return ". ".join([text, *self.runs_text(), *self.plan.decisions])

    def runs_text(self) -> list[str]:
        """A sentence on the calls of ``run_net``, if there are any."""
        if not self.runs:
            return []
        steps = " + ".join(str(count) for count in self.runs)
        calls = "1 call" if len(self.runs) == 1 else f"{len(self.runs)} calls"
        return [f"{steps} steps run in {calls} of run_net"]


def net_of(module: nn.Module) -> NetForward | None:
    """The net's forward, if the module runs as one."""
    found = graph_of(module)
    return found if isinstance(found, NetForward) else None


def set_not_traced(module: nn.Module, reason: str) -> None:
    """Notes that its layers were converted one by one, and why."""
    module.__dict__[_NOT_TRACED] = reason


def why_not_traced(module: nn.Module) -> str | None:
    """The note, if there is one."""
    found = module.__dict__.get(_NOT_TRACED)
    return found if isinstance(found, str) else None
