"""torch's convolution and ReLU compiled, with frozen weights: packed ahead by oneDNN."""

from __future__ import annotations

import torch
from case import Call, Case, UnavailableError
from torch import nn

NAME = "torch.compile conv"
KINDS = ("conv",)
SLOW = True


def make(case: Case) -> Call:
    """Return the compiled ``nn.Conv2d`` and ``nn.ReLU`` of the case.

    Raises:
        UnavailableError: inductor does not work here; the message is the reason.
    """
    x, weight = case.tensors["x"], case.tensors["weight"]
    groups = case.geometry["groups"]
    conv = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        **case.geometry,
    )
    conv.load_state_dict({"weight": weight, "bias": case.tensors["bias"]})
    model = nn.Sequential(conv, nn.ReLU()).eval().to(x.dtype).to(memory_format=torch.channels_last)
    torch._dynamo.reset()
    try:
        with torch.inference_mode(), torch._inductor.config.patch(freezing=True):
            compiled = torch.compile(model)
            compiled(x)
    except Exception as error:
        raise UnavailableError(f"inductor: {error}".splitlines()[0]) from error
    return lambda: compiled(x)
