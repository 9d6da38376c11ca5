"""A copy of a model that shares nothing with it: it can be trained."""

from __future__ import annotations

import copy

import torch
from torch import nn


def own_copy(model: nn.Module, workflow: str) -> nn.Module:
    """Copies all of the model, its modes and which of its parameters require a gradient.

    Raises:
        TypeError: the model holds something that ``copy.deepcopy`` cannot copy.
    """
    with torch.inference_mode(False):
        try:
            return copy.deepcopy(model)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            name = type(model).__name__
            raise TypeError(f"{workflow}: {name} cannot be copied ({error})") from error
