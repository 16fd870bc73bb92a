"""Properties of the transforms: exactness, definition, equivariance, positions, errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtwpt
from dtwpt.engine.borders import MODES
from dtwpt.typing import Mode, WaveletName
from tests import naive
from tests.strategies import depths, modes, noise, relative_error, seeds, wavelets

EXACT = {np.float64: 1e-12, np.float32: 1e-5}
sides = st.integers(1, 67)
dtypes = st.sampled_from([np.float64, np.float32])


# Exact ------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), wavelets, dtypes)
def test_parseval_frame(
    seed: int, rows: int, columns: int, depth: int, wavelet: WaveletName, dtype: Any
) -> None:
    x = noise(seed, 2, rows * 2**depth, columns * 2**depth, dtype=dtype)
    c = dtwpt.dtcwpt2(x, depth, wavelet, mode="periodic")
    assert c.dtype == {np.float64: np.complex128, np.float32: np.complex64}[dtype]
    energy = np.sum(np.abs(c.astype(complex)) ** 2)
    assert energy == pytest.approx(np.sum(x.astype(float) ** 2), rel=EXACT[dtype])
    line = x[0, 0]
    c = dtwpt.dtcwpt(line, depth, wavelet, mode="periodic")
    energy = np.sum(np.abs(c.astype(complex)) ** 2)
    assert energy == pytest.approx(np.sum(line.astype(float) ** 2), rel=EXACT[dtype])


@given(seeds, st.integers(1, 67), st.integers(1, 131), st.integers(1, 5), wavelets, modes, dtypes)
def test_inverse_is_exact_at_every_size(
    seed: int, height: int, width: int, depth: int, wavelet: WaveletName, mode: Mode, dtype: Any
) -> None:
    x = noise(seed, height, width, dtype=dtype)
    c = dtwpt.dtcwpt2(x, depth, wavelet, mode=mode)
    back = dtwpt.idtcwpt2(c, (height, width), wavelet, mode)
    assert back.dtype == dtype
    assert relative_error(back, x) < EXACT[dtype]
    c = dtwpt.dtcwpt(x, depth, wavelet, mode=mode)
    back = dtwpt.idtcwpt(c, width, wavelet, mode)
    assert back.dtype == dtype
    assert relative_error(back, x) < EXACT[dtype]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("height", "width"), [(700, 45), (300, 2600), (257, 511)])
def test_inverse_is_exact_where_images_go_through_in_parts(
    height: int, width: int, mode: Mode
) -> None:
    x = noise(0, height, width)
    banks: list[tuple[int, WaveletName]] = [(1, "qshift_d"), (2, "qshift_b"), (3, "qshift_06")]
    for depth, wavelet in banks:
        c = dtwpt.dtcwpt2(x, depth, wavelet, mode=mode)
        assert relative_error(dtwpt.idtcwpt2(c, x.shape, wavelet, mode), x) < 1e-12
        c = dtwpt.dtcwpt(x.ravel(), depth, wavelet, mode=mode)
        assert relative_error(dtwpt.idtcwpt(c, x.size, wavelet, mode), x.ravel()) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("wavelet", dtwpt.wavelets())
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_inverse_is_exact_at_all_sizes(depth: int, wavelet: WaveletName) -> None:
    """Slow because it walks through every length from 1 to 131, in every mode."""
    for mode in MODES:
        for n in range(1, 132):
            x = noise(n, 1 + n % 67, n)
            c = dtwpt.dtcwpt2(x, depth, wavelet, mode=mode)
            assert relative_error(dtwpt.idtcwpt2(c, x.shape, wavelet, mode), x) < 1e-12, (mode, n)
            c = dtwpt.dtcwpt(x, depth, wavelet, mode=mode)
            assert relative_error(dtwpt.idtcwpt(c, n, wavelet, mode), x) < 1e-12, (mode, n)


@given(seeds, depths, wavelets, st.integers(0, 4))
def test_inverse_is_the_adjoint_in_a_parseval_frame(
    seed: int, depth: int, wavelet: WaveletName, extra: int
) -> None:
    """<A x, c> = <x, A* c> with the inverse as A*, for coefficients that belong to no image."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=((1 + extra) * 2**depth, 2 ** (depth + 1)))
    c = dtwpt.dtcwpt2(x, depth, wavelet, mode="periodic")
    d = rng.normal(size=c.shape) + 1j * rng.normal(size=c.shape)
    left = np.vdot(c, d).real
    right = np.vdot(x.astype(complex), dtwpt.idtcwpt2(d, wavelet=wavelet, mode="periodic"))
    scale = np.linalg.norm(c) * np.linalg.norm(d)
    assert abs(left - right) < 1e-12 * scale


def test_inverse_is_least_squares() -> None:
    """The residual of the nearest image is orthogonal to the coefficients of every image."""
    rng = np.random.default_rng(1)
    for mode in MODES:
        shape = dtwpt.dtcwpt2(np.zeros((13, 30)), 2, mode=mode).shape
        d = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        nearest = dtwpt.dtcwpt2(dtwpt.idtcwpt2(d, (13, 30), mode=mode), 2, mode=mode)
        other = dtwpt.dtcwpt2(rng.normal(size=(13, 30)), 2, mode=mode)
        assert abs(np.vdot(d - nearest, other).real) < 1e-11


# One definition ---------------------------------------------------------------------------------


@given(seeds, st.integers(1, 19), st.integers(0, 3), st.integers(1, 3), modes)
def test_one_dimension_follows_the_definition(
    seed: int, n: int, stride: int, depth: int, mode: Mode
) -> None:
    x = noise(seed, n)
    stride = 2 ** min(stride, depth)
    low = list(dtwpt.Wavelet("qshift_a").low[0])
    expected = naive.dtcwpt(x, low, depth, stride, mode)
    actual = dtwpt.dtcwpt(x, depth, "qshift_a", stride, mode)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("height", "width", "depth", "stride", "wavelet"),
    [(5, 9, 2, 4, "qshift_b"), (1, 3, 1, 1, "qshift_d"), (7, 4, 2, 2, "qshift_06")],
)
def test_two_dimensions_follow_the_definition(
    height: int, width: int, depth: int, stride: int, wavelet: WaveletName, mode: Mode
) -> None:
    x = noise(height, height, width)
    expected = naive.dtcwpt2(x, list(dtwpt.Wavelet(wavelet).low[0]), depth, stride, mode)
    actual = dtwpt.dtcwpt2(x, depth, wavelet, stride, mode)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


@given(seeds, depths, modes, st.integers(0, 4))
def test_long_signals_follow_the_definition(seed: int, depth: int, mode: Mode, part: int) -> None:
    """Where the matrix is applied in bands: each coefficient is an inner product with a packet."""
    x = noise(seed, 900 + seed % 40)
    bank = dtwpt.PacketBank(depth)
    length, stride = bank.filters.shape[1], 2 ** max(depth - part, 0)
    c = dtwpt.dtcwpt(x, depth, stride=stride, mode=mode)
    reach = length + stride
    pad_mode = {"replicate": "edge", "periodic": "wrap", "zero": "constant"}.get(mode, mode)
    padded = np.pad(x, reach, mode=pad_mode)  # type: ignore[call-overload]
    for n in {0, 1, c.shape[1] // 2, c.shape[1] - 1}:
        start = reach + stride * n + (stride - length) // 2
        expected = padded[start : start + length] @ bank.filters.conj().T
        np.testing.assert_allclose(c[:, n], expected, rtol=0, atol=1e-12)


def test_large_images_follow_the_definition() -> None:
    """Where images go through in parts: the separable product of one-dimensional transforms."""
    x = noise(3, 530, 2300)
    for mode in MODES:
        c = dtwpt.dtcwpt2(x, 2, mode=mode)
        across = dtwpt.dtcwpt(x, 2, mode=mode)
        for sign, part in enumerate((across, across.conj())):
            rows = np.moveaxis(part, 0, -1)  # (packet, column, height)
            down = dtwpt.dtcwpt(np.ascontiguousarray(rows.real), 2, mode=mode) + 1j * dtwpt.dtcwpt(
                np.ascontiguousarray(rows.imag), 2, mode=mode
            )
            expected = np.sqrt(0.5) * np.transpose(down, (2, 0, 3, 1))
            np.testing.assert_allclose(c[sign], expected, rtol=0, atol=1e-12)


def test_coefficients_are_inner_products_with_atoms() -> None:
    x = noise(5, 64, 96)
    c = dtwpt.dtcwpt2(x, 3, mode="periodic")
    bank = dtwpt.PacketBank(3)
    length = bank.filters.shape[1]
    for sign, i, j, row, column in [(1, 1, 2, 3, 5), (-1, 7, 0, 0, 11), (-1, 4, 6, 7, 0)]:
        atom = bank.atom(sign, i, j)
        rows = (8 * row + (8 - length) // 2 + np.arange(length)) % 64
        columns = (8 * column + (8 - length) // 2 + np.arange(length)) % 96
        expected = np.vdot(atom, x[np.ix_(rows, columns)])
        actual = c[0 if sign == 1 else 1, i, j, row, column]
        assert actual == pytest.approx(expected, abs=1e-13)


# Equivariant, and where a person expects --------------------------------------------------------


@given(seeds, depths, st.integers(0, 4), wavelets, st.integers(1, 4))
def test_moving_by_one_stride_moves_by_one_sample(
    seed: int, depth: int, part: int, wavelet: WaveletName, cells: int
) -> None:
    stride = 2 ** max(depth - part, 0)
    x = noise(seed, 6 * stride * 2 ** (depth // 2), (cells + 1) * stride)
    c = dtwpt.dtcwpt2(x, depth, wavelet, stride, "periodic")
    moved = dtwpt.dtcwpt2(
        np.roll(x, (2 * stride, -stride), (0, 1)), depth, wavelet, stride, "periodic"
    )
    # Each coefficient is the same product of the same numbers, but at another place of its
    # matrix product, which may round in another order.
    np.testing.assert_allclose(moved, np.roll(c, (2, -1), (-2, -1)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", ["symmetric", "reflect", "replicate", "zero"])
def test_moving_moves_away_from_borders(mode: Mode) -> None:
    x = noise(0, 200, 200)
    one = dtwpt.dtcwpt2(x[:160, :160], 2, mode=mode)
    other = dtwpt.dtcwpt2(x[4:164, 8:168], 2, mode=mode)
    inner = slice(8, -8)
    np.testing.assert_allclose(
        other[..., inner, inner], one[..., 9 : 40 - 7, 10 : 40 - 6], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("stride_part", [0, 1])
def test_a_blob_is_answered_where_the_table_says(depth: int, stride_part: int) -> None:
    """The response to a blob, at every packet, is centred on the blob less the packet's offset."""
    bank = dtwpt.PacketBank(depth)
    stride = 2 ** (depth - stride_part)
    n, place_y, place_x = 32 * 2**depth, 15 * 2**depth + 1.0, 14 * 2**depth + 3.0
    y, x = np.arange(n)[:, None], np.arange(n)[None, :]
    blob = np.exp(-((y - place_y) ** 2 + (x - place_x) ** 2) / (2 * 0.3**2))
    c = dtwpt.dtcwpt2(blob, depth, stride=stride, mode="periodic")
    energy = (np.abs(c) ** 2).reshape(2 * 4**depth, *c.shape[-2:])
    energy /= energy.sum((1, 2), keepdims=True)
    position = (
        stride * np.arange(c.shape[-1]) + (stride - 1) / 2 if stride > 1 else np.arange(n) - 0.5
    )
    centre_y = energy.sum(2) @ position
    centre_x = energy.sum(1) @ position
    atoms = bank.atoms()
    # Sampling the response at the stride lets its centre swing by a fraction of the stride.
    np.testing.assert_allclose(centre_y, place_y - atoms["offset_y"], atol=0.3 * stride)
    np.testing.assert_allclose(centre_x, place_x - atoms["offset_x"], atol=0.3 * stride)
    fine = np.abs(dtwpt.dtcwpt2(blob, depth, stride=1, mode="periodic")) ** 2
    fine = fine.reshape(2 * 4**depth, n, n)
    fine /= fine.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(
        fine.sum(2) @ (np.arange(n) - 0.5), place_y - atoms["offset_y"], atol=0.02
    )
    np.testing.assert_allclose(
        fine.sum(1) @ (np.arange(n) - 0.5), place_x - atoms["offset_x"], atol=0.02
    )


# Input ------------------------------------------------------------------------------------------


def test_leading_axes_are_the_users() -> None:
    x = noise(0, 2, 3, 1, 10, 14)
    c = dtwpt.dtcwpt2(x)
    assert c.shape == (2, 3, 1, 2, 4, 4, 3, 4)
    np.testing.assert_array_equal(c[1, 2, 0], dtwpt.dtcwpt2(x[1, 2, 0]))
    assert dtwpt.idtcwpt2(c, (10, 14)).shape == x.shape
    assert dtwpt.dtcwpt(x).shape == (2, 3, 1, 10, 4, 4)


def test_default_sizes_of_the_inverse() -> None:
    c = dtwpt.dtcwpt2(noise(0, 12, 20))
    assert dtwpt.idtcwpt2(c).shape == (12, 20)
    assert dtwpt.idtcwpt(dtwpt.dtcwpt(noise(0, 24), 3)).shape == (24,)


@pytest.mark.parametrize("layout", ["fortran", "reversed", "strided", "read-only", "big-endian"])
def test_any_memory_layout(layout: str) -> None:
    x = noise(0, 40, 60)
    other = {
        "fortran": np.asfortranarray(x),
        "reversed": x[::-1, ::-1].copy()[::-1, ::-1],
        "strided": np.repeat(x, 3, axis=1)[:, ::3],
        "read-only": x.copy(),
        "big-endian": x.astype(">f8"),
    }[layout]
    other.setflags(write=False)
    np.testing.assert_array_equal(dtwpt.dtcwpt2(other, 3), dtwpt.dtcwpt2(x, 3))
    np.testing.assert_array_equal(dtwpt.dtcwpt(other, 3), dtwpt.dtcwpt(x, 3))
    c = dtwpt.dtcwpt2(x)
    np.testing.assert_array_equal(
        dtwpt.idtcwpt2(np.asfortranarray(c), (40, 60)), dtwpt.idtcwpt2(c, (40, 60))
    )


def test_inputs_are_left_alone() -> None:
    x = noise(0, 30, 30)
    kept = x.copy()
    c = dtwpt.dtcwpt2(x)
    dtwpt.cmod2(x)
    dtwpt.rmax2(x)
    np.testing.assert_array_equal(x, kept)
    kept = c.copy()
    dtwpt.idtcwpt2(c, (30, 30))
    np.testing.assert_array_equal(c, kept)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("uint8", 255), ("uint16", 65535), ("bool", 1), ("int16", 1), ("int64", 1), ("uint32", 1)],
)
def test_integers_become_float32(dtype: str, scale: int) -> None:
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, (8, 12)).astype(dtype)
    expected = dtwpt.dtcwpt2((x / np.float64(scale)).astype(np.float32))
    actual = dtwpt.dtcwpt2(x)
    assert actual.dtype == np.complex64
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert dtwpt.dtcwpt2(x.tolist()).dtype == np.complex64


def test_nan_and_infinity_pass_through_to_the_coefficients_that_see_them() -> None:
    x = np.zeros((400, 400))
    x[200, 100] = np.nan
    with np.errstate(invalid="ignore"):
        bad = np.isnan(dtwpt.cmod2(x, 2))
    assert bad[..., 48:52, 23:27].all()
    assert not bad[..., :38, :].any()
    assert not bad[..., 40:].any()


@pytest.mark.parametrize("function", [dtwpt.dtcwpt2, dtwpt.cmod2, dtwpt.rmax2, dtwpt.dtcwpt])
def test_bad_images_are_refused(function: Any) -> None:
    axes = "N" if function is dtwpt.dtcwpt else "H, W"
    with pytest.raises(ValueError, match=rf"x must have shape \(\.\.\., {axes}\), got"):
        function(np.float64(3) if axes == "N" else np.ones(5))
    with pytest.raises(ValueError, match=r"x must not be empty, got shape \(0, 5\)"):
        function(np.ones((0, 5)))
    for dtype in ("complex128", "object", "float16", "U3", "datetime64[s]"):
        with pytest.raises(TypeError, match="x must be float32, float64, bool or integer"):
            function(np.ones((4, 4), int).astype(dtype))
    with pytest.raises(TypeError, match="x must not be masked"):
        function(np.ma.masked_greater(np.ones((4, 4)), 0))
    with pytest.raises(ValueError, match="x must be an array"):
        function([[1, 2], [3]])


@pytest.mark.parametrize("function", [dtwpt.dtcwpt2, dtwpt.cmod2, dtwpt.rmax2, dtwpt.dtcwpt])
def test_bad_arguments_are_named(function: Any) -> None:
    x = np.ones((8, 8))
    with pytest.raises(ValueError, match="unknown wavelet 'db2'; known wavelets: qshift_06, "):
        function(x, 2, "db2")
    with pytest.raises(TypeError, match="wavelet must be a name"):
        function(x, 2, None)
    with pytest.raises(ValueError, match="unknown mode 'wrap'; known modes: symmetric, reflect"):
        function(x, mode="wrap")
    with pytest.raises(TypeError, match="mode must be a string, got int"):
        function(x, mode=1)
    for depth in (0, -1):
        with pytest.raises(ValueError, match="depth must be an integer from 1 to 10"):
            function(x, depth)
    for other in (2.0, "2", None, True):
        with pytest.raises(TypeError, match="depth must be an integer from 1 to 10"):
            function(x, other)


@pytest.mark.parametrize("function", [dtwpt.dtcwpt2, dtwpt.dtcwpt])
def test_bad_strides_are_refused(function: Any) -> None:
    for stride in (0, -2, 3, 8):
        with pytest.raises(
            ValueError, match=r"stride must be a power of two from 1 to .* = 4, got"
        ):
            function(np.ones((8, 8)), 2, stride=stride)
    with pytest.raises(TypeError, match="stride must be a power of two"):
        function(np.ones((8, 8)), 2, stride=2.0)


def test_coefficients_that_fit_no_depth_are_refused() -> None:
    for shape in [(2, 3, 3, 4, 4), (2, 1, 1, 4, 4), (3, 4, 4, 4, 4), (2, 4, 8, 4, 4), (4, 4, 4, 4)]:
        with pytest.raises(ValueError, match=r"c must have shape \(\.\.\., 2, 2\*\*depth"):
            dtwpt.idtcwpt2(np.ones(shape, complex))
    with pytest.raises(ValueError, match="c must have shape"):
        dtwpt.idtcwpt2(np.ones((2, 4, 4, 0, 4), complex))
    for short in [(3, 5), (1, 5), (4,), (4, 0)]:
        with pytest.raises(ValueError, match=r"c must have shape \(\.\.\., 2\*\*depth, N'\)"):
            dtwpt.idtcwpt(np.ones(short, complex))
    with pytest.raises(TypeError, match="c must be complex64 or complex128, got float64"):
        dtwpt.idtcwpt2(np.ones((2, 4, 4, 3, 3)))
    c = np.ones((2, 4, 4, 3, 3), complex)
    with pytest.raises(ValueError, match=r"shape\[1\] must be from 9 to 12 .* got 13"):
        dtwpt.idtcwpt2(c, (10, 13))
    with pytest.raises(TypeError, match=r"shape must be a pair \(H, W\) of integers"):
        dtwpt.idtcwpt2(c, 12)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"shape\[0\] must be an integer from 9 to 12, got 9\.5"):
        dtwpt.idtcwpt2(c, (9.5, 12))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape must be from 9 to 12"):
        dtwpt.idtcwpt(np.ones((4, 3), complex), 8)


# Company ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 96), (224, 224), (10, 400), (1, 7)])
@pytest.mark.parametrize("depth", [2, 3])
def test_an_image_does_not_feel_its_batch(size: tuple[int, int], depth: int) -> None:
    x = np.random.default_rng(0).random((21, *size), dtype=np.float32)
    for function in (dtwpt.cmod2, dtwpt.rmax2, dtwpt.dtcwpt2, dtwpt.dtcwpt):
        together = function(x, depth)
        for part in (slice(0, 1), slice(6, 9), slice(20, 21)):
            np.testing.assert_array_equal(function(x[part], depth), together[part])
    together = dtwpt.idtcwpt2(dtwpt.dtcwpt2(x, depth), size)
    np.testing.assert_array_equal(dtwpt.idtcwpt2(dtwpt.dtcwpt2(x[20:], depth), size), together[20:])


def test_sixteen_threads_agree_with_one() -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((40 + 3 * k, 90 - 2 * k), dtype=np.float32) for k in range(16)] * 4
    alone = [dtwpt.cmod2(image, 3) for image in images]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda image: dtwpt.cmod2(image, 3), images))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
