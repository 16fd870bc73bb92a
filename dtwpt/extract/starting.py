"""Start of a process that neither runs the caller's script nor imports from its folder."""

from __future__ import annotations

import os
import threading
from multiprocessing import spawn
from multiprocessing.process import BaseProcess
from typing import Any

__all__ = ["start_apart"]

_SAFE_PATH = "PYTHONSAFEPATH"
_one_at_a_time = threading.Lock()


def start_apart(process: BaseProcess) -> None:
    """Start a process of the method "spawn" that needs nothing of the main module.

    By itself, such a process runs the caller's script once more, which fails where that has no
    guard or came through a pipe; and until it has the caller's ``sys.path``, it imports modules
    from the working folder, where a file such as ``types.py`` hides Python's own (from Python 3.11
    on it does not).

    Parameters
    ----------
    process : BaseProcess
        Not started yet.
    """
    with _one_at_a_time:
        original = spawn.get_preparation_data
        before = os.environ.get(_SAFE_PATH)

        def without_main(name: str) -> dict[str, Any]:
            data = original(name)
            if name == process.name:  # other threads may start processes, too
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
            return data

        try:
            spawn.get_preparation_data = without_main
            os.environ[_SAFE_PATH] = "1"
            process.start()
        finally:
            spawn.get_preparation_data = original
            if before is None:
                del os.environ[_SAFE_PATH]
            else:
                os.environ[_SAFE_PATH] = before
