"""Print the lower bounds of pyproject.toml as constraints: ``python tools/oldest.py core plot``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def oldest(text: str, names: list[str]) -> list[str]:
    """Return the lower bounds of extras, "core" for the package's own, as pins."""
    pins = []
    for name in names:
        key = "dependencies" if name == "core" else name
        listed = re.search(rf"^{key} = \[(.*?)\]\n", text, re.MULTILINE | re.DOTALL)
        if listed is None:
            raise SystemExit(f"pyproject.toml has no extra {name!r}")
        found = re.findall(r'"([\w.-]+)(?:\[\w+\])?>=([\w.]+)', listed[1])
        pins += [f"{package}=={version}" for package, version in found]
    return pins


if __name__ == "__main__":
    print("\n".join(oldest(PROJECT.read_text(encoding="utf-8"), sys.argv[1:] or ["core"])))
