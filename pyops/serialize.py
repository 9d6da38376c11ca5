"""``save`` and ``load``: a converted model in one safetensors file. No pickle.

Tensors: every parameter and buffer (also the non-persistent ones) by its qualified name; an int8
layer as ``weight`` (plain int8 [N, K]), ``weight_scale`` and ``bias``. ``__metadata__`` has
``format``, ``version`` and ``plan``, a JSON object with the class of every module, class and config
of every int8 layer, which layers are masked, the channels that ``prune_channels`` left, the reason
recorded for every layer, which names are one tensor, and what is fused.
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from torch import Tensor, nn

from .graph import captured_of, fusions_of
from .graph.net_fold import Folded
from .graph.net_forward import net_of, why_not_traced
from .nn.masked_module import MASKED, MaskedModule
from .nn.packed_module import PackedModule
from .nn.record import get_record
from .nn.registry import replacement_name
from .prune.channels.plan import plan_of
from .serialize_load import Loader
from .serialize_plan import FORMAT, VERSION, LayerPlan, Plan, key_of, read_plan, slots


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes ``model`` to one safetensors file, whole or not at all.

    A temporary file beside ``path`` takes its place at the end, so a file that was there before
    survives a failure.

    Raises:
        TypeError: not an ``nn.Module``.
        ValueError: a tensor on the meta device or of a type that safetensors lacks; a module with
            extra state (it would need pickle); an int8 layer of a class that is not registered.
        OSError: the file cannot be written.
    """
    import safetensors.torch

    if not isinstance(model, nn.Module):
        raise TypeError(f"save takes an nn.Module, but got {type(model).__name__}")
    tensors, plan = _collect(model)
    metadata = {"format": FORMAT, "version": VERSION, "plan": plan.to_json()}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        with open(temporary, "xb") as file:  # with the mode that a new file has here
            mode = os.fstat(file.fileno()).st_mode
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # safetensors writes files that only their owner can read
        os.replace(temporary, target)
    except KeyError as error:  # its table of types
        lacking = [key for key, tensor in tensors.items() if tensor.dtype in error.args]
        raise ValueError(f"save: {lacking[0]} is {error}, which safetensors cannot hold") from error
    except safetensors.SafetensorError as error:
        raise OSError(f"save: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], skeleton: nn.Module) -> nn.Module:
    """Reads what ``save`` wrote, for whatever instruction set is active here.

    Nothing is timed or calibrated again: the file says which layers are int8.

    Args:
        path: the file.
        skeleton: the float model that was converted; its values do not matter, so it may be on the
            meta device. It is not changed. Of a model with fewer channels: the one before
            ``prune_channels``, or the smaller one.

    Returns:
        A new model in eval mode, on the skeleton's device (the CPU for a meta one).

    Raises:
        TypeError: ``skeleton`` is not an ``nn.Module``.
        ValueError: not a file of ours, another format version, damaged, or the skeleton has another
            structure (the first difference is named).
        OSError: the file cannot be opened.
    """
    from safetensors import SafetensorError, safe_open

    if not isinstance(skeleton, nn.Module):
        raise TypeError(f"load takes an nn.Module as skeleton, but got {type(skeleton).__name__}")
    with open(path, "rb"):  # safetensors hides the reason why a file cannot be opened
        pass
    try:
        with safe_open(os.fspath(path), framework="pt", device="cpu") as file:
            return Loader(file, read_plan(file.metadata())).build(skeleton)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file, or a damaged one: {error}") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _collect(model: nn.Module) -> tuple[dict[str, Tensor], Plan]:
    fusion = fusions_of(model)
    plan = Plan(fuse=bool(fusion.notes or fusion.reasons), fused=fusion.notes)
    _note_graphs(model, plan)
    tensors: dict[str, Tensor] = {}
    seen: dict[int, str] = {}
    storages: set[int] = set()
    paths: dict[int, list[str]] = {}
    shared: dict[int, dict[str, Tensor]] = {}  # plain tensors of packed weights, tied ones once
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)

    def add(key: str, tensor: Tensor, identity: object) -> None:
        first = seen.setdefault(id(identity), key)
        if first != key:
            plan.aliases[key] = first
            return
        if tensor.device.type == "meta" or nn.parameter.is_lazy(tensor):
            raise ValueError(f"save: {key} has no values (meta device or uninitialized)")
        order = _order(tensor)
        if order != sorted(order):
            plan.orders[key] = order
        value = tensor.detach().permute(order).contiguous().cpu()
        if value.untyped_storage().data_ptr() in storages:  # safetensors refuses overlaps
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        tensors[key] = value

    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(f"save: {path} ({type(module).__name__}) has extra state")
        record = get_record(module)
        if isinstance(module, PackedModule):
            if replacement_name(type(module).__name__) is not type(module):
                raise ValueError(
                    f"save: {path or 'the model'} is a {type(module).__name__}, which is not "
                    "registered (pyops.nn.registry.replaces), so load could not build it"
                )
            plan.layers[path] = LayerPlan.of(module, paths[id(module)], record)
            plan.classes[path] = plan.layers[path].before
            packed = module.packed
            if id(packed) not in shared:
                shared[id(packed)] = packed.parts()
            for name, part in shared[id(packed)].items():
                add(key_of(path, name), part, part)
        elif isinstance(module, Folded):
            plan.classes[path], plan.folded[path] = module.before, module.into
        else:
            plan.classes[path] = _class_in_the_skeleton(module, path, plan)
            if record is not None:
                plan.left[path] = record
        for name, tensor in slots(module):
            add(key_of(path, name), tensor, tensor)
    return tensors, plan


def _class_in_the_skeleton(module: nn.Module, path: str, plan: Plan) -> str:
    if not isinstance(module, MaskedModule):
        return type(module).__name__
    if MASKED.get(module.float_class) is not type(module):
        raise ValueError(
            f"save: {path or 'the model'} is a {type(module).__name__}, which is not registered "
            "(pyops.nn.masked_module.masks), so load could not build it"
        )
    plan.masked.append(path)
    return module.float_class.__name__


def _note_graphs(model: nn.Module, plan: Plan) -> None:
    for path, module in model.named_modules():
        channels = plan_of(module)
        if channels is not None:
            plan.channels[path] = channels
        captured = captured_of(module)
        if captured is not None:
            plan.captured[path] = captured.example
        net = net_of(module)
        if net is not None:
            plan.nets[path] = net.plan
        if why_not_traced(module) is not None:
            plan.apart[path] = str(why_not_traced(module))


def _order(tensor: Tensor) -> list[int]:
    """The order of dimensions in memory; that of the shape where the tensor is not dense."""
    order = sorted(range(tensor.dim()), key=lambda d: -tensor.stride()[d])
    dense = not tensor.is_contiguous() and tensor.permute(order).is_contiguous()
    return order if dense else list(range(tensor.dim()))
