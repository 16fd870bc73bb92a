from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dtwpt

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import dtwpt.plot
from dtwpt.invariance import (
    design,
    gamma,
    measure,
    predict,
    predict_deformation,
    rotation,
)
from dtwpt.plot.atoms import atom_picture, atom_waves, selection


def value_at(ax: Axes, x: float, y: float) -> float:
    """The number whose cell of the picture holds a place in the frequency plane."""
    mesh = ax.collections[0]
    assert isinstance(mesh, QuadMesh)
    array, corners = np.asarray(mesh.get_array()), np.asarray(mesh.get_coordinates())
    row = int(np.searchsorted(corners[:, 0, 1], y)) - 1
    column = int(np.searchsorted(corners[0, :, 0], x)) - 1
    return float(np.reshape(array, (len(corners) - 1, -1))[row, column])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_frequency_plane_puts_values_where_the_spectra_are(depth: int) -> None:
    bank = dtwpt.PacketBank(depth)
    ax = dtwpt.plot.frequency_plane(bank, np.arange(2 * 4**depth))
    side = 64 * 2**depth
    for number, atom in enumerate(bank.atoms()):
        # The centre of energy of the atom itself, not what the table of atoms says (which is all
        # there is for those that straddle 0 or pi).
        spectrum = np.fft.fft2(bank.atom(atom["sign"], atom["row"], atom["col"]), (side, side))
        if atom["boundary"] or atom["lowpass"]:
            y, x = float(atom["theta_y"]), float(atom["theta_x"])
        else:
            frequency = 2 * np.pi * np.fft.fftfreq(side)
            weight = np.abs(spectrum) ** 2 / np.sum(np.abs(spectrum) ** 2)
            y, x = float(weight.sum(axis=1) @ frequency), float(weight.sum(axis=0) @ frequency)
        assert value_at(ax, x, y) == number
        assert value_at(ax, -x, -y) == number  # to a real image, the same filter
    assert ax.get_xlim() == pytest.approx((-np.pi, np.pi))
    assert ax.get_ylim() == pytest.approx((np.pi, -np.pi))  # down, as rows


def test_frequency_plane_draws_into_axes_scales_and_leaves_nan_out() -> None:
    bank = dtwpt.PacketBank(2)
    values = np.linspace(0, 1, 32)
    values[3] = np.nan
    ax = Figure().add_subplot()
    assert dtwpt.plot.frequency_plane(bank, values, ax, label="share", vmin=-1, vmax=2) is ax
    mesh = ax.collections[0]
    assert mesh.get_clim() == (-1, 2)
    assert mesh.colorbar is not None
    assert mesh.colorbar.ax.get_ylabel() == "share"
    drawn: Any = mesh.get_array()
    assert drawn.mask.sum() == 2
    assert mesh.colorbar.extend == "neither"
    mesh = dtwpt.plot.frequency_plane(bank, values, vmin=0.1, vmax=0.5).collections[0]
    assert mesh.colorbar is not None
    assert mesh.colorbar.extend == "both"


def test_atom_picture_is_the_atom_around_its_centre() -> None:
    bank = dtwpt.PacketBank(2)
    waves = atom_waves(bank, 401)
    for atom in bank.atoms()[[6, 22]]:  # one of each sign
        picture = atom_picture(waves, atom)
        # The waves run along (theta_x, theta_y): down and right for sign +1, down and left for -1.
        gradient = np.gradient(picture)
        slant = np.sum(gradient[0] * gradient[1])
        assert np.sign(slant) == atom["sign"]
        assert np.abs(picture).max() == 1
        weight = picture**2 / np.sum(picture**2)
        centre = [weight.sum(axis=axis) @ np.linspace(-1, 1, 401) for axis in (0, 1)]
        assert np.abs(centre).max() < 0.1


@pytest.mark.parametrize("wavelet", ["qshift_06", "qshift_d"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_filters_of_any_bank(depth: int, wavelet: str) -> None:
    bank = dtwpt.PacketBank(depth, wavelet)
    figure = dtwpt.plot.filters(bank)
    montage, plane = figure.axes
    chosen, step = selection(bank)
    assert len(montage.images) == len(chosen) <= 128
    for image, atom in zip(montage.images, chosen, strict=True):
        left, right, bottom, top = image.get_extent()
        assert left < atom["theta_x"] < right or step > 1
        assert top < atom["theta_y"] < bottom or step > 1
        assert np.sign(left + right) == atom["sign"]
    total = 2 * 4**depth
    expected = f"All {total} filters" if step == 1 else f"{len(chosen)} of the {total} filters"
    assert expected in montage.get_title()
    assert "rad/pixel" in plane.get_xlabel()
    assert "rad/pixel" in plane.get_ylabel()
    figure.canvas.draw()


def test_maps_lie_where_their_filters_do() -> None:
    rows, columns = np.mgrid[:64, :96]
    atom = dtwpt.PacketBank(2).atoms()[22]
    wave = np.cos(atom["theta_y"] * rows + atom["theta_x"] * columns)
    for operator, compute in (("cmod", dtwpt.cmod2), ("rmax", dtwpt.rmax2)):
        figure = dtwpt.plot.maps(wave, operator=operator)
        right = figure.axes[-1]
        drawn = {}
        for image in right.images[::2]:  # a map, then the filter in its corner
            left, _, _, top = image.get_extent()
            drawn[left, top] = np.asarray(image.get_array())
        (left, top), loudest = max(drawn.items(), key=lambda item: float(np.mean(item[1])))
        width = np.pi / 4
        assert left < atom["theta_x"] < left + width
        assert top < atom["theta_y"] < top + width
        np.testing.assert_array_equal(loudest, compute(wave)[1, atom["row"], atom["col"]])
        assert loudest.shape == (16, 24)


@pytest.mark.parametrize("shift", [(0, 1), (0, -2), (3, 0), (1, -1)])
def test_shift_change_compares_crops_of_one_picture(shift: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(50, 60))
    down, right = shift
    figure = dtwpt.plot.shift_change(image, shift=shift, depth=2, packet=(-1, 1, 2))
    drawn = [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]
    before = drawn[0]
    assert before.shape == (50 - abs(down), 60 - abs(right))
    top, left = max(down, 0), max(right, 0)
    after = image[top - down :, left - right :][: before.shape[0], : before.shape[1]]
    assert np.array_equal(before, image[top:, left:][: before.shape[0], : before.shape[1]])
    text = " ".join(ax.get_xlabel() for ax in figure.axes)
    for first, operator in ((2, dtwpt.cmod2), (5, dtwpt.rmax2)):
        a, b = (operator(crop)[1, 1, 2] for crop in (before, after))
        np.testing.assert_allclose(drawn[first], a)
        np.testing.assert_allclose(drawn[first + 1], b)
        np.testing.assert_allclose(drawn[first + 2], np.abs(a - b), atol=1e-15)
        assert f"relative change {np.sum((a - b) ** 2) / np.sum(a**2):.3f}" in text
    scales = {ax.images[0].get_clim() for ax in figure.axes[2:8]}
    assert len(scales) == 1


def test_shift_change_writes_the_means() -> None:
    image = np.random.default_rng(1).normal(size=(64, 65))
    atoms = dtwpt.PacketBank(2).atoms()
    kept = ~(atoms["boundary"] | atoms["lowpass"])
    figure = dtwpt.plot.shift_change(image, shift=(0, 1), depth=2)
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    operators: list[Any] = [dtwpt.cmod2, dtwpt.rmax2]
    for text, operator in zip(legend.get_texts(), operators, strict=True):
        a, b = operator(image[:, 1:]), operator(image[:, :-1])
        change = np.sum((a - b) ** 2, axis=(-2, -1)) / np.sum(a**2, axis=(-2, -1))
        assert text.get_text().endswith(f"mean {np.mean(change.ravel()[kept]):.3f}")


def test_draws_integers() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 40)).astype(np.uint8)
    dtwpt.plot.maps(image, depth=1)
    dtwpt.plot.shift_change(image, depth=1)


# Shift errors -----------------------------------------------------------------------------------


def path(line: Line2D) -> NDArray[Any]:
    return np.asarray(line.get_xydata())


def points(ax: Axes) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Places (x, y), and half lengths of the vertical bars, of all points with error bars."""
    found = []
    for container in ax.containers:
        assert isinstance(container, ErrorbarContainer)
        marks, _, bars = container.lines
        segments = np.array(bars[-1].get_segments())
        found.append((np.asarray(marks.get_xydata()), np.ptp(segments[:, :, 1], axis=1) / 2))
    return found


@pytest.fixture(scope="module")
def tables() -> tuple[NDArray[Any], NDArray[Any]]:
    """Predicted and measured, (4 shifts, 16 Gabor-like packets)."""
    bank = dtwpt.PacketBank(2)
    atoms = bank.atoms()
    kept = ~(atoms["boundary"] | atoms["lowpass"])
    noise = np.random.default_rng(0).normal(size=(3, 100, 100))
    shifts = [(0, 2), (0, 1), (0, 4), (0, 0.5)]
    return predict(bank, shifts)[:, kept], measure(noise, bank, shifts)[:, kept]


@pytest.mark.parametrize("against", ["orientation", "frequency"])
def test_invariance_draws_every_filter_with_its_error(
    tables: tuple[NDArray[Any], NDArray[Any]], against: str
) -> None:
    table = tables[1][1]
    panels = dtwpt.plot.invariance(table, against)
    for ax, error in zip(panels, ("cmod_shift", "rmax_shift"), strict=True):
        drawn = points(ax)
        legend = ax.get_legend()
        assert len(drawn) == len(legend.get_texts()) == 3
        every = np.concatenate([xy for xy, _ in drawn])
        bars = np.concatenate([half for _, half in drawn])
        expected = np.lexsort((table[error], table[against]))
        order = np.lexsort((every[:, 1], every[:, 0]))
        np.testing.assert_allclose(every[order, 0], table[against][expected])
        np.testing.assert_allclose(every[order, 1], table[error][expected])
        np.testing.assert_allclose(bars[order], table[error + "_stderr"][expected])
        low, high = ax.get_ylim()
        assert low < (every[:, 1] - bars).max() < every[:, 1].max() < high
        assert ax.get_yscale() == "log"
    assert panels[0].get_ylim() == panels[1].get_ylim()
    # Groups: bands of frequency that follow one another, or angles from the shift.
    names = [text.get_text() for text in panels[0].get_legend().get_texts()]
    for (xy, _), name in zip(points(panels[0]), names, strict=True):
        chosen = table[np.isin(table["cmod_shift"], xy[:, 1])]
        if against == "orientation":
            ends = [f"{chosen['frequency'].min():.2f}", f"{chosen['frequency'].max():.2f}"]
            assert name == "\u2013".join(dict.fromkeys(ends))
        else:
            low, high = (float(end) for end in name.rstrip("°").split("\u2013"))
            away = np.abs((chosen["orientation"] + 90) % 180 - 90)
            assert np.all((low <= away) & (away <= high))


def test_invariance_marks_the_shift_and_draws_into_axes(
    tables: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    table = tables[0][1].copy()
    table["shift_y"], table["shift_x"] = 1, -1
    ax = Figure().add_subplot()
    panels = dtwpt.plot.invariance(table, ax=ax, errors="rmax_cmod", bands=1, scale="linear")
    assert panels.tolist() == [ax]
    assert ax.get_ylim()[0] == 0
    upright = [path(line)[:, 0] for line in ax.lines if len(path(line)) == 2]
    assert [135.0, 135.0] in [list(x) for x in upright]


def test_prediction_writes_numpys_correlation(tables: tuple[NDArray[Any], NDArray[Any]]) -> None:
    predicted, measured = (table[1].copy() for table in tables)
    measured["rmax_shift"][3] = np.nan
    for error in ("cmod_shift", "rmax_shift", "rmax_cmod"):
        ax = dtwpt.plot.prediction(predicted, measured, error)
        both = np.isfinite(measured[error])
        x, y = predicted[error][both], measured[error][both]
        ((xy, half),) = points(ax)
        np.testing.assert_array_equal(xy, np.stack([x, y], axis=1))
        np.testing.assert_allclose(half, measured[error + "_stderr"][both])
        assert ax.texts[0].get_text() == (
            f"Pearson r = {np.corrcoef(x, y)[0, 1]:.3f}\n{len(x)} filters"
        )
        line = path(ax.lines[0])
        np.testing.assert_array_equal(line[:, 0], line[:, 1])
        assert ax.get_xlim() == ax.get_ylim()
        assert ax.get_xlim()[1] > max(x.max(), y.max())


def test_shift_curve_draws_means_over_filters(tables: tuple[NDArray[Any], NDArray[Any]]) -> None:
    predicted, measured = tables
    order = [3, 1, 0, 2]
    ax = dtwpt.plot.shift_curve(predicted, measured[:3])
    lines = [path(line) for line in ax.lines if line.get_linestyle() == "-"]
    for line, band, error in zip(lines, ax.collections[::2], ("cmod", "rmax"), strict=False):
        values = predicted[f"{error}_shift"][order]
        np.testing.assert_array_equal(line[:, 0], [0.5, 1, 2, 4])
        np.testing.assert_allclose(line[:, 1], values.mean(axis=1))
        corners = np.asarray(band.get_paths()[0].vertices)
        for length, low, high in zip(
            (0.5, 1, 2, 4), *np.quantile(values, (0.1, 0.9), axis=1), strict=True
        ):
            here = corners[corners[:, 0] == length, 1]
            np.testing.assert_allclose([here.min(), here.max()], [low, high])
    assert len(lines) == 2
    for (xy, _), error in zip(points(ax), ("cmod_shift", "rmax_shift"), strict=True):
        np.testing.assert_array_equal(xy[:, 0], [1, 2, 4])
        np.testing.assert_allclose(xy[:, 1], measured[error][[1, 0, 2]].mean(axis=1))
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        *("CMod, predicted", "CMod, measured", "RMax, predicted", "RMax, measured")
    ]
    assert not dtwpt.plot.shift_curve(predicted).containers
    assert len(dtwpt.plot.shift_curve(measured=measured).collections) == 2  # bands


@pytest.mark.parametrize(("q", "stride"), [(1, 2), (2, 3)])
def test_gamma_map_is_gamma(q: int, stride: int) -> None:
    ax = dtwpt.plot.gamma_map(q, stride)
    image = ax.images[0]
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    rng = np.random.default_rng(0)
    for row, column in rng.integers(0, len(values), (20, 2)):
        theta_y = top + (row + 0.5) * (bottom - top) / len(values)
        theta_x = left + (column + 0.5) * (right - left) / len(values)
        assert values[row, column] == pytest.approx(
            float(gamma((theta_y, theta_x), stride, q)), abs=1e-6
        )
    assert image.get_clim() == (0, np.sqrt(1.5))
    assert ax.get_ylim() == pytest.approx((np.pi, -np.pi))


def test_gamma_map_marks_atoms() -> None:
    bank = dtwpt.PacketBank(2)
    ax = dtwpt.plot.gamma_map(bank=bank)
    marks = np.concatenate([path(line) for line in ax.lines])
    atoms = bank.atoms()
    expected = np.stack([atoms["theta_x"], atoms["theta_y"]], axis=1)
    np.testing.assert_array_equal(marks, np.concatenate([expected, -expected]))
    assert "stride 2" in ax.get_title()


def test_frequency_points_and_gain(tables: tuple[NDArray[Any], NDArray[Any]]) -> None:
    table = tables[1][1]
    values = table["rmax_shift"].copy()
    values[5] = np.nan
    ax = dtwpt.plot.frequency_points(table, values, vmin=0, vmax=1)
    known = np.delete(np.arange(16), 5)
    grey, drawn = ax.collections[:2]
    places = np.stack([table["theta_x"], table["theta_y"]], axis=1)
    np.testing.assert_array_equal(
        drawn.get_offsets(), np.concatenate([places[known], -places[known]])
    )
    np.testing.assert_array_equal(drawn.get_array(), np.tile(values[known], 2))
    np.testing.assert_array_equal(grey.get_offsets(), [places[5], -places[5]])

    ax = dtwpt.plot.gain(table, np.linspace(0, 1, 16))
    cloud = ax.collections[-1]
    np.testing.assert_array_equal(
        cloud.get_offsets(), np.stack([table["rmax_shift"], table["cmod_shift"]], axis=1)
    )
    slopes = [path(line)[1, 1] / path(line)[1, 0] for line in ax.lines[:4]]
    assert slopes == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8])


def test_kernels_are_drawn_in_order() -> None:
    layer = np.random.default_rng(0).normal(size=(11, 3, 5, 7))
    ax = dtwpt.plot.kernels(layer, marked=np.arange(11) == 9, columns=4)
    for number, image in enumerate(ax.images):
        left, _, _, top = image.get_extent()
        assert (int(left), int(top)) == (number % 4, number // 4)
        tile = np.asarray(image.get_array())
        scale = np.abs(layer[number]).max()
        np.testing.assert_allclose((tile - 0.5) * 2 * scale, layer[number].transpose(1, 2, 0))
    assert [text.get_text() for text in ax.texts] == [str(k) for k in range(11)]
    thick = [patch.get_linewidth() > 1 for patch in ax.patches]
    assert thick == [k == 9 for k in range(11)]
    one = np.asarray(dtwpt.plot.kernels(-layer[:, 0]).images[0].get_array())
    assert one.shape == (5, 7)
    assert min(one.min(), 1 - one.max()) == 0


def test_draws_tensors_of_any_precision_with_their_gradients() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    image = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        low = layer.to(dtype).requires_grad_()
        for kernels in (low, low[:, 0]):
            drawn = dtwpt.plot.kernels(kernels).images
            expected = dtwpt.plot.kernels(kernels.detach().double().numpy()).images
            for one, other in zip(drawn, expected, strict=True):
                np.testing.assert_allclose(
                    np.asarray(one.get_array()), np.asarray(other.get_array()), rtol=1e-3
                )
        grey = image.to(dtype).requires_grad_()
        dtwpt.plot.maps(grey)
        dtwpt.plot.shift_change(grey)
        dtwpt.plot.frequency_plane(dtwpt.PacketBank(1), grey[0, :8])


BANK = dtwpt.PacketBank(1)
IMAGE = np.random.default_rng(0).normal(size=(16, 16))
TABLE = np.stack([predict(BANK)] * 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dtwpt.plot.filters(2), TypeError, "bank must be a dtwpt.PacketBank, got int"),  # type: ignore[arg-type]
        (lambda: dtwpt.plot.filters(BANK, "f"), TypeError, "fig must be .* got str"),  # type: ignore[arg-type]
        (lambda: dtwpt.plot.frequency_plane(BANK, range(7)), ValueError, r"\(8,\).* got \(7,\)"),
        (lambda: dtwpt.plot.frequency_plane(BANK, [1j] * 8), TypeError, "values must be real"),
        (lambda: dtwpt.plot.frequency_plane(BANK, [np.inf] * 8), ValueError, "got infinity"),
        (lambda: dtwpt.plot.frequency_plane(BANK, range(8), 3), TypeError, "ax must be .* got int"),  # type: ignore[arg-type]
        (lambda: dtwpt.plot.maps(np.ones((4, 4, 3))), ValueError, r"x must .*\(4, 4, 3\)"),
        (lambda: dtwpt.plot.maps(IMAGE + 1j), TypeError, "x must be .* real"),
        (lambda: dtwpt.plot.maps(IMAGE * np.nan), ValueError, "x must be finite"),
        (lambda: dtwpt.plot.maps(np.ma.masked_greater(IMAGE, 1)), TypeError, "not be masked"),
        (lambda: dtwpt.plot.kernels(np.ma.masked_less(IMAGE, 0)), TypeError, "not be masked"),
        (
            lambda: dtwpt.plot.frequency_plane(BANK, np.ma.masked_greater(np.arange(8), 3)),
            TypeError,
            "not be masked",
        ),
        (lambda: dtwpt.plot.maps(IMAGE, operator="max"), ValueError, "'max'.*cmod, rmax"),
        (lambda: dtwpt.plot.shift_change(IMAGE, 1), TypeError, "shift must be a pair"),  # type: ignore[arg-type]
        (lambda: dtwpt.plot.shift_change(IMAGE, (0, 0)), ValueError, "shift must be other"),
        (lambda: dtwpt.plot.shift_change(IMAGE, (0, 16)), ValueError, r"\(16, 16\), got \(0, 16\)"),
        (lambda: dtwpt.plot.shift_change(0 * IMAGE), ValueError, "must not be constant"),
        (lambda: dtwpt.plot.shift_change(IMAGE, packet=(1, 8, 0)), IndexError, "row must be"),
        (lambda: dtwpt.plot.shift_change(IMAGE, packet=(1, 0)), TypeError, "packet must be"),  # type: ignore[arg-type]
        (lambda: dtwpt.plot.invariance(TABLE), ValueError, r"of one shift.*table\[k\]"),
        (lambda: dtwpt.plot.invariance(IMAGE), TypeError, "table must be a table of"),
        (lambda: dtwpt.plot.invariance(BANK.atoms()), ValueError, "lacks the columns filter"),
        (lambda: dtwpt.plot.invariance(TABLE[0], "angle"), ValueError, "against must be"),
        (lambda: dtwpt.plot.invariance(TABLE[0], errors="cmod"), ValueError, "known errors: rmax_"),
        (
            lambda: dtwpt.plot.invariance(TABLE[0], ax=Figure().add_subplot()),
            ValueError,
            "2 panels",
        ),
        (lambda: dtwpt.plot.prediction(TABLE[0], TABLE[0][:3]), ValueError, "same filters"),
        (lambda: dtwpt.plot.prediction(TABLE[0], TABLE[0][::-1]), ValueError, "same filters"),
        (dtwpt.plot.shift_curve, ValueError, "at least one of"),
        (
            lambda: dtwpt.plot.shift_curve(TABLE[0]),
            ValueError,
            r"several shifts.* got shape \(8,\)",
        ),
        (
            lambda: dtwpt.plot.shift_curve(predict(BANK, [(0, 1), (1, 0)])),
            ValueError,
            "one direction",
        ),
        (lambda: dtwpt.plot.gamma_map(0), ValueError, "q must be"),
        (lambda: dtwpt.plot.gain(TABLE[0], [1, 2]), ValueError, r"likeness must .*\(8,\)"),
        (lambda: dtwpt.plot.frequency_points(IMAGE, [1]), ValueError, "columns theta_y"),
        (lambda: dtwpt.plot.kernels(np.ones((2, 3, 3)), names=["a"]), ValueError, "2 kernels"),
    ],
)
def test_wrong_input_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


def test_leaves_matplotlib_as_it_is_and_needs_no_display() -> None:
    code = """
import sys, dtwpt
assert "matplotlib" not in sys.modules
import matplotlib
matplotlib.use("svg")
before = dict(matplotlib.rcParams)
import dtwpt.plot
figure = dtwpt.plot.filters(dtwpt.PacketBank(1))
assert figure._repr_png_().startswith(b"\\x89PNG")
assert dict(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_says_what_to_install() -> None:
    done = run_python("import sys; sys.modules['matplotlib'] = None\nimport dtwpt.plot")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'ImportError: dtwpt.plot needs matplotlib: pip install "dtwpt[plot]"'
    )
    assert "During handling" not in done.stderr


PICTURE = np.random.default_rng(0).random((65, 64))
LAYER = np.random.default_rng(0).normal(size=(12, 7, 7))
TURNS = predict_deformation(dtwpt.PacketBank(2), [rotation(angle) for angle in (0, 5)])
CURVE = predict(dtwpt.PacketBank(2), [(0, 1), (0, 2)])
FOUND = design(depth=2, budget=4)
DRAWN: dict[str, Callable[[Any], Any]] = {
    "filters": lambda place: dtwpt.plot.filters(dtwpt.PacketBank(2), place),
    "filters without title": lambda place: dtwpt.plot.filters(BANK, place, title=False),
    "maps": lambda place: dtwpt.plot.maps(PICTURE, fig=place),
    "shift_change": lambda place: dtwpt.plot.shift_change(PICTURE, fig=place),
    "frequency_plane": lambda place: dtwpt.plot.frequency_plane(BANK, range(8), place, label="x"),
    "invariance": lambda place: dtwpt.plot.invariance(CURVE[0], ax=place),
    "prediction": lambda place: dtwpt.plot.prediction(CURVE, CURVE, ax=place),
    "shift_curve": lambda place: dtwpt.plot.shift_curve(CURVE, CURVE, place),
    "gamma_map": lambda place: dtwpt.plot.gamma_map(ax=place),
    "frequency_points": lambda place: dtwpt.plot.frequency_points(CURVE[0], range(32), place),
    "kernels": lambda place: dtwpt.plot.kernels(LAYER, place),
    "gain": lambda place: dtwpt.plot.gain(CURVE[0], np.linspace(0, 1, 32), place),
    "deformation": lambda place: dtwpt.plot.deformation([0, 5], TURNS, ax=place),
    "design": lambda place: dtwpt.plot.design(FOUND, place),
}


def figure_of(drawn: Any) -> Any:
    first = np.ravel(np.array(drawn, dtype=object))[0]
    return first.figure if isinstance(first, Axes) else first


def written(drawn: Any) -> list[tuple[str, Bbox]]:
    """Texts of a figure, colour bars included, and the boxes that they fill."""
    canvas: Any = FigureCanvasAgg(drawn.get_figure(root=True))
    canvas.draw()
    every = [ax for top in drawn.axes for ax in (top, *top.child_axes)]
    ticks = [
        label for ax in every if ax.axison for axis in (ax.xaxis, ax.yaxis)
        for label in axis.get_ticklabels()
        if min(axis.get_view_interval()) - 1e-9 <= _place_of(label, axis)
        <= max(axis.get_view_interval()) + 1e-9
    ]  # fmt: skip
    not_shown = {
        label for ax in every for axis in (ax.xaxis, ax.yaxis)
        for label in (*axis.get_ticklabels(which="both"), axis.get_offset_text())
    }  # fmt: skip
    texts = [text for text in drawn.findobj(Text) if text not in not_shown] + ticks
    return [
        (text.get_text(), text.get_window_extent())
        for text in texts
        if text.get_text().strip() and text.get_visible()
    ]


def _place_of(label: Text, axis: Any) -> float:
    return float(label.get_position()[axis.axis_name == "y"])


def place_of(kind: str) -> tuple[Any, Any]:
    """Where to draw, and a neighbour in the same figure that must stay empty."""
    if kind == "new":
        return None, None
    if kind == "7 x 3":
        return Figure(figsize=(7, 3), dpi=150), None
    parts: Any = Figure(figsize=(3.4, 3.4), dpi=150).subfigures(2)
    return parts[1], parts[0]


@pytest.mark.parametrize("kind", ["new", "7 x 3", "part of 3.4 x 1.7"])
@pytest.mark.parametrize("name", list(DRAWN))
def test_text_is_inside_and_apart_in_figures_of_any_size(name: str, kind: str) -> None:
    place, neighbour = place_of(kind)
    figure = figure_of(DRAWN[name](place))
    assert place is None or figure is place
    assert neighbour is None or not neighbour.axes
    boxes, whole = written(figure), figure.bbox
    bars = [child for ax in figure.axes for child in ax.child_axes]
    boxes += [("colour bar", bar.get_window_extent()) for bar in bars]
    for text, box in boxes:
        assert whole.x0 - 1 <= box.x0 <= box.x1 <= whole.x1 + 1, text
        assert whole.y0 - 1 <= box.y0 <= box.y1 <= whole.y1 + 1, text
    for (one, box), (other, beside) in combinations(boxes, 2):
        both = Bbox.intersection(box, beside)
        assert both is None or min(both.width, both.height) < 1.5, (one, other)
    assert min(text.get_fontsize() for text in figure.findobj(Text)) >= 5


def test_colour_bar_is_as_high_as_what_it_explains() -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = dtwpt.plot.frequency_plane(BANK, range(8), figure.add_subplot())
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    (bar,) = ax.child_axes
    assert bar.get_window_extent().intervaly == pytest.approx(ax.get_window_extent().intervaly)


def test_fonts_of_pdf_are_truetype(tmp_path: Path) -> None:
    dtwpt.plot.filters(dtwpt.PacketBank(1)).savefig(tmp_path / "a.pdf")
    written = (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in written
    assert b"/TrueType" in written or b"/CIDFontType2" in written
