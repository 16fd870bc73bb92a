from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

for needed in ("matplotlib", "skimage", "sklearn", "click", "PIL"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parent.parent


def run_example(name: str, *arguments: str, folder: Path) -> str:
    # Found from anywhere, installed or not.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo(tmp_path: Path) -> None:
    printed = run_example(
        "demo.py", "--output", "out", "--photographs", "camera", "brick", folder=tmp_path
    )
    assert f"$ dtwpt extract {Path('out/photographs')} -o {Path('out/features.npz')}" in printed
    with np.load(tmp_path / "out" / "features.npz") as table:
        assert table["features"].shape == (2, 32)
        assert [Path(file).name for file in table["files"]] == ["brick.png", "camera.png"]
    for name in ("filters", "maps", "shift"):
        picture = tmp_path / "out" / f"{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 30_000
    changes = re.findall(r"depth (\d), (\d) px: CMod (\d\.\d+), RMax (\d\.\d+)", printed)
    assert [(int(depth), int(shift)) for depth, shift, _, _ in changes] == [
        (depth, shift) for depth in (2, 3) for shift in (1, 2, 4)
    ]
    for _, shift, cmod, rmax in changes:
        assert shift != "1" or 0.005 < 2 * float(cmod) < float(rmax) < 0.5


def test_shift_animation(tmp_path: Path) -> None:
    printed = run_example(
        "shift_animation.py", "-o", "moving.gif", "--pixels", "2", folder=tmp_path
    )
    from PIL import Image

    with Image.open(tmp_path / "moving.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 4  # there and back
    for convolution, rmax, cmod in re.findall(
        r"convolution (\S+) .*RMax (\S+) .*CMod (\S+)", printed
    ):
        assert 5 * float(cmod) < float(rmax) < float(convolution)


def test_classify_textures(tmp_path: Path) -> None:
    printed = run_example(
        "classify_textures.py",
        *("--splits", "2", "--test", "20", "--noise", "0", "--pool", "2"),
        *("--output", "table.csv"),
        folder=tmp_path,
    )
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["features"]) for row in rows] == [
        ("CMod", "128"),
        ("RMax", "128"),
        ("Gabor", "72"),
        ("HOG", "144"),
    ]
    for row in rows:
        accuracy = float(row["accuracy"])
        assert 33.4 < accuracy <= 100
        assert f"{accuracy:.1f} ± {float(row['accuracy_se']):.1f}" in printed
        assert all(0 <= float(row[f"changed_{distance}px"]) <= 50 for distance in (1, 2, 3))
    assert float(rows[0]["accuracy"]) > 70
