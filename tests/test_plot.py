from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dtwpt

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

import dtwpt.plot
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
    for text, operator in zip(legend.get_texts(), (dtwpt.cmod2, dtwpt.rmax2), strict=True):
        a, b = operator(image[:, 1:]), operator(image[:, :-1])
        change = np.sum((a - b) ** 2, axis=(-2, -1)) / np.sum(a**2, axis=(-2, -1))
        assert text.get_text().endswith(f"mean {np.mean(change.ravel()[kept]):.3f}")


def test_draws_into_a_given_figure_and_integers_too() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 40)).astype(np.uint8)
    draws: list[Callable[[Figure], Figure]] = [
        lambda fig: dtwpt.plot.filters(dtwpt.PacketBank(1), fig),
        lambda fig: dtwpt.plot.maps(image, depth=1, fig=fig),
        lambda fig: dtwpt.plot.shift_change(image, depth=1, fig=fig),
    ]
    for draw in draws:
        figure = Figure(figsize=(9, 4))
        assert draw(figure) is figure
        figure.canvas.draw()


BANK = dtwpt.PacketBank(1)
IMAGE = np.random.default_rng(0).normal(size=(16, 16))


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
        (lambda: dtwpt.plot.maps(IMAGE, operator="max"), ValueError, "'max'.*cmod, rmax"),
        (lambda: dtwpt.plot.shift_change(IMAGE, 1), TypeError, "shift must be a pair"),  # type: ignore[arg-type]
        (lambda: dtwpt.plot.shift_change(IMAGE, (0, 0)), ValueError, "shift must be other"),
        (lambda: dtwpt.plot.shift_change(IMAGE, (0, 16)), ValueError, r"\(16, 16\), got \(0, 16\)"),
        (lambda: dtwpt.plot.shift_change(0 * IMAGE), ValueError, "must not be constant"),
        (lambda: dtwpt.plot.shift_change(IMAGE, packet=(1, 8, 0)), IndexError, "row must be"),
        (lambda: dtwpt.plot.shift_change(IMAGE, packet=(1, 0)), TypeError, "packet must be"),  # type: ignore[arg-type]
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
