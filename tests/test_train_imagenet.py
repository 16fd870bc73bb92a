"""The reproduction of the papers' twins, on images that are made up."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

for needed in ("torch", "torchvision", "PIL"):
    pytest.importorskip(needed)

SCRIPT = Path(__file__).parent.parent / "examples" / "train_imagenet.py"


def test_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch import nn

    script = runpy.run_path(str(SCRIPT), run_name="train_imagenet")
    options = SimpleNamespace(batch=4, workers=0, network="resnet18", epochs=3, amp="bfloat16")
    options.seed, options.size, options.device = 0, 32, torch.device("cpu")
    options.data = script["made_up"](tmp_path / "data", 32)
    training, _ = script["images"](options)
    few = torch.utils.data.Subset(training, range(0, 200, 20))

    def trained(name: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        first = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        model = nn.Sequential(*first, nn.Flatten(), nn.Linear(4, 2))
        script["train"](model, few, tmp_path / name, options)
        return list(model.state_dict().values())

    whole = trained("whole.pt")
    written = torch.save

    def interrupted(state: dict[str, object], path: Path) -> None:
        if state["epoch"] == 2:
            raise KeyboardInterrupt
        written(state, path)

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained("again.pt")
    monkeypatch.undo()
    assert all(map(torch.equal, trained("again.pt"), whole))


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
