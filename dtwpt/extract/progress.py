"""Progress of a run: the caller's callable, or a bar on a terminal or in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

#: Type of the argument ``progress``; True for a bar.
Progress: TypeAlias = Callable[[int, int], None] | bool | None


@contextmanager
def following(
    progress: Progress, unit: str = "image"
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield the function to call with the numbers of items done and in all; None for none."""
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with bar(unit) as show:
            yield show
    else:
        yield None


@contextmanager
def bar(unit: str, **options: Any) -> Iterator[Callable[[int, int], None]]:
    """Show a tqdm bar, in Jupyter a widget; rate and time are those of this run.

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
