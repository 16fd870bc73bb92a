"""The examples that compare cures and attack them: exactness, resumption, and the attack itself."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

for needed in ("matplotlib", "skimage", "sklearn", "torchvision"):
    pytest.importorskip(needed)


@pytest.fixture(scope="module")
def cures() -> Any:
    folder = str(Path(__file__).parent.parent / "examples")
    sys.path.insert(0, folder)
    try:
        import compare_downsampling
        import shift_and_attack

        yield Namespace(compare=compare_downsampling, attack=shift_and_attack)
    finally:
        sys.path.remove(folder)


def test_exactness(cures: Namespace) -> None:
    compare: ModuleType = cures.compare
    for method in ("none", "blur", "aps", "lps", "tips", "spectral"):
        change = compare.exactness(method, "own", "circular", 11)
        if method in ("aps", "lps"):
            assert change["roll"] < 1e-10
        else:
            assert change["roll"] > 1e-3
        assert min(change[kind] for kind in ("crop", "fill", "half")) > 1e-3
    assert compare.exactness("aps", "own", "zero", 11)["roll"] > 1e-3


def test_resumes(cures: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare: ModuleType = cures.compare
    options = Namespace(
        parts=["b", "c", "d"],
        methods=["none", "blur"],
        stems=["own"],
        datasets=["photographs"],
        seeds=[0],
        epochs=1,
        train=66,
        test=22,
        batch=32,
        device="cpu",
        json=tmp_path / "cures.json",
        report=False,
    )
    whole = dict(compare.jobs(options))
    assert [name.split("/")[0] for name in whole] == ["b", "b", "d", "d", "c", "c"]
    chosen = ["b/photographs/none/own/0", "d/photographs/none/own/0"]
    monkeypatch.setattr(compare, "jobs", lambda _: ((name, whole[name]) for name in chosen))
    results = compare.run(options)
    assert json.loads(options.json.read_text()) == results
    text = compare.report(results)
    assert "none, recombined (1)" in text
    compare.draw(results, tmp_path / "figures")
    assert (tmp_path / "figures" / "cures-photographs.png").stat().st_size > 10_000

    def never() -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(compare, "jobs", lambda _: ((name, never) for name in chosen))
    assert compare.run(options) == results
    options.epochs = 2
    with pytest.raises(SystemExit, match="was made with"):
        compare.run(options)


def test_smallest_change_of_a_linear_classifier(cures: Namespace) -> None:
    """The distance to the boundary is known: the difference of logits over that of weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    x = torch.randn(20, 1, 4, 4, dtype=torch.float64)
    logits = model(x).detach()
    labels = logits.argmax(1)
    linear: Any = model[1]
    gap = (logits[:, 0] - logits[:, 1]).abs()
    distance = gap / (linear.weight[0] - linear.weight[1]).norm().detach()
    found = cures.attack.smallest_change(model, x, labels, 400, rate=0.02)
    assert (found >= distance).all()
    torch.testing.assert_close(found, distance, rtol=0.05, atol=2e-3)
    wrong = cures.attack.smallest_change(model, x, 1 - labels, 5)
    assert (wrong == 0).all()


def test_dial_from_connected_to_invariant(cures: Namespace) -> None:
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    for padding, invariant in ((0, False), (3, False), (7, True)):
        torch.manual_seed(0)
        model = cures.attack.Dial(padding, 5).double()
        change = (model(x.roll((1, 2), (-2, -1))) - model(x)).abs().max()
        assert (change < 1e-14) == invariant
