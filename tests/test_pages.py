"""Code of the tutorials runs, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"


# torch's own remark on itself, while it exports.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("page", ["classifier", "serving"])
def test_code_runs_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    names: dict[str, Any] = {}
    for block in blocks:
        code = "\n".join(line.removeprefix("   ") for line in block.splitlines())
        exec(compile(code, f"docs/{page}.rst", "exec"), names)
    printed = capsys.readouterr().out
    if page == "classifier":
        assert "(80, 128)" in printed
        matrix = names["confusion_matrix"](names["labels"], names["predicted"])
        assert matrix.trace() > 0.9 * matrix.sum()
    else:
        assert printed.splitlines()[-1] == "True"
