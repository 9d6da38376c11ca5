"""What the torch.compile peers share: one shape, weights frozen, compiled before it is timed."""

from __future__ import annotations

import torch
from case import Call
from torch import Tensor, nn

# A run compiles many models and shapes of one class. Past its limits dynamo would run them eagerly.
MANY = 10_000


def compiled(model: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    """Return the call of ``torch.compile(model)`` for exactly these shapes.

    Frozen weights are constants of the compiled code, which inductor then packs. Code for another
    number of threads is not taken from the cache.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    call = torch.compile(model, dynamic=False)
    limits = dynamo.patch(
        recompile_limit=MANY, accumulated_recompile_limit=MANY, fail_on_recompile_limit_hit=True
    )
    with limits, inductor.patch(freezing=True, fx_graph_cache=False):
        call(*inputs)
    return lambda: call(*inputs)
