"""Stems with blurred and learned parts as ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from dtwpt.nn import WaveletStem  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]

STEMS: dict[str, dict[str, Any]] = {
    "rmax, blur": {"operator": "rmax", "blur": 3},
    "rmax, adaptive": {"operator": "rmax", "blur": "adaptive"},
    "cmod, adaptive": {"blur": "adaptive"},
    "learned filters": {"learn_filters": True},
    "rmax, sectors": {"operator": "rmax", "groups": "sector"},
}


def compare(options: dict[str, Any], sizes: list[tuple[int, int, int]], path: Path) -> None:
    """Export for images of any size where there are several, and run on each."""
    stem = WaveletStem(**options).eval()
    images = [torch.rand(n, 3, *size) for n, *size in sizes]
    anything = torch.export.Dim.DYNAMIC
    shapes: Any = ({0: anything, 2: anything, 3: anything},) if len(sizes) > 1 else None
    program = torch.onnx.export(
        stem, (images[0],), dynamo=True, verbose=False, dynamic_shapes=shapes
    )
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    for x in images:
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(out, stem(x).detach().numpy(), rtol=0, atol=1e-5)


def test_a_blurred_stem_of_a_fixed_size(tmp_path: Path) -> None:
    options = {"out_channels": 16, "free_channels": 8} | STEMS["rmax, adaptive"]
    compare(options, [(2, 32, 40)], tmp_path / "stem.onnx")


@pytest.mark.slow  # ten seconds each
@pytest.mark.parametrize("name", STEMS)
def test_stems_for_any_size(name: str, tmp_path: Path) -> None:
    compare(STEMS[name], [(2, 64, 80), (3, 97, 51)], tmp_path / "stem.onnx")
