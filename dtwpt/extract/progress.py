"""Progress of a run: a callable of the caller's, or a bar on a terminal or in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

#: What functions take as ``progress``: True for a bar.
Progress: TypeAlias = Callable[[int, int], None] | bool | None


@contextmanager
def following(
    progress: Progress, unit: str = "image"
) -> Iterator[Callable[[int, int], None] | None]:
    """Give what is to be called with the numbers that are done and in all; None for nothing."""
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with bar(unit) as show:
            yield show
    else:
        yield None


@contextmanager
def bar(unit: str, **options: Any) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of tqdm, a widget in Jupyter; rate and time are those of what comes after.

    Raises
    ------
    ImportError
        If tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError('the progress bar needs tqdm: pip install "dtwpt[cli]"') from error
    shown: Any = None

    def show(done: int, total: int) -> None:
        nonlocal shown
        if shown is None:
            shown = tqdm(total=total, initial=done, unit=unit, **options)
        shown.update(done - shown.n)

    try:
        yield show
    finally:
        if shown is not None:
            shown.close()
