"""The forms in which torch's convolutions take sizes, brought into the one that the ops take."""

from collections.abc import Sequence

from torch import Tensor


def images(x: Tensor) -> Tensor:
    """``[N, C, L]`` as images of one line."""
    return x.unsqueeze(2) if x.dim() == 3 else x


def pair(op: str, name: str, value: int | Sequence[int], lines: bool, of_height: int) -> list[int]:
    """``[h, w]``; ``lines``: of a 1-D convolution, whose height has ``of_height``."""
    if isinstance(value, int):
        return [of_height, value] if lines else [value, value]
    values = list(value)
    if lines and len(values) == 1:
        return [of_height, *values]
    if len(values) != 2 or lines:
        form = "one integer" if lines else "one integer or (h, w)"
        raise ValueError(f"{op}: {name} must be {form}, but is {value}")
    return values


def padding_of(
    op: str,
    value: int | Sequence[int] | str,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    lines: bool,
) -> list[int]:
    """``[top, bottom, left, right]``."""
    if isinstance(value, str):
        if value == "valid":
            return [0, 0, 0, 0]
        if value != "same":
            raise ValueError(
                f'{op}: padding must be integers, "valid" or "same", but is {value!r}; '
                "other modes than zeros need torch.nn.functional.pad before"
            )
        if list(stride) != [1, 1]:
            raise ValueError(f'{op}: padding "same" needs stride 1, but it is {list(stride)}')
        sides = []
        for size, spread in zip(kernel, dilation, strict=True):
            total = spread * (size - 1)
            sides += [total // 2, total - total // 2]
        return sides
    if isinstance(value, int):
        return [0, 0, value, value] if lines else [value] * 4
    values = list(value)
    if lines and len(values) in (1, 2):
        return [0, 0, values[0], values[-1]]
    if not lines and len(values) == 2:
        return [values[0], values[0], values[1], values[1]]
    if not lines and len(values) == 4:
        return values
    form = "(left, right)" if lines else "(h, w) or (top, bottom, left, right)"
    raise ValueError(f"{op}: padding must be one integer or {form}, but is {value}")
