"""Wavelets and the packets composed from them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import dtwpt
from tests import naive

# Share of energy at positive frequencies of the worst packet but the first and the last,
# depths 2 to 5. Measured on a separate prototype.
WORST_ANALYTICITY = {
    "qshift_06": (0.9966, 0.9930, 0.9925, 0.9915),
    "qshift_a": (0.9984, 0.9975, 0.9959, 0.9922),
    "qshift_b": (0.9999, 0.9999, 0.9998, 0.9996),
    "qshift_c": (1.0000, 0.9999, 0.9999, 0.9998),
    "qshift_d": (1.0000, 0.9999, 0.9999, 0.9998),
    "qshift_32": (1.0000, 1.0000, 1.0000, 1.0000),
    "stable_10": (0.9977, 0.9965, 0.9950, 0.9835),
    "stable_16": (0.9985, 0.9970, 0.9956, 0.9950),
    "stable_20": (0.9990, 0.9974, 0.9963, 0.9955),
}


@pytest.mark.parametrize("wavelet", dtwpt.wavelets())
def test_wavelets_are_orthonormal_pairs_half_a_sample_apart(wavelet: str) -> None:
    w = dtwpt.Wavelet(wavelet)
    assert w == dtwpt.Wavelet.from_taps(w.low, w.high) == dtwpt.Wavelet.from_taps(w.low[0])
    tolerance = 2e-9 if wavelet == "qshift_32" else 1e-12
    length = w.low.shape[1]
    for low, high in zip(w.low, w.high, strict=True):
        rows = np.zeros((length, 2 * length))
        for k in range(length // 2):
            rows[2 * k, 2 * k : 2 * k + length] = low
            rows[2 * k + 1, 2 * k : 2 * k + length] = high
        np.testing.assert_allclose(rows @ rows.T, np.eye(length), rtol=0, atol=tolerance)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("wavelet", dtwpt.wavelets())
def test_inner_packets_are_analytic(wavelet: str, depth: int) -> None:
    filters = dtwpt.PacketBank(depth, wavelet).filters
    shares = [naive.positive_share(list(packet)) for packet in filters]
    assert min(shares[1:-1]) == pytest.approx(WORST_ANALYTICITY[wavelet][depth - 2], abs=3e-4)
    assert min(shares[0], shares[-1]) > 0.79
    assert max(shares[0], shares[-1]) < 0.89
    if wavelet == "qshift_32":  # the longest filters come close to the ideal
        assert min(shares[1:-1]) > 0.99999


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("wavelet", dtwpt.wavelets())
def test_packets_are_in_order_of_frequency(wavelet: str, depth: int) -> None:
    bank = dtwpt.PacketBank(depth, wavelet)
    count = 2**depth
    taps = dtwpt.Wavelet(wavelet).low.shape[1]
    assert bank.filters.shape == (count, (taps + 2) + (taps - 1) * (count - 2))
    np.testing.assert_allclose(np.linalg.norm(bank.filters, axis=1), 1, rtol=1e-14)
    assert np.all(np.diff(bank.frequencies) > 0)
    spectra = np.abs(np.fft.fft(bank.filters, 64 * count, axis=1)) ** 2
    peaks = np.argmax(spectra, axis=1) / (64 * count) * 2 * count
    assert np.all(np.floor(peaks + 1e-9) == np.arange(count))
    assert np.all(np.abs(bank.frequencies / np.pi * count - peaks) <= 0.5)


@pytest.mark.parametrize(("depth", "wavelet"), [(1, "qshift_06"), (2, "qshift_b"), (3, "qshift_a")])
def test_packets_follow_the_definition(depth: int, wavelet: str) -> None:
    low = list(dtwpt.Wavelet(wavelet).low[0])
    expected = [naive.packet(low, depth, k) for k in range(2**depth)]
    np.testing.assert_allclose(dtwpt.PacketBank(depth, wavelet).filters, expected, atol=1e-14)


@pytest.mark.parametrize(("depth", "wavelet"), [(1, "qshift_a"), (2, "qshift_b"), (3, "qshift_b")])
def test_atoms_agree_with_their_rows(depth: int, wavelet: str) -> None:
    """Every figure in the table, from the atom's own two-dimensional spectrum and envelope."""
    bank = dtwpt.PacketBank(depth, wavelet)
    atoms = bank.atoms()
    count = 2**depth
    size = 1024
    # Frequencies between the cells' borders, so that no grid point lies on one.
    frequency = (np.arange(size) + 0.5) * 2 * np.pi / size
    frequency[size // 2 :] -= 2 * np.pi
    ramp = np.exp(-1j * np.pi / size * np.arange(bank.filters.shape[1]))
    order = [(1 if s == 0 else -1, i, j) for s, i, j in np.ndindex(2, count, count)]
    assert [(a["sign"], a["row"], a["col"]) for a in atoms] == order
    for row in atoms[:: 1 if depth < 3 else 7]:
        atom = bank.atom(int(row["sign"]), int(row["row"]), int(row["col"]))
        assert np.linalg.norm(atom) ** 2 == pytest.approx(0.5, rel=1e-12)
        energy = np.abs(np.fft.fft2(atom * np.outer(ramp, ramp), (size, size))) ** 2
        energy /= energy.sum()
        theta = np.array([row["theta_y"], row["theta_x"]])
        peak_y, peak_x = (frequency[i] for i in np.unravel_index(energy.argmax(), energy.shape))
        assert abs(peak_y - theta[0]) < np.pi / count / 2 + 0.02
        assert abs(peak_x - theta[1]) < np.pi / count / 2 + 0.02
        assert row["frequency"] == pytest.approx(np.hypot(*theta))
        assert row["orientation"] == pytest.approx(np.degrees(np.arctan2(*theta)))
        assert 0 < row["orientation"] < 180

        away_y = np.angle(np.exp(1j * (frequency - theta[0])))[:, None]
        away_x = np.angle(np.exp(1j * (frequency - theta[1])))[None, :]
        half = np.pi / count / 2
        inside = energy[(abs(away_y) < half) & (abs(away_x) < half)].sum()
        assert row["concentration"] == pytest.approx(inside, abs=3e-4)
        farther = np.maximum(abs(away_y), abs(away_x))
        assert energy[farther < row["bandwidth"] / 2 + 0.01].sum() >= 0.99
        assert energy[farther < row["bandwidth"] / 2 - 0.02].sum() < 0.99
        facing = energy[frequency[:, None] * theta[0] + frequency[None, :] * theta[1] > 0].sum()
        assert row["analyticity"] == pytest.approx(facing, abs=5e-3)
        if not (row["boundary"] or row["lowpass"]):
            assert row["analyticity"] == pytest.approx(facing, abs=1e-5)

        envelope = 2 * np.abs(atom) ** 2
        place = np.arange(len(atom)) - (len(atom) - 1) / 2
        assert row["offset_y"] == pytest.approx(envelope.sum(1) @ place, abs=1e-9)
        assert row["offset_x"] == pytest.approx(envelope.sum(0) @ place, abs=1e-9)
        assert row["boundary"] == (count - 1 in (row["row"], row["col"]))
        assert row["lowpass"] == (row["row"] == row["col"] == 0)


@pytest.mark.parametrize(("depth", "spread"), [(2, 1.5), (3, 3.5), (4, 7.5)])
def test_offsets_spread_about_the_middle(depth: int, spread: float) -> None:
    atoms = dtwpt.PacketBank(depth).atoms()
    for axis in ("offset_y", "offset_x"):
        assert np.ptp(atoms[axis]) == pytest.approx(spread, abs=0.05)
        assert np.mean(atoms[axis]) == pytest.approx(0, abs=1e-3)


def test_table_becomes_a_data_frame_and_is_the_callers_own() -> None:
    bank = dtwpt.PacketBank(2)
    frame = pd.DataFrame(bank.atoms())
    assert len(frame) == 32
    assert (~(frame["lowpass"] | frame["boundary"])).sum() == 16
    table = bank.atoms()
    table["bandwidth"] = 0
    assert bank.atoms()["bandwidth"].min() > 0


def test_banks_and_wavelets_compare_by_their_taps() -> None:
    own = dtwpt.Wavelet.from_taps(dtwpt.Wavelet("qshift_c").low[0], name="mine")
    assert own == dtwpt.Wavelet("qshift_c") != dtwpt.Wavelet("qshift_d")
    assert len({dtwpt.PacketBank(2, own), dtwpt.PacketBank(2, "qshift_c")}) == 1
    assert dtwpt.PacketBank(3) != dtwpt.PacketBank(2)
    for copied in (own, pickle.loads(pickle.dumps(own)), copy.deepcopy(own)):
        assert copied == own
        assert repr(copied) == "<Wavelet 'mine', 16 taps>"
        with pytest.raises(ValueError, match="read-only"):
            copied.low[0, 0] = 1
    bank = dtwpt.PacketBank(3, own)
    assert pickle.loads(pickle.dumps(bank)) == bank
    assert len(pickle.dumps(bank)) < 2000


def test_pairs_that_are_no_half_sample_apart_are_refused_with_the_miss() -> None:
    low = dtwpt.Wavelet("qshift_b").low
    with pytest.raises(ValueError, match=r"lags by -0\.50\d samples, .* misfit of 0\.81"):
        dtwpt.Wavelet.from_taps(low[::-1])
    low_b, high_b = np.pad(low[1], 2), np.pad(dtwpt.Wavelet("qshift_b").high[1], (2, 2))
    late = np.pad(dtwpt.Wavelet("qshift_b").high[0], (4, 0))
    with pytest.raises(ValueError, match=r"high .* of tree a must lag tree b .* by 2\.\d+ samples"):
        dtwpt.Wavelet.from_taps([np.pad(low[0], 2), low_b], [late, high_b])
    root3 = np.sqrt(3)
    daubechies = np.array([1 + root3, 3 + root3, 3 - root3, 1 - root3]) / (4 * np.sqrt(2))
    with pytest.raises(ValueError, match=r"half a sample: it lags by -?1\.\d+ samples"):
        dtwpt.Wavelet.from_taps(daubechies)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([1.0, 2.0, 3.0], None, "even number of taps, got 3"),
        ([], None, "even number of taps, got 0"),
        (np.ones((3, 4)), None, r"shape \(L,\) or \(2, L\), got \(3, 4\)"),
        ([np.nan, 1.0], None, "low must be finite"),
        (["a", "b"], None, "low must be real taps"),
        ([0.5, 0.5], None, "low of tree a is not orthonormal: it misses by 0.5"),
        ([1.0, 1e-3], None, "misses by 1e-06"),
        (dtwpt.Wavelet("qshift_a").high[0], None, "no low-pass"),
        (dtwpt.Wavelet("qshift_a").low, dtwpt.Wavelet("qshift_b").high, "as many taps"),
        (
            dtwpt.Wavelet("qshift_a").low,
            dtwpt.Wavelet("qshift_a").high[::-1],
            "high against low of tree a is not orthonormal",
        ),
    ],
)
def test_bad_taps_are_refused_with_the_reason(low: object, high: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dtwpt.Wavelet.from_taps(low, high)  # type: ignore[arg-type]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown wavelet 'haar'; known wavelets: qshift_06, "):
        dtwpt.PacketBank(2, "haar")
    with pytest.raises(TypeError, match="wavelet must be a name"):
        dtwpt.Wavelet(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth must be an integer from 1 to 10, got 0"):
        dtwpt.PacketBank(0)
    for depth in (1.5, "2", None, True):
        with pytest.raises(TypeError, match="depth must be an integer from 1 to 10, got"):
            dtwpt.PacketBank(depth)  # type: ignore[arg-type]
    bank = dtwpt.PacketBank(2)
    with pytest.raises(ValueError, match=r"sign must be \+1 or -1, got 0"):
        bank.atom(0, 1, 1)
    with pytest.raises(IndexError, match="col must be an integer from 0 to 3, got 4"):
        bank.atom(1, 0, 4)
    with pytest.raises(TypeError, match="row must be an integer"):
        bank.atom(1, 0.5, 1)  # type: ignore[arg-type]
