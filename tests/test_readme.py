"""Every block of README runs as it stands, and its figures are those of the commands it names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = "".join(blocks("sh")).splitlines()
    return [line.split("#")[0].strip() for line in lines]


def test_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 160, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{index}.png")
    for command in commands():
        name, *arguments = shlex.split(command)
        if name == "dtwpt":
            run = [sys.executable, "-m", "dtwpt", *arguments]
            subprocess.run(run, check=True, capture_output=True)
        elif name == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE)
        else:
            assert command == 'pip install ".[extract,sklearn,plot]"'
    assert (tmp_path / "features.zarr").is_dir()
    names: dict[str, object] = {}
    for block in blocks("python"):
        capsys.readouterr()
        exec(compile(block, "README.md", "exec"), names)
        printed = capsys.readouterr().out.split()
        promised = re.findall(r"print\(.*# (\d\.\d+)$", block, re.MULTILINE)
        for said, found in zip(promised, printed, strict=len(promised) > 0):
            # Solvers of other versions may change the answer for a few of 898 digits.
            assert float(said) == pytest.approx(float(found), abs=0.01)
    assert np.allclose(names["again"], names["image"], rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_figures_of_speed_are_those_on_file() -> None:
    path = ROOT / "benchmarks" / "results" / "cpu.json"
    bars = {bar["name"]: bar["value"] for bar in json.loads(path.read_text())["bars"]}
    for name, row in (
        ("cmod2 / stem, 16 x 3 x 224 x 224", "time, share of ResNet's first layers"),
        ("cmod2 / stem on busy cores", "the same with a busy process on each core"),
    ):
        assert f"| {row} | {bars[name]:.3f} |" in README


def test_files_that_are_named_are_there() -> None:
    for path in re.findall(r"\]\((docs/[^)]*)\)|`((?:docs|examples|benchmarks)/[^`]*)`", README):
        name = "".join(path)
        assert (ROOT / name).exists() or name.startswith("docs/_build"), name
