from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for needed in ("torch", "torchvision", "skimage", "sklearn", "matplotlib"):
    pytest.importorskip(needed)

SCRIPT = Path(__file__).parent.parent / "examples" / "train_classifier.py"
AVERAGED = ["antialias", "antialias, norms", "antialias, fitted", "antialias, all"]
# One of each kind that the script prints.
STEMS = ["conv", *AVERAGED, "paper-cmod"]

Run = Callable[..., dict[str, list[dict[str, Any]]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the script in this process, where torchvision imports."""

    def run(*arguments: str) -> dict[str, list[dict[str, Any]]]:
        table = tmp_path / "table.json"
        command = [str(SCRIPT), "--quick", "--json", str(table), *arguments]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command)
            runpy.run_path(str(SCRIPT), run_name="__main__")
        rows: dict[str, list[dict[str, Any]]] = json.loads(table.read_text())
        return rows

    return run


def test_photographs(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from dtwpt.invariance import characterize

    arguments = (
        *("--size", "32", "--calibration", "18", "--reach", "1"),
        *("--pictures", str(tmp_path / "pictures")),
    )
    rows = run(*arguments, "--stems", "conv", "paper-cmod", "--checkpoints", str(tmp_path))
    assert list(rows) == STEMS
    for (row,) in rows.values():
        rates = np.array([row["accuracy"], *row["flips"]])
        assert len(rates) == 5
        assert ((rates >= 0) & (rates <= 100)).all()
        assert row["parameters"] > 0
        assert row["stem_macs"] > 0
    (averaged,), (stable,), (conv,) = (rows[name] for name in ("antialias", "paper-cmod", "conv"))
    assert averaged["parameters"] == conv["parameters"] > stable["parameters"]
    # Before and after training.
    assert min(stable["likeness"]) >= 0.95
    picture = tmp_path / "pictures" / "small-conv-0.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert all(f"\n{name:26}" in printed for name in STEMS)
    assert "minus conv, seed by seed" in printed
    # The same seed, the same figures.
    again = run(*arguments, "--stems", "paper-cmod")["paper-cmod"][0]
    assert again | {"milliseconds": 0} == stable | {"milliseconds": 0}
    # Kernels that begin as independent components are Gabor-like, and stay so.
    state = torch.load(tmp_path / "small-conv-0.pt", weights_only=True)["model"]
    random = torch.randn(32, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    count = []
    for kernels in (state["conv1.weight"], random):
        table = characterize(kernels, stride=2)
        count.append(int(((table["gabor_likeness"] > 0.6) & (table["dc_share"] < 0.1)).sum()))
    assert count[0] > 16  # of 32
    assert count[1] < 4


def test_interrupted_training_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def digits(folder: str) -> list[float]:
        arguments = ("--dataset", "digits", "--stems", "cmod", "--batch", "128")
        (row,) = run(*arguments, "--checkpoints", str(tmp_path / folder))["cmod"]
        return [row["accuracy"], *row["flips"]]

    whole = digits("whole")
    written = torch.save
    saved = 0

    def interrupted(*arguments: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise KeyboardInterrupt
        written(*arguments)

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        digits("interrupted")
    monkeypatch.undo()
    assert digits("interrupted") == whole


def test_folder(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name, brightness in (("dark", 60), ("light", 180)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(8):
                pixels = rng.normal(brightness, 20, (70, 90, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    arguments = ("--size", "48", "--batch", "4", "--stems", "rmax", "--amp", "bfloat16")
    rows = run("--data", str(tmp_path), *arguments)
    assert list(rows) == ["rmax"]
    with pytest.raises(SystemExit):
        run("--data", str(tmp_path / "train"))
