"""A command in a watched child process: libraries may end it without an error."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

_said: list[int] = []


def watched(on_death: Callable[[str], int], numbers: tuple[str, ...]) -> None:
    """Continue in a child process; this one exits with its status and never returns.

    Parameters
    ----------
    on_death : callable
        Called with how the child ended, unless it called :func:`say_over`; returns the status.
    numbers : tuple of str
        The signals to pass on.
    """
    if not hasattr(os, "fork"):  # Windows
        return
    over, say = os.pipe()
    alive, hold = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # idle threads of BLAS are harmless
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
    """Tell the watching process, if any, that this one is finished."""
    for number in _said:
        with contextlib.suppress(BrokenPipeError):  # whoever watches has been killed
            os.write(number, b"x")


def _stop_with(alive: int) -> None:
    """Stop this process once its watching process is gone."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
