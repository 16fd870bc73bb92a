"""Code of the tutorials runs, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import dtwpt

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.mark.parametrize("path", ["README.md", "docs/coming-from.rst", "docs/serving.rst"])
def test_names_are_there(path: str) -> None:
    names = set(re.findall(r"\bdtwpt((?:\.[A-Za-z_]\w*)+)", (ROOT / path).read_text("utf-8")))
    assert len(names) > 3 or "serving" in path
    for name in names:
        found: Any = dtwpt
        for part in name.split(".")[1:]:
            found = getattr(found, part)


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
