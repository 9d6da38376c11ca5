"""Building a model from a saved file: checks first, and only on a copy of the skeleton."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .graph import Fusion, captured_of, fuse_layers, fusions_of
from .graph.export_example import decode
from .graph.net_fold import Folded
from .graph.net_forward import set_not_traced
from .nn.containers import disable_fast_paths
from .nn.fused_conv2d import FusedConv2d
from .nn.masked_module import MASKED, MaskedModule
from .nn.packed_base import PackedBase
from .nn.packed_module import PackedModule
from .nn.record import set_record
from .nn.registry import replacement_name, replacements
from .nn.static_module import StaticModule
from .prune.channels.plan import apply_channel_plan, plan_of
from .quantize.convert import put
from .quantize.copying import copy_model
from .quantize.static.load import put_net
from .serialize_plan import LayerPlan, Plan, key_of, slots


class Loader:
    """Builds a model from an open file; touches only its own copy of the skeleton."""

    def __init__(self, file: Any, plan: Plan) -> None:
        self.file = file
        self.plan = plan
        self.keys = set(file.keys())
        self.built: dict[str, Any] = {}  # by first name: what tied names share
        for alias, key in plan.aliases.items():
            if alias in self.keys or key not in self.keys:
                raise ValueError(f"damaged plan: {alias!r} stands for {key!r}")

    def build(self, skeleton: nn.Module) -> nn.Module:
        for path, module in skeleton.named_modules():
            if isinstance(module, (PackedModule, MaskedModule)):
                raise ValueError(f"the skeleton must be the float model, but {path} is converted")
        self._compare_classes(skeleton)
        skeleton = self._shrunk(skeleton)
        self._compare_keys(skeleton)
        model = self._mask(copy_model(skeleton))
        for path, layer in self.plan.layers.items():
            model = put(model, layer.paths, self._int8(path, layer, model.get_submodule(path)))
        for path, module in list(model.named_modules()):
            if path in self.plan.folded:
                model = put(model, [path], self._folded(path))
            elif not isinstance(module, PackedModule):
                self._fill(path, module)
            if path in self.plan.left:
                set_record(module, self.plan.left[path])
        _refuse_meta(model)
        disable_fast_paths(model)
        model.eval()
        for path, net in self.plan.nets.items():
            put_net(model.get_submodule(path), skeleton.get_submodule(path), net, self._under(path))
        for path, why in self.plan.apart.items():
            set_not_traced(model.get_submodule(path), why)
        if self.plan.fuse:
            for path, example in self.plan.captured.items():
                self._capture(path, model, example)
            fuse_layers(model)
            self._compare_fusions(fusions_of(model))
        return model

    def _shrunk(self, skeleton: nn.Module) -> nn.Module:
        """The skeleton, or a copy with the channels that are left of its layers in the file."""
        plans = self.plan.channels
        todo = [path for path in plans if plan_of(skeleton.get_submodule(path)) != plans[path]]
        if not todo:
            return skeleton
        model = copy_model(skeleton)
        for path in todo:
            apply_channel_plan(model.get_submodule(path), plans[path], inplace=True)
        return model

    def _mask(self, model: nn.Module) -> nn.Module:
        paths: dict[int, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            paths.setdefault(id(module), []).append(path)
        for path in self.plan.masked:
            module = model.get_submodule(path)
            model = put(model, paths[id(module)], MASKED[type(module)].from_float(module))
        return model

    def _folded(self, path: str) -> Folded:
        return Folded(self.plan.folded[path], self.plan.classes[path])

    def _under(self, path: str) -> set[str]:
        """The int8 layers below a path, from there."""
        prefix = key_of(path, "")
        return {
            other.removeprefix(prefix)
            for layer in self.plan.layers.values()
            for other in layer.paths
            if other.startswith(prefix)
        }

    def _capture(self, path: str, model: nn.Module, example: Any) -> None:
        if path not in self.plan.classes:
            raise ValueError(f"damaged plan: {path!r} is captured, but is no module")
        module = model.get_submodule(path)
        device = next((t.device for t in chain(module.parameters(), module.buffers())), None)
        arguments = decode(example, device or torch.device("cpu"))
        if not isinstance(arguments, dict):
            raise ValueError(f"damaged plan: {path!r} is captured with {arguments!r}")
        fuse_layers(module, ((), arguments))
        if captured_of(module) is None:
            why = fusions_of(module).graphs
            raise ValueError(f"{path!r} is one graph in the file, but not here: {', '.join(why)}")

    def _compare_fusions(self, found: Fusion) -> None:
        for path in sorted(self.plan.fused.keys() | found.notes.keys()):
            saved, now = self.plan.fused.get(path), found.notes.get(path)
            if saved != now:
                why = found.reasons.get(path)
                raise ValueError(
                    f"{path!r} runs fused with {saved or 'nothing'} in the file but with "
                    f"{now or 'nothing'} in the skeleton" + (f" ({why})" if why else "")
                )

    def _compare_classes(self, skeleton: nn.Module) -> None:
        found = {path: type(module).__name__ for path, module in skeleton.named_modules()}
        for path, name in self.plan.classes.items():
            if path not in found:
                raise ValueError(f"the skeleton has no module {path!r} ({name} in the file)")
            if found[path] != name:
                raise ValueError(
                    f"module {path!r} is a {found[path]} in the skeleton but a {name} in the file"
                )
        for path, name in found.items():
            if path not in self.plan.classes:
                raise ValueError(f"the file has no module {path!r} ({name} in the skeleton)")
        for path in self.plan.left:
            if path not in found:
                raise ValueError(f"a reason for {path!r}, which is not in the skeleton")
        for path in self.plan.channels:
            if path not in found:
                raise ValueError(f"channels of {path!r}, which is not in the skeleton")
        self._compare_layers(skeleton, found)

    def _compare_layers(self, skeleton: nn.Module, found: dict[str, str]) -> None:
        if len(set(self.plan.masked)) < len(self.plan.masked):
            raise ValueError(f"damaged plan: masked layers twice in {self.plan.masked}")
        for path in self.plan.masked:
            if path not in found or path in self.plan.layers:
                raise ValueError(f"damaged plan: {path!r} is masked, but is no float layer")
            if type(skeleton.get_submodule(path)) not in MASKED:
                raise ValueError(f"{path!r}, a {found[path]}, cannot be masked")
        for path, layer in self.plan.layers.items():
            if path not in found or path not in layer.paths:
                raise ValueError(f"int8 layer {path!r} is not in the skeleton")
            module = skeleton.get_submodule(path)
            if replacement_name(layer.cls) not in replacements(module):
                raise ValueError(f"{layer.cls} does not replace {path!r}, a {found[path]}")
            for other in layer.paths:
                parent, _, leaf = other.rpartition(".")
                parts = skeleton.get_submodule(parent)._modules if parent in found else {}
                if other and parts.get(leaf) is not module:
                    raise ValueError(f"{path!r} and {other!r} are one layer only in the file")

    def _compare_keys(self, skeleton: nn.Module) -> None:
        expected: dict[str, list[int]] = {}
        for path, module in skeleton.named_modules():
            layer = self.plan.layers.get(path)
            if path in self.plan.folded:
                continue
            bias = key_of(path, "bias")
            if layer is not None and _gains_bias(layer) and bias in self.keys:
                expected[bias] = list(module._parameters["weight"].shape[:1])
            for name, tensor in slots(module):
                expected[key_of(path, name)] = list(tensor.shape)
                if path in self.plan.masked and name == "weight":
                    expected[key_of(path, "weight_mask")] = list(tensor.shape)
                if layer is not None and name == "weight":
                    shapes = _part_shapes(layer, tensor)
                    expected.update({key_of(path, part): s for part, s in shapes.items()})
        for key, shape in expected.items():
            source = self.plan.aliases.get(key, key)
            if source not in self.keys:
                raise ValueError(f"the file has no tensor {key!r}, which the skeleton has")
            stored = self._shape(source)
            if stored != shape:
                raise ValueError(f"{key!r} is {stored} in the file but {shape} in the skeleton")
        for key in sorted(self.keys | set(self.plan.aliases)):
            if key not in expected:
                raise ValueError(f"the file holds {key!r}, which the skeleton lacks")

    def _shape(self, key: str) -> list[int]:
        shape = list(self.file.get_slice(key).get_shape())
        order = self.plan.orders.get(key)
        if order is None:
            return shape
        if sorted(order) != list(range(len(shape))):
            raise ValueError(f"damaged plan: order {order} of {key!r}")
        return [shape[order.index(d)] for d in range(len(shape))]

    def _tensor(self, key: str, like: Tensor, cast: bool = True) -> Tensor:
        """The stored tensor on the device of ``like`` (the CPU for meta), strides as saved.

        ``cast``: the file decides between float types; any other difference is refused.
        """
        key = self.plan.aliases.get(key, key)
        value: Tensor = self.file.get_tensor(key)
        floats = value.is_floating_point() and like.is_floating_point()
        if cast and not floats and value.dtype != like.dtype:
            raise ValueError(
                f"{key!r} is {value.dtype} in the file but {like.dtype} in the skeleton"
            )
        order = self.plan.orders.get(key)
        if order is not None:
            value = value.permute([order.index(d) for d in range(value.dim())])
        return value if like.device.type == "meta" else value.to(like.device)

    def _int8(self, path: str, layer: LayerPlan, old: nn.Module) -> PackedModule:
        cls = replacement_name(layer.cls)
        weight = old._parameters["weight"]
        assert cls is not None  # read_plan knows it
        assert weight is not None  # _compare_keys found its shape
        key = key_of(path, "weight")
        key = self.plan.aliases.get(key, key)
        if key not in self.built:
            parts = {
                name: self._tensor(key_of(path, name), weight, cast=False)
                for name in _part_shapes(layer, weight)
            }
            k = weight.shape[0] if layer.transposed else weight.shape[1:].numel()
            try:
                self.built[key] = cls.weight_class.from_parts(parts, k, layer.config)
            except ValueError as error:
                raise ValueError(f"{path!r}: {error}") from error
        has_bias = key_of(path, "bias") in self.keys or key_of(path, "bias") in self.plan.aliases
        new = cls.rebuild(
            old,
            self.built[key],
            self._tensor(key_of(path, "bias"), weight) if has_bias else None,
            dtype=getattr(torch, layer.dtype),
            transposed=layer.transposed,
            **layer.options,
        )
        if layer.record is not None:
            set_record(new, layer.record)
        return new

    def _fill(self, path: str, module: nn.Module) -> None:
        for name, old in list(slots(module)):
            key = key_of(path, name)
            key = self.plan.aliases.get(key, key)
            if key not in self.built:
                value = self._tensor(key, old)
                if isinstance(old, nn.Parameter):
                    value = nn.Parameter(value, requires_grad=False)
                    value.__dict__.update(old.__dict__)
                self.built[key] = value
            if isinstance(self.built[key], PackedBase):
                raise ValueError(f"damaged plan: {key_of(path, name)!r} stands for {key!r}")
            setattr(module, name, self.built[key])  # not _parameters: nn.LSTM keeps a second list


def _gains_bias(layer: LayerPlan) -> bool:
    """Whether a norm that is folded in, or a correction, may have given it a bias."""
    cls = replacement_name(layer.cls)
    return cls is not None and issubclass(cls, (StaticModule, FusedConv2d))


def _part_shapes(layer: LayerPlan, weight: Tensor) -> dict[str, list[int]]:
    """Shapes of the stored tensors of a layer that replaces one with this weight."""
    cls = replacement_name(layer.cls)
    assert cls is not None  # read_plan knows it
    return cls.part_shapes(weight.shape, layer.transposed, layer.config)


def _refuse_meta(model: nn.Module) -> None:
    for path, module in model.named_modules():
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor) and value.device.type == "meta":
                raise ValueError(
                    f"{key_of(path, name)} is a plain tensor on the meta device, in no file: "
                    "make it a buffer, or load into a skeleton with values"
                )
