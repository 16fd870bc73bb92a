"""A report on a run for machines: JSON lines, one for each file without features, and a summary."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from dtwpt.extract.atomic import replacing

__all__ = ["write_report"]


def write_report(
    path: str | os.PathLike[str], failures: Iterable[tuple[str, str]], summary: Mapping[str, Any]
) -> None:
    r"""Write ``{"file": ..., "reason": ...}`` a line, and ``{"summary": ...}`` as the last one.

    It is ASCII: other characters are escaped, and so are bytes of a name that are not text (as
    ``\udc80`` to ``\udcff``, which ``os.fsencode`` turns back).

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with replacing(path) as file:
        for name, reason in failures:
            file.write(json.dumps({"file": name, "reason": reason}).encode("ascii") + b"\n")
        file.write(json.dumps({"summary": dict(summary)}).encode("ascii") + b"\n")
