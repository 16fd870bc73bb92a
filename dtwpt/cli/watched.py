"""A command in a process that another one watches: libraries may end it without a word."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

_said: list[int] = []


def watched(on_death: Callable[[str], int], numbers: tuple[str, ...]) -> None:
    """Go on in a child; this process never returns, but leaves with its status.

    Parameters
    ----------
    on_death : callable
        Called with how the child has ended, unless it came to :func:`say_over`; returns the status.
    numbers : tuple of str
        The signals to pass on.
    """
    if not hasattr(os, "fork"):  # Windows
        return
    over, say = os.pipe()
    alive, hold = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # idle threads of BLAS are no harm
        child = os.fork()
    if child == 0:
        os.close(over)
        os.close(hold)
        _said.append(say)
        threading.Thread(target=_stop_with, args=(alive,), daemon=True).start()
        return
    os.close(say)
    os.close(alive)

    def pass_on(number: int, _: Any) -> None:
        os.kill(child, number)

    for name in numbers:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os.set_blocking(over, False)
    try:
        said = os.read(over, 1)
    except BlockingIOError:  # others have it open, and it is empty
        said = b""
    if not said:
        code = on_death(signal.Signals(-code).name if code < 0 else f"exit status {code}")
    os._exit(code if code >= 0 else 128 - code)


def say_over() -> None:
    """Say that this process has come to its end, if another one watches it."""
    for number in _said:
        os.write(number, b"x")


def _stop_with(alive: int) -> None:
    """Stop this process once the one that watches it is gone."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
