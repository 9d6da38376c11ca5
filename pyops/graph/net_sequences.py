"""Folding norms into the layers before them where a model cannot be traced: in ``nn.Sequential``.

A forward might also call the parts of a Sequential one by one, with something in between; so the
model is run before and after, and without inputs nothing is folded.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Container, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.registry import has_hooks
from .guards import runs_own_forward
from .net_fold import Folded, fold_norm
from .net_trace import same_results

_KINDS = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))


def fold_sequences(
    model: nn.Module, layers: Container[str], inputs: Mapping[str, Tensor]
) -> dict[str, str]:
    """Exchanges weights and biases of convolutions, in place; {norm: layer}.

    ``layers``: paths of convolutions that may change. The norms are still in ``model``.
    """
    pairs = _pairs(model, layers) if inputs else {}
    if not pairs:
        return {}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            expected = copy.deepcopy(model)(**inputs)
            trial = copy.deepcopy(model)
            _fold(trial, pairs)
            for norm, layer in pairs.items():
                parent, _, name = norm.rpartition(".")
                setattr(trial.get_submodule(parent), name, Folded(layer, ""))
            same = same_results(trial(**inputs), expected)
    except Exception:  # whatever a forward raises
        same = False
    if not same:
        return {}
    _fold(model, pairs)
    return pairs


def _fold(model: nn.Module, pairs: Mapping[str, str]) -> None:
    for norm, layer in pairs.items():
        fold_norm(model.get_submodule(layer), model.get_submodule(norm))


def _pairs(model: nn.Module, layers: Container[str]) -> dict[str, str]:
    modules = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    owners = Counter(
        id(p) for m in model.modules() for p in m._parameters.values() if p is not None
    )

    def alone(module: Any) -> bool:
        parameters = [p for p in module._parameters.values() if p is not None]
        return modules[id(module)] == 1 and all(owners[id(p)] == 1 for p in parameters)

    found: dict[str, str] = {}
    for path, module in model.named_modules():
        if type(module) is not nn.Sequential:
            continue
        prefix = f"{path}." if path else ""
        for (one, layer), (two, norm) in pairwise(module._modules.items()):
            plain = (type(layer), type(norm)) in _KINDS and prefix + one in layers
            if plain and alone(layer) and alone(norm) and _is_fixed(norm):
                found[prefix + two] = prefix + one
    return found


def _is_fixed(norm: Any) -> bool:
    own = runs_own_forward(norm) and not has_hooks(norm)
    return own and norm.running_mean is not None
