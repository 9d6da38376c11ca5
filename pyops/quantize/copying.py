"""A copy of a model whose parameters are new objects over the same storage."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def copy_model(model: nn.Module, trainable: bool = False, workflow: str | None = None) -> nn.Module:
    """Copies the modules, the buffers and all else; parameters share storage with the input.

    New Parameter objects, so ``.half()``, ``.to()`` or a gradient on one model leaves the other
    alone. They require no grad: the result is for inference. Buffers are cloned, because a model
    changes them in place when it runs. Tied and shared parts stay tied and shared.

    ``trainable``: parameters are cloned, because optimizers change them in place; they require
    grad, and modules are in train mode, as in the input. ``workflow``: whom the error names, where
    ``inplace=True`` copies as well; None: the error points to it.

    Raises:
        TypeError: the model holds something that ``copy.deepcopy`` cannot copy.
    """
    memo: dict[int, Any] = {}
    with torch.inference_mode(False):
        for parameter in model.parameters():
            plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
            if plain and not trainable:
                memo[id(parameter)] = _over_same_storage(parameter)
        for module in model.modules():
            for value in module.__dict__.values():
                if isinstance(value, Tensor) and not value.is_leaf:
                    memo[id(value)] = value.detach().clone()  # deepcopy takes leaves only
        try:
            new: nn.Module = copy.deepcopy(model, memo)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            told = f"{type(model).__name__} cannot be copied ({error})"
            if workflow is None:
                raise TypeError(f"{told}; inplace=True converts the model itself") from error
            raise TypeError(f"{workflow}: {told}") from error
    return new if trainable else freeze(new)


def freeze(model: nn.Module) -> nn.Module:
    """Eval mode and no gradients, in place."""
    for parameter in model.parameters():
        if not nn.parameter.is_lazy(parameter):
            parameter.requires_grad_(False)
    return model.eval()


def _over_same_storage(parameter: nn.Parameter) -> nn.Parameter:
    new = nn.Parameter(parameter.detach(), requires_grad=False)
    new.__dict__.update(parameter.__dict__)  # what libraries hang on their parameters
    return new


_fast_path_lock = threading.Lock()
_fast_path_off = 0  # by how many blocks, of all threads
_fast_path_before = True


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """The switch is one for all threads: the last block to end puts it back."""
    global _fast_path_off, _fast_path_before
    with _fast_path_lock:
        if _fast_path_off == 0:
            _fast_path_before = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _fast_path_off += 1
    try:
        yield
    finally:
        with _fast_path_lock:
            _fast_path_off -= 1
            if _fast_path_off == 0:
                torch.backends.mha.set_fastpath_enabled(_fast_path_before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients and torch's fused transformer path off, until the block ends.

    That path is off because it would bypass the layers that the block wants to look at.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with _without_fast_path(), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
