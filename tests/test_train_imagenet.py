"""A whole run of the reproduction of the papers' twins, on images that are made up."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

for needed in ("torch", "torchvision", "PIL"):
    pytest.importorskip(needed)

SCRIPT = Path(__file__).parent.parent / "examples" / "train_imagenet.py"


@pytest.mark.slow
def test_a_run_and_its_resumption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.json"
    command = [str(SCRIPT), "--trial", "--network", "resnet18", "--designs", "cnn", "blur-cwcnn"]
    command += ["--checkpoints", str(tmp_path / "runs"), "--json", str(table)]
    found = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command)
            runpy.run_path(str(SCRIPT), run_name="__main__")
        found.append(json.loads(table.read_text()))
        trained = "epoch 1 of 1" in capsys.readouterr().out
        assert trained == (len(found) == 1)  # the second time there is nothing to train
    assert found[0] == found[1]
    twin = found[0]["blur-cwcnn"]
    assert twin["likeness"] >= 0.95
    assert 0 <= twin["error"] <= 100
    assert all(len(curve) == 8 for curve in twin["curves"].values())
