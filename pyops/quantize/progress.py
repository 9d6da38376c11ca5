"""A progress bar on stderr, where the caller asked for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(progress: bool, label: str, total: int) -> Iterator[Callable[[], None]]:
    """Yields what is called after each layer."""
    if not progress:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as shown:
        task = shown.add_task(label, total=total)
        yield lambda: shown.advance(task)
