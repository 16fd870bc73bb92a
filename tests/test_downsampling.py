"""Poolings in the networks that people have: exactness, names of weights, reports, refusals."""

from __future__ import annotations

import pytest
import torch

torchvision = pytest.importorskip("torchvision")

from dtwpt.nn import replace_downsampling  # noqa: E402


@pytest.mark.parametrize("pool", ["blur", "aps"])
def test_polyphase_sampling_is_exact_and_blur_is_not(pool: str) -> None:
    torch.manual_seed(0)
    base = torchvision.models.resnet18(num_classes=10)
    model, report = replace_downsampling(base, pool, padding="circular")
    model.load_state_dict(base.state_dict())
    model = model.eval().double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        logits = model(x)
        change = max(
            float((model(x.roll(shift, (2, 3))) - logits).abs().max())
            for shift in [(1, 0), (3, 5), (-9, 2)]
        )
    assert (change < 1e-10) == (pool == "aps")
    assert len(report) == 8
