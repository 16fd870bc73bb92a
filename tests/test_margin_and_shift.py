"""The margin of shift-invariant classifiers, and shifts estimated from phases."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import fourier_shift

from dtwpt.invariance import dc_margin, estimate_shift
from tests.strategies import noise


def all_shifts(images: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = images.shape[1:]
    rolled = [np.roll(images, (i, j), (1, 2)) for i in range(rows) for j in range(columns)]
    return np.concatenate(rolled).reshape(-1, rows * columns)


@pytest.mark.parametrize(("seed", "rows", "columns"), [(0, 2, 3), (1, 3, 3), (2, 1, 5)])
def test_dc_margin_is_the_support_vector_machines(seed: int, rows: int, columns: int) -> None:
    svm = pytest.importorskip("sklearn.svm")
    a = noise(seed, 2, rows, columns)
    b = noise(seed + 1, 3, rows, columns)
    b += 1 + (a.mean((1, 2)).max() - b.mean((1, 2)).min())  # so that they can be separated
    margin = dc_margin(a, b)
    assert margin > 0
    assert dc_margin(b, a) == pytest.approx(margin)
    shifts = [all_shifts(images) for images in (a, b)]
    labels = np.repeat([0, 1], [len(part) for part in shifts])
    fitted = svm.SVC(kernel="linear", C=1e4, tol=1e-6).fit(np.concatenate(shifts), labels)
    assert 2 / np.linalg.norm(fitted.coef_) == pytest.approx(margin, rel=1e-3)
    assert fitted.coef_ == pytest.approx(np.full_like(fitted.coef_, fitted.coef_.mean()), rel=1e-2)


def test_dc_margin_where_classes_overlap() -> None:
    assert dc_margin([[0.0, 2.0], [1.0, 1.0]], [[1.0, 1.0]]) == 0
    assert dc_margin([[0.0, 0.0], [4.0, 4.0]], [[1.0, 1.0]]) == pytest.approx(-(2**0.5))
    with pytest.raises(ValueError, match=r"of one size, got \(2,\) and \(3,\)"):
        dc_margin(np.ones((1, 2)), np.ones((1, 3)))


def test_estimated_shifts_of_photographs() -> None:
    """Ten times nearer than phase correlation to a hundredth of a pixel, on the same images."""
    pytest.importorskip("skimage")
    from skimage.registration import phase_cross_correlation as correlate

    from tests.photographs import crops

    rng = np.random.default_rng(0)
    ours, theirs = [], []
    middle = (slice(80, 176),) * 2
    for image in crops(256, 6):
        shift = rng.uniform(-12, 12, 2)
        moved = np.fft.ifft2(fourier_shift(np.fft.fft2(image), shift)).real
        a, b = image[middle], moved[middle]
        ours.append(np.abs(estimate_shift(a, b) - shift).max())
        found = correlate(b, a, upsample_factor=100)[0]  # type: ignore[no-untyped-call]
        theirs.append(np.abs(found - shift).max())
    assert max(ours) < 0.005
    assert 10 * np.median(ours) < np.median(theirs)


def test_estimated_shift_of_what_shows_nothing() -> None:
    np.testing.assert_array_equal(estimate_shift(np.zeros((32, 40)), np.zeros((32, 40))), 0)
    # Stripes tell of one direction only.
    stripes = np.sin(0.9 * np.arange(48)) * np.ones((48, 1))
    right = estimate_shift(stripes, np.roll(stripes, 1, 1))
    assert right[1] == pytest.approx(1, abs=0.1)
    assert right[0] == pytest.approx(0, abs=0.1)
    with pytest.raises(ValueError, match="at least 24 each way"):
        estimate_shift(np.zeros((8, 40)), np.zeros((8, 40)))
    with pytest.raises(ValueError, match="b must be finite"):
        estimate_shift(np.zeros((24, 24)), np.full((24, 24), np.nan))
