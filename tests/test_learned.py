"""Learned packet filters: where they begin, and that they stay orthonormal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.autograd import gradcheck  # noqa: E402

import dtwpt  # noqa: E402
from dtwpt.engine.spec import Analysis  # noqa: E402
from dtwpt.nn import WaveletStem  # noqa: E402
from dtwpt.nn.learned import LearnedFilters  # noqa: E402
from tests.strategies import noise  # noqa: E402


def trained(depth: int, wavelet: str) -> LearnedFilters:
    """Return filters after steps that change them much."""
    torch.manual_seed(0)
    filters = LearnedFilters(dtwpt.PacketBank(depth, wavelet)).double()
    optimiser = torch.optim.SGD(filters.parameters(), 0.2)
    target = torch.randn_like(filters())
    for _ in range(3):
        optimiser.zero_grad()
        torch.autograd.backward((filters() - target).square().sum())
        optimiser.step()
    assert filters.turns.abs().max() > 0.1
    return filters


@pytest.mark.parametrize("wavelet", dtwpt.wavelets())
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_learning_begins_at_the_wavelet(depth: int, wavelet: str) -> None:
    bank = dtwpt.PacketBank(depth, wavelet)
    expected = np.concatenate([bank.filters.real, -bank.filters.imag])
    found = LearnedFilters(bank).double()().detach().numpy()
    assert np.allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("depth", "wavelet"), [(1, "qshift_06"), (2, "qshift_b"), (3, "qshift_a")])
def test_reconstruction_is_perfect_after_training(depth: int, wavelet: str) -> None:
    filters = trained(depth, wavelet)
    count = 2**depth
    analysis = Analysis(depth, wavelet, count, "periodic")
    x = torch.from_numpy(noise(1, 2, 6 * count, 4 * count)).requires_grad_()
    c = filters.analyse(x, analysis, analysis.size(x.shape[-2:]), "parts")
    (inverse,) = torch.autograd.grad(c, x, c.detach())  # the adjoint
    assert torch.allclose(inverse, x, rtol=0, atol=1e-12)
    # Every packet but the first is blind to the mean, as it was.
    sums = filters().reshape(2, count, -1).sum(2)
    assert sums[:, 1:].abs().max() < 1e-5
    assert torch.allclose(sums[:, 0].abs(), torch.tensor(count / 2).sqrt().double(), atol=1e-5)


def test_gradients() -> None:
    filters = trained(2, "qshift_a")
    assert gradcheck(lambda _: filters(), (filters.turns,))  # which it changes in place


@pytest.mark.parametrize("operator", ["cmod", "rmax"])
@pytest.mark.parametrize("options", [{}, {"colour": "none"}, {"blur": 3}, {"mode": "zero"}])
def test_a_stem_with_learned_filters(operator: str, options: Any) -> None:
    """At first it gives what the fixed one gives; then it learns."""
    torch.manual_seed(1)
    fixed = WaveletStem(3, 8, operator=operator, free_channels=3, **options).double()
    learned: Any = WaveletStem(
        3, 8, operator=operator, free_channels=3, learn_filters=True, **options
    ).double()
    missing, unexpected = learned.load_state_dict(fixed.state_dict(), strict=False)
    assert (missing, unexpected) == (["filters.turns"], [])
    x = torch.from_numpy(noise(2, 2, 3, 37, 40))
    assert torch.allclose(learned(x), fixed(x), rtol=0, atol=1e-10)
    assert torch.allclose(learned.resulting_kernel(), fixed.resulting_kernel(), rtol=0, atol=1e-12)
    before = learned(x)
    before.square().sum().backward()
    grad = learned.filters.turns.grad
    assert grad.abs().max() > 0
    with torch.no_grad():
        learned.filters.turns -= 0.1 * grad / grad.abs().max()
    assert not torch.allclose(learned(x), before, atol=1e-3)
    assert not torch.allclose(learned.resulting_kernel(), fixed.resulting_kernel(), atol=1e-3)
    # Precision of the filters under autocast, and no NaN where nothing is seen.
    with torch.autocast("cpu", torch.bfloat16):
        y = learned.float()(torch.zeros(1, 3, 16, 16))
        y.float().sum().backward()
    assert torch.isfinite(learned.filters.turns.grad).all()


def test_costs_of_learned_filters_are_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    stem = WaveletStem(learn_filters=True, free_channels=0, groups="octave").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        stem(torch.rand(1, 3, 50, 64))
    assert stem.macs((50, 64)) == counter.get_total_flops() // 2


def test_what_cannot_be_learned_is_refused() -> None:
    low = dtwpt.Wavelet("qshift_a").low
    other = dtwpt.Wavelet.from_taps(low + np.array([[0.0], [1e-12]]))
    with pytest.raises(ValueError, match="tree b is the time reverse of tree a, got 'custom'"):
        LearnedFilters(dtwpt.PacketBank(2, other))
    with pytest.raises(TypeError, match="learn_filters must be True or False, got 1"):
        WaveletStem(learn_filters=1)  # type: ignore[arg-type]


def test_training_a_network_with_learned_filters_lowers_the_loss() -> None:
    torch.manual_seed(2)
    stem = WaveletStem(1, 8, free_channels=0, learn_filters=True)
    model = nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    x, target = torch.rand(4, 1, 24, 24), torch.tensor([0, 1, 0, 1])
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(x), target)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
