"""The reproduction: its script runs, and the documentation quotes what it printed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.photographs import NAMES, crops
from tests.test_examples import run_example

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reproduction.rst"
REPORT = ROOT / "docs" / "images" / "reproduction" / "report.txt"
LAYER = REPORT.parent / "layer.txt"
PICTURES = ("maps-2.png", "maps-3.png", "prediction.png", "shifts.png")
# Decimals, signed where they are.
NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d+\.\d+(?![\w.]*\.\d)")


def skeleton(text: str) -> list[str]:
    """Words of the lines, without numbers and the photographs' names, up to the second depth."""
    lines = text.split("Depth 3", maxsplit=1)[0].splitlines()
    words = (" ".join(re.findall(r"[^\W\d]+", line)) for line in lines)
    return [line for line in words if line and line not in NAMES]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "examples" / "reproduce_shift_invariance.py"
    spec = importlib.util.spec_from_file_location("reproduce_shift_invariance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script_prints_what_the_documentation_shows(tmp_path: Path) -> None:
    printed = run_example(
        "reproduce_shift_invariance.py",
        *("--crops", "8", "--depths", "2", "--output", "out"),
        folder=tmp_path,
    )
    saved = (tmp_path / "out" / "report.txt").read_text("utf-8")
    assert saved.strip() in printed
    assert skeleton(saved) == skeleton(REPORT.read_text("utf-8"))
    for name in PICTURES:
        drawn = tmp_path / "out" / name
        assert name == "maps-3.png" or drawn.read_bytes().startswith(b"\x89PNG")
        assert (REPORT.parent / name).stat().st_size < 250_000
    # Eight crops, one per photograph, tell the same story.
    rows = re.findall(r"^RMax, shifted +(0\.\d+) +(0\.\d+) +(\d\.\d+) +(0\.\d+)$", saved, re.M)
    assert len(rows) == 2
    for measured, predicted, ratio, correlation in rows:
        assert float(measured) > float(predicted)
        assert 1.1 < float(ratio) < 1.6
        assert float(correlation) > 0.95
    controls = re.findall(r"(\d\.\d) % +\d\.\d+$", saved, re.M)
    assert len(controls) == 3
    assert all(float(difference) < 6 for difference in controls)


def test_page_quotes_the_reports() -> None:
    reports = REPORT.read_text("utf-8") + LAYER.read_text("utf-8")
    known = {text.replace("\u2212", "-") for text in NUMBER.findall(reports)}
    prose = PAGE.read_text("utf-8")
    prose = re.sub(r"arXiv \d+\.\d+( <\S+>)?", "", prose)
    quoted = {text.replace("\u2212", "-") for text in NUMBER.findall(prose)}
    assert len(quoted) > 40
    assert quoted <= known, sorted(quoted - known)


def test_a_trained_layer_is_as_the_page_says(tmp_path: Path) -> None:
    printed = run_example(
        "trained_layer.py", "--crops", "4", "--shift", "0.5", "-1", "--output", "out",
        folder=tmp_path,
    )  # fmt: skip
    saved = (tmp_path / "out" / "layer.txt").read_text("utf-8")
    assert saved.strip() in printed
    assert skeleton(saved) == skeleton(LAYER.read_text("utf-8"))
    assert saved.splitlines()[0] == LAYER.read_text("utf-8").splitlines()[0]
    assert (tmp_path / "out" / "layer.png").read_bytes().startswith(b"\x89PNG")
    correlations = [float(row) for row in re.findall(r"(-?\d\.\d+)$", saved, re.M)]
    # RMax against CMod, and RMax's own change, of kernels alone and of the whole layer.
    assert min(correlations[k] for k in (0, 4, 5)) > 0.85


def test_crops_are_those_of_the_other_tests(script: ModuleType) -> None:
    for (_, one), other in zip(script.crops(5), crops(script.SIZE, 5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gaussian_twins_keep_the_spectrum(script: ModuleType) -> None:
    _, image = next(script.crops(2))
    twin = script.gaussian_twin(image, np.random.default_rng(0))
    assert twin.mean() == pytest.approx(image.mean())
    assert twin.std() == pytest.approx(image.std())
    window = np.hanning(script.SIZE + 2)[1:-1]
    wanted = np.abs(np.fft.fft2((image - image.mean()) * window * window[:, None])).ravel()[1:]
    found = np.abs(np.fft.fft2(twin)).ravel()[1:]
    np.testing.assert_allclose(found / found.sum(), wanted / wanted.sum(), atol=1e-9)
