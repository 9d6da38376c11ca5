"""How an op comes to ``torch.ops.pyops``."""

from types import ModuleType

import torch


def define(schema: str, plain: ModuleType) -> None:
    """Define ``pyops::`` + ``schema``, run by plain torch until a kernel registers for a device.

    Args:
        schema: ``"name(Tensor x, ...) -> Tensor"``.
        plain: the module with ``name_reference``, which computes the op on any device, and
            ``name_fake``, which tells the shapes and dtypes of its outputs.
    """
    name, bracket, rest = schema.partition("(")
    torch.library.define(f"pyops::{name}", bracket + rest)
    torch.library.impl(f"pyops::{name}", "default", getattr(plain, f"{name}_reference"))
    torch.library.register_fake(f"pyops::{name}", getattr(plain, f"{name}_fake"))
