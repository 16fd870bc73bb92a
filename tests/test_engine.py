"""Engines against the reference, and the bits of the native one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtwpt.engine import native, reference, spec
from dtwpt.engine.borders import MODES
from dtwpt.engine.spec import STATISTICS, Analysis, Axis, Kind, Statistic

if native.info()["instruction_set"] is None:
    pytest.skip(f"no native engine: {native.info()['error']}", allow_module_level=True)

KINDS: tuple[Kind, ...] = ("complex", "parts", "real", "modulus", "rmax")
LINEAR: tuple[Kind, ...] = ("complex", "parts", "real")
TOLERANCE = {"float32": 3e-6, "float64": 2e-14}


def noise(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


def analysis_of(
    shape: tuple[int, ...],
    depth: int = 2,
    stride: int | None = None,
    mode: str = "symmetric",
    *,
    pool: int | None = None,
    packets: tuple[int, ...] | None = None,
    wavelet: str = "qshift_b",
) -> tuple[Analysis, tuple[Axis, ...]]:
    stride = stride or 2**depth
    analysis = Analysis(depth, wavelet, stride, mode, len(shape), pool, packets)
    return analysis, analysis.axes(shape, analysis.size(shape), "rmax" if pool else "complex")


def room(x: NDArray[Any], analysis: Analysis, axes: tuple[Axis, ...], kind: Kind) -> NDArray[Any]:
    dtype = np.result_type(x.dtype, np.complex64) if kind == "complex" else x.dtype
    size = analysis.size_of(axes, kind)
    return np.full((len(x), *analysis.output(kind, size)), np.nan, dtype)


def analyse(
    x: NDArray[Any], analysis: Analysis, axes: tuple[Axis, ...], kind: Kind, threads: int = 1
) -> NDArray[Any]:
    out = room(x, analysis, axes, kind)
    native.analyse(x, analysis, axes, kind, out, threads)
    return out


def adjoint(
    c: NDArray[Any], analysis: Analysis, axes: tuple[Axis, ...], kind: Kind, threads: int = 1
) -> NDArray[Any]:
    out = np.full((len(c), *(axis.n for axis in axes)), np.nan, c.real.dtype)
    native.adjoint(c, analysis, axes, kind, out, threads)
    return out


def backward(
    x: NDArray[Any], g: NDArray[Any], analysis: Analysis, axes: tuple[Axis, ...], threads: int = 1
) -> NDArray[Any]:
    out = np.full_like(x, np.nan)
    native.modulus_backward(x, g, analysis, axes, out, threads)
    return out


def pooled(
    x: NDArray[Any],
    analysis: Analysis,
    axes: tuple[Axis, ...],
    kind: Kind,
    grid: tuple[int, int],
    statistics: tuple[Statistic, ...] = STATISTICS,
    threads: int = 1,
) -> NDArray[Any]:
    out = np.full((len(x), len(statistics), analysis.channels, *grid), np.nan, x.dtype)
    native.pool(x, analysis, axes, kind, grid, statistics, out, threads)
    return out


def assert_close(
    actual: NDArray[Any], expected: NDArray[Any], scale: float, factor: float = 1
) -> None:
    assert np.abs(actual - expected).max(initial=0) <= (
        factor * TOLERANCE[str(actual.real.dtype)] * scale
    )


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTWPT_POISON", "1")


sides = st.one_of(st.integers(1, 9), st.integers(10, 70))
shapes = st.one_of(st.tuples(sides), st.tuples(sides, sides))


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    shape = draw(shapes)
    depth = draw(st.integers(1, 3 if len(shape) == 2 else 6))
    total = 2**depth if len(shape) == 1 else 2 * 4**depth
    some = st.lists(st.integers(0, total - 1), min_size=1, unique=True, max_size=5).map(tuple)
    return shape, {
        "depth": depth,
        "stride": 2 ** draw(st.integers(0 if len(shape) == 1 or max(shape) < 30 else 1, depth)),
        "mode": draw(st.sampled_from(MODES)),
        "packets": draw(st.one_of(st.none(), some)),
        "wavelet": draw(st.sampled_from(["qshift_06", "qshift_b", "qshift_32"])),
    }


dtypes = st.sampled_from(["float32", "float64"])
sets = st.sampled_from(native.info()["supported"])
whole = ((1, 1), {"depth": 1})


@given(case=cases(), dtype=dtypes, pool=st.sampled_from([1, 3, 5]), name=sets)
@example(case=whole, dtype="float32", pool=3, name="avx2")
@example(case=((33, 300), {"depth": 4}), dtype="float32", pool=3, name="avx2")
@example(case=((700, 20), {"depth": 2}), dtype="float64", pool=3, name="avx2")
def test_equals_the_reference(
    case: tuple[tuple[int, ...], dict[str, Any]], dtype: str, pool: int, name: str
) -> None:
    if name not in native.info()["supported"]:
        return
    shape, settings = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTWPT_INSTRUCTION_SET", name)
        x = noise(0, 2, *shape)
        for kind in KINDS:
            analysis, axes = analysis_of(shape, **settings, pool=pool if kind == "rmax" else None)
            expected = reference.analyse(x, analysis, axes, kind)
            actual = analyse(x.astype(dtype), analysis, axes, kind)
            assert actual.shape == expected.shape
            assert_close(actual, expected, 4)


@given(case=cases(), dtype=dtypes, name=sets)
@example(case=whole, dtype="float32", name="avx2")
@example(case=((1100, 20), {"depth": 2}), dtype="float32", name="avx2")
@example(case=((3000,), {"depth": 3}), dtype="float32", name="avx2")
def test_adjoints_equal_the_reference(
    case: tuple[tuple[int, ...], dict[str, Any]], dtype: str, name: str
) -> None:
    if name not in native.info()["supported"]:
        return
    shape, settings = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTWPT_INSTRUCTION_SET", name)
        analysis, axes = analysis_of(shape, **settings)
        x = noise(0, 2, *shape).astype(dtype)
        for kind in LINEAR:
            c = room(x, analysis, axes, kind)
            c[:] = noise(1, *c.shape)
            if kind == "complex":
                c.imag = noise(2, *c.shape)
            wide = c.astype(np.complex128 if kind == "complex" else np.float64)
            expected = reference.adjoint(wide, analysis, axes, kind)
            assert_close(
                adjoint(c, analysis, axes, kind), expected, 10 * np.abs(expected).max() + 1
            )

        c = reference.analyse(x.astype(np.float64), analysis, axes, "complex")
        g = noise(3, *c.shape) * (np.abs(c) > 1e-3)  # directions of small ones are not certain
        expected = reference.adjoint(g * c / np.maximum(np.abs(c), 1e-3), analysis, axes, "complex")
        actual = backward(x, g.astype(dtype), analysis, axes)
        assert_close(actual, expected, np.abs(expected).max() + 1, 1000)


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("shape", [(45, 38), (131,)])
def test_inner_products_agree(shape: tuple[int, ...], kind: Kind) -> None:
    analysis, axes = analysis_of(shape, 3, 2, "reflect")
    x = noise(0, 3, *shape)
    c = analyse(x, analysis, axes, kind)
    other = noise(1, *c.shape) + (1j * noise(2, *c.shape) if kind == "complex" else 0)
    back = adjoint(other, analysis, axes, kind)
    assert np.vdot(other, c).real == pytest.approx(np.vdot(back, x), rel=1e-10)


@pytest.mark.parametrize("kind", ["modulus", "rmax"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 5)])
@pytest.mark.parametrize("shape", [(70, 85), (700, 330), (20, 20)])
def test_pooling_is_that_of_the_maps(
    shape: tuple[int, int], grid: tuple[int, int], kind: Kind
) -> None:
    """By the definition, over the cells of a grid, in double precision."""
    analysis, axes = analysis_of(shape, stride=4, pool=3 if kind == "rmax" else None)
    # Far from zero: the low-pass maps hardly vary about a mean that is large.
    x = (noise(0, 2, *shape) + np.array([[[1.0]], [[3e4]]])).astype(np.float32)
    maps = analyse(x, analysis, axes, kind).astype(np.float64)
    rows, columns = (
        [maps.shape[axis] * part // parts for part in range(parts + 1)]
        for axis, parts in ((2, grid[0]), (3, grid[1]))
    )
    got = pooled(x, analysis, axes, kind, grid)
    for r in range(grid[0]):
        for c in range(grid[1]):
            cell = maps[:, :, rows[r] : rows[r + 1], columns[c] : columns[c + 1]]
            count = cell[0, 0].size
            if not count:  # which the features refuse
                assert np.isnan(got[:, 0, :, r, c]).all()
                continue
            mean = cell.sum((2, 3)) / count
            variance = ((cell - mean[..., None, None]) ** 2).sum((2, 3)) / count
            means, deviations, maxima = got[..., r, c].transpose(1, 0, 2)
            np.testing.assert_allclose(means, mean, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(deviations, np.sqrt(variance), rtol=2e-7, atol=0)
            np.testing.assert_array_equal(maxima, cell.max((2, 3)))
    for count in (1, 2):  # the same bits in any company
        for some in itertools.combinations(range(3), count):
            names = tuple(STATISTICS[place] for place in some)
            assert same_bits(pooled(x, analysis, axes, kind, grid, names), got[:, some])


@pytest.mark.parametrize("kind", ["modulus", "rmax"])
@pytest.mark.parametrize("value", [0.1, -7e6, 1e-30])
def test_constant_images_do_not_deviate(value: float, kind: Kind) -> None:
    analysis, axes = analysis_of((530, 410), stride=4, pool=3 if kind == "rmax" else None)
    x = np.full((1, 530, 410), value, np.float32)
    assert not pooled(x, analysis, axes, kind, (3, 2), ("std",)).any()


@pytest.mark.parametrize("kind", ["modulus", "rmax"])
def test_no_maximum_hides_what_is_not_a_number(kind: Kind) -> None:
    analysis, axes = analysis_of((700, 90), stride=4, pool=3 if kind == "rmax" else None)
    x = noise(0, 1, 700, 90).astype(np.float32)
    x[0, 350, 40] = np.nan
    assert np.isnan(pooled(x, analysis, axes, kind, (1, 1))).all()


# Bits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(230, 260), (900, 700), (40000,)])
@pytest.mark.parametrize("pool", [None, 3])
def test_bits_do_not_depend_on_how_it_is_run(
    shape: tuple[int, ...], pool: int | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis, axes = analysis_of(shape, pool=pool, stride=2 if pool else 4)
    x = noise(0, 2, *shape).astype(dtype)
    kind: Kind = "rmax" if pool else "modulus"
    g = noise(1, *room(x, analysis, axes, kind).shape).astype(dtype)

    def everything(x: NDArray[Any], g: NDArray[Any], threads: int) -> list[NDArray[Any]]:
        results = [analyse(x, analysis, axes, kind, threads)]
        if len(shape) == 2:
            results.append(pooled(x, analysis, axes, kind, (2, 3), threads=threads))
            results.append(pooled(x, analysis, axes, kind, (2, 3), ("mean",), threads))
        if not pool:
            results.append(adjoint(g, analysis, axes, "real", threads))
            results.append(backward(x, g, analysis, axes, threads))
        return results

    expected = everything(x, g, 1)
    for threads in (2, 3, 8):
        for result, other in zip(everything(x, g, threads), expected, strict=True):
            assert same_bits(result, other)
    for i in range(2):
        one = everything(x[i : i + 1], g[i : i + 1], 2)
        for result, other in zip(one, expected, strict=True):
            assert same_bits(result, other[i : i + 1])
    for name in native.info()["supported"]:
        monkeypatch.setenv("DTWPT_INSTRUCTION_SET", name)
        for result, other in zip(everything(x, g, 2), expected, strict=True):
            assert same_bits(result, other)


@given(case=cases(), dtype=dtypes)
def test_kinds_are_of_the_same_coefficients(
    case: tuple[tuple[int, ...], dict[str, Any]], dtype: str
) -> None:
    shape, settings = case
    analysis, axes = analysis_of(shape, **settings)
    x = noise(0, 1, *shape).astype(dtype)
    c = analyse(x, analysis, axes, "complex")
    parts = analyse(x, analysis, axes, "parts")
    assert same_bits(parts[:, 0], c.real.copy())
    assert same_bits(parts[:, 1], c.imag.copy())
    assert same_bits(analyse(x, analysis, axes, "real"), c.real.copy())
    modulus = analyse(x, analysis, axes, "modulus")
    np.testing.assert_allclose(modulus, np.abs(c), rtol=float(4 * np.finfo(dtype).eps))
    # Maxima of the real parts at the cells of the pooling windows.
    pooling, cells = analysis_of(shape, **settings, pool=3)
    real = analyse(x, pooling, cells, "real")
    for axis in range(2, real.ndim):
        windows = np.lib.stride_tricks.sliding_window_view(real, 3, axis=axis)
        real = windows.max(-1)[(slice(None),) * axis + (slice(None, None, 2),)]
    assert same_bits(analyse(x, pooling, cells, "rmax"), real)


def test_an_index_lives_as_long_as_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that ask for it at the same time are each given an array of their own."""
    made: list[NDArray[np.int32]] = []  # kept, so that none is put where another one was

    def make(axis: Axis) -> NDArray[np.int32]:
        made.append(uncached(axis))
        return made[-1]

    uncached = spec._index.__wrapped__
    monkeypatch.setattr(spec, "_index", make)
    analysis = Analysis(2, "qshift_b", 4, "symmetric")
    (axis,) = analysis.axes((500,), (125,), "modulus")[:1]
    *_, address, index = native._side.__wrapped__(axis)
    assert address == index.ctypes.data


def test_a_window_costs_what_it_sees_whatever_a_header_says() -> None:
    analysis = Analysis(2, "qshift_b", 4, "symmetric")
    (axis,) = analysis.axes((2**32 - 4,), (2**30 - 1,), "modulus")[:1]
    samples, seen = axis.window(2**30 - 3, 2**30 - 1)
    assert samples[-1] == 2**32 - 5
    assert seen.n == samples.size < 2 * axis.length


@given(case=cases(), data=st.data())
def test_a_window_of_cells_has_their_bits(
    case: tuple[tuple[int, ...], dict[str, Any]], data: st.DataObject
) -> None:
    shape, settings = case
    analysis, axes = analysis_of(shape, **settings)
    x = noise(0, 1, *shape).astype(np.float32)
    part, at = [], []
    for axis in axes:
        skip = data.draw(st.integers(0, axis.count - 1))
        count = data.draw(st.integers(1, axis.count - skip))
        first = axis.first + skip * axis.stride
        part.append(Axis(axis.n, first, axis.stride, count, axis.length, axis.mode))
        at.append(slice(skip, skip + count))
    expected = analyse(x, analysis, axes, "modulus")[(slice(None), slice(None), *at)]
    assert same_bits(analyse(x, analysis, tuple(part), "modulus"), np.ascontiguousarray(expected))


def test_coefficients_are_chains_of_fused_multiply_adds() -> None:
    analysis, (axis,) = analysis_of((30,), 1, mode="zero")
    x = noise(0, 1, 30).astype(np.float32)
    parts = analyse(x, analysis, (axis,), "parts")[0]
    taps = analysis.stages[0][:, 0].astype(np.float32)
    for cell in (0, 7, 14):
        for packet in (0, 1):
            for tree in (0, 1):
                total = np.float32(0)
                for tap, position in enumerate(axis.index[2 * cell :][: axis.length]):
                    sample = x[0, position] if position >= 0 else np.float32(0)
                    exact = Fraction(float(taps[tree, packet, tap])) * Fraction(float(sample))
                    total = rounded(exact + Fraction(float(total)))
                assert parts[tree, packet, cell] == total


def rounded(exact: Fraction) -> np.float32:
    """Return the float32 nearest to a fraction (not halfway between two: those are rare)."""
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    return min(around, key=lambda candidate: abs(Fraction(float(candidate)) - exact))


# Moduli -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_modulus_is_accurate_at_any_scale(dtype: str) -> None:
    smallest, largest = (-126, 126) if dtype == "float32" else (-1022, 1021)
    analysis, axes = analysis_of((40, 40), mode="periodic")
    x = noise(0, 1, 40, 40).astype(dtype)
    parts = analyse(x, analysis, axes, "parts")
    x *= np.asarray(0.25 / np.abs(parts).max(), dtype)
    for exponent in range(smallest + 30, largest, 24):
        scaled = np.ldexp(x, exponent)
        parts = analyse(scaled, analysis, axes, "parts")
        modulus = analyse(scaled, analysis, axes, "modulus")
        wide = np.ldexp(parts.astype(np.longdouble), -exponent)
        expected = np.hypot(wide[:, 0], wide[:, 1])
        error = np.ldexp(modulus.astype(np.longdouble), -exponent) / expected - 1
        assert np.abs(error).max() < 3 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_modulus_and_its_gradient_are_zero_on_black_images(dtype: str) -> None:
    analysis, axes = analysis_of((30, 40))
    x = np.zeros((2, 30, 40), dtype)
    x[1, 20:, 20:] = 1
    modulus = analyse(x, analysis, axes, "modulus")
    assert not modulus[0].any()
    gradient = backward(x, np.ones_like(modulus), analysis, axes)
    assert not gradient[0].any()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(90, 110), (150,)])
def test_bad_pixels_stay_where_filters_see_them(shape: tuple[int, ...], bad: float) -> None:
    analysis, axes = analysis_of(shape)
    x = noise(0, 1, *shape).astype(np.float32)
    clean = analyse(x, analysis, axes, "modulus")
    at = tuple(n // 2 for n in shape)
    x[(0, *at)] = bad
    seen = np.array(True)
    for axis, pixel in zip(axes, at, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(axis.index, axis.length)[:: axis.stride]
        seen = np.logical_and.outer(seen, (windows == pixel).any(1))
    modulus = analyse(x, analysis, axes, "modulus")
    unseen = np.broadcast_to(~seen, modulus.shape)
    np.testing.assert_array_equal(modulus[unseen], clean[unseen])
    assert not np.isfinite(modulus).all()


def test_rmax_is_nan_where_a_pooled_number_is() -> None:
    analysis, axes = analysis_of((60, 60), stride=2, pool=3)
    x = noise(0, 1, 60, 60).astype(np.float32)
    x[0, 30, 31] = np.nan
    real = analyse(x, analysis, axes, "real")
    windows = np.lib.stride_tricks.sliding_window_view(real, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    np.testing.assert_array_equal(analyse(x, analysis, axes, "rmax"), windows.max((-1, -2)))


# Loader -----------------------------------------------------------------------------------------


def test_unknown_instruction_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTWPT_INSTRUCTION_SET", "mmx")
    with pytest.raises(RuntimeError, match="'mmx' is not compiled in; choose one of"):
        native.info()


def test_missing_library_is_told() -> None:
    code = (
        "import os; os.environ['DTWPT_NATIVE_LIBRARY'] = '/nowhere.so'\n"
        "from dtwpt.engine import native\n"
        "info = native.info()\n"
        "assert info['instruction_set'] is None and 'nowhere' in info['error'], info\n"
        "from dtwpt.engine.spec import Analysis\n"
        "assert not native.available(Analysis(2, 'qshift_b', 4, 'symmetric'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


SHORT_OF_MEMORY = """
import resource
import numpy as np
from dtwpt.engine import native
from dtwpt.engine.spec import Analysis

analysis = Analysis(2, "qshift_b", 4, "symmetric")
x = np.random.default_rng(0).normal(size=(4, 1000, 1000)).astype(np.float32)
axes = analysis.axes((1000, 1000), (250, 250), "modulus")
out, expected = (np.empty((4, 32, 250, 250), np.float32) for _ in range(2))
native.analyse(x, analysis, axes, "modulus", expected, 1)
with open("/proc/self/statm", encoding="ascii") as sizes:
    used = int(sizes.read().split()[0]) * resource.getpagesize()
# Less than the stack of a thread, and than what an adjoint keeps between its passes.
resource.setrlimit(resource.RLIMIT_AS, (used + 2**22, resource.RLIM_INFINITY))
native.analyse(x, analysis, axes, "modulus", out, 8)
assert memoryview(out).cast("B") == memoryview(expected).cast("B")  # without copies
try:
    native.modulus_backward(x, expected, analysis, axes, x, 1)
except MemoryError as error:
    assert "not enough memory for the buffers" in str(error)
else:
    raise AssertionError("it was not short of memory")
"""


@pytest.mark.skipif(
    sys.platform != "linux" or "DTWPT_NATIVE_LIBRARY" in os.environ,
    reason="limits the address space, of which a sanitizer takes terabytes",
)
def test_threads_and_memory_that_the_machine_does_not_give() -> None:
    subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], check=True)


def test_analyses_that_are_too_deep_are_not_available() -> None:
    assert native.available(Analysis(4, "qshift_b", 16, "symmetric"))
    assert not native.available(Analysis(13, "qshift_b", 2**13, "symmetric", 1))


def test_deep_analysis_of_a_long_signal() -> None:
    analysis, axes = analysis_of((22050,), 8)
    x = noise(0, 1, 22050)
    c = analyse(x, analysis, axes, "complex", 2)
    assert c.shape == (1, 256, -(-22050 // 256))
    assert_close(c, reference.analyse(x, analysis, axes, "complex"), 4)
