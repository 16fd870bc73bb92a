"""Banks of dual-tree complex wavelet packets, in the order of their frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dtwpt.checks import as_depth, as_int, as_wavelet
from dtwpt.text import shown
from dtwpt.wavelets import Wavelet

__all__ = ["ATOM_DTYPE", "OCCUPIED", "PLANE_GAIN", "PacketBank", "packet_filters", "packet_stages"]

#: Columns of :meth:`PacketBank.atoms`.
ATOM_DTYPE = np.dtype(
    [
        ("sign", np.int64),
        ("row", np.int64),
        ("col", np.int64),
        ("theta_y", np.float64),
        ("theta_x", np.float64),
        ("frequency", np.float64),
        ("orientation", np.float64),
        ("bandwidth", np.float64),
        ("concentration", np.float64),
        ("analyticity", np.float64),
        ("offset_y", np.float64),
        ("offset_x", np.float64),
        ("boundary", np.bool_),
        ("lowpass", np.bool_),
        ("gabor", np.bool_),
    ]
)

#: Share of the energy that occupied bandwidth holds.
OCCUPIED = 0.99

#: Product of the two axes' packets times this makes the two-dimensional frame a Parseval frame:
#: four separable orthonormal bases, each of whose coefficients is used in both signs.
PLANE_GAIN = 0.5**0.5


class PacketBank:
    r"""The complex wavelet packets of one depth, in one and two dimensions.

    Packet ``k`` occupies the band :math:`[k\pi/2^J, (k+1)\pi/2^J]`; all but the first and the last
    one, which straddle 0 and :math:`\pi`, have next to no energy at negative frequencies ([1]_).

    Parameters
    ----------
    depth : int
        Number of stages J, at least 1; there are ``2**depth`` packets per axis.
    wavelet : str or Wavelet, default: "qshift_b"

    Attributes
    ----------
    depth : int
    wavelet : Wavelet
    filters : ndarray of complex128, shape (2**depth, L)
        The packets as they lie in the signal, of unit norm: a coefficient is the inner product
        ``sum(x[n:n + L] * conj(filters[k]))``. ``L = (taps + 2) + (taps - 1) * (2**depth - 2)``.
        Read-only.
    frequencies : ndarray of float64, shape (2**depth,)
        Centres of the bands, ``(k + 1/2) * pi / 2**depth`` rad/sample. Read-only.

    Raises
    ------
    TypeError, ValueError
        If depth is not an integer of at least 1, or the wavelet is unknown.

    References
    ----------
    .. [1] I. Bayram and I. W. Selesnick, "On the Dual-Tree Complex Wavelet Packet and M-Band
       Transforms", IEEE Transactions on Signal Processing 56 (2008), 2298-2310.

    Examples
    --------
    >>> import dtwpt
    >>> bank = dtwpt.PacketBank(2)
    >>> bank.filters.shape
    (4, 42)
    >>> atoms = bank.atoms()
    >>> gabor = atoms[atoms["gabor"]]
    >>> len(atoms), len(gabor)
    (32, 16)
    """

    depth: int
    wavelet: Wavelet
    filters: NDArray[np.complex128]
    frequencies: NDArray[np.float64]

    def __init__(self, depth: int, wavelet: str | Wavelet = "qshift_b") -> None:
        self.depth = as_depth(depth)
        self.wavelet = as_wavelet(wavelet)
        self.filters = packet_filters(self.depth, self.wavelet)
        count = 2**self.depth
        self.frequencies = (np.arange(count) + 0.5) * np.pi / count
        self.frequencies.setflags(write=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PacketBank):
            return NotImplemented
        return (self.depth, self.wavelet) == (other.depth, other.wavelet)

    def __hash__(self) -> int:
        return hash((self.depth, self.wavelet))

    def __reduce__(self) -> tuple[type[PacketBank], tuple[int, Wavelet]]:
        return PacketBank, (self.depth, self.wavelet)

    def __repr__(self) -> str:
        return f"PacketBank({self.depth}, {self.wavelet!r})"

    def atom(self, sign: int, row: int, col: int) -> NDArray[np.complex128]:
        """Return one two-dimensional atom as it lies in the image.

        Parameters
        ----------
        sign : {+1, -1}
            +1: frequencies with both components positive; -1: the horizontal one is negative.
        row, col : int
            Vertical and horizontal packet, 0 to ``2**depth - 1``.

        Returns
        -------
        ndarray of complex128, shape (L, L)
            Of squared norm 1/2. The coefficient is the inner product of the image with it (the
            atom conjugated).

        Raises
        ------
        TypeError, ValueError, IndexError
            If sign is neither +1 nor -1, or a packet is not in the bank.

        Examples
        --------
        >>> import dtwpt
        >>> dtwpt.PacketBank(2).atom(-1, 1, 2).shape
        (42, 42)
        """
        if as_int(sign, "sign", "+1 or -1") not in (1, -1):
            raise ValueError(f"sign must be +1 or -1, got {shown(sign)}")
        vertical = self.filters[self._index(row, "row")]
        horizontal = self.filters[self._index(col, "col")]
        if sign == -1:
            horizontal = horizontal.conj()
        atom: NDArray[np.complex128] = np.outer(PLANE_GAIN * vertical, horizontal)
        return atom

    def _index(self, index: int, name: str) -> int:
        accepted = f"an integer from 0 to {2**self.depth - 1}"
        number = as_int(index, name, accepted)
        if not 0 <= number < 2**self.depth:
            raise IndexError(f"{name} must be {accepted}, got {number}")
        return number

    def atoms(self) -> np.ndarray:
        r"""Return the table of all two-dimensional atoms.

        Returns
        -------
        structured ndarray, shape (2 * 4**depth,)
            In the order (sign, row, col) of the coefficient arrays, sign +1 first, with columns

            - ``sign``, ``row``, ``col``: +1 or -1, vertical and horizontal packet;
            - ``theta_y``, ``theta_x``: centre of the nominal cell, rad/pixel;
            - ``frequency``: its distance from zero, rad/pixel;
            - ``orientation``: direction of the frequency vector, degrees in (0, 180), from the x
              axis towards the y axis, which points down as rows do. 0 would be vertical stripes;
            - ``bandwidth``: occupied bandwidth, rad/pixel: side of the smallest square about the
              centre of its cell that holds 99 % of the atom's energy. An ideal packet would have
              :math:`\pi/2^J`;
            - ``concentration``: share of energy in the nominal cell, :math:`\pi/2^J` wide;
            - ``analyticity``: share of energy in the half-plane on which frequencies have a
              positive inner product with theta;
            - ``offset_y``, ``offset_x``: centre of the atom's envelope :math:`|\psi|^2` from the
              middle of its L taps, pixels. The atom of coefficient ``n`` is centred on pixel
              ``stride * n + (stride - 1) / 2 + offset``;
            - ``boundary``: touches the last band (around pi) along an axis;
            - ``lowpass``: the first packet along both axes, which carries the mean;
            - ``gabor``: Gabor-like, neither ``boundary`` nor ``lowpass``.

        Examples
        --------
        >>> import dtwpt
        >>> row = dtwpt.PacketBank(2).atoms()[5]
        >>> int(row["sign"]), int(row["row"]), int(row["col"]), round(float(row["orientation"]))
        (1, 1, 1, 45)
        """
        return _atoms(self.depth, self.wavelet).copy()


def _first_stage(wavelet: Wavelet) -> NDArray[np.float64]:
    """First filters of both trees: one pair, tree 2's a sample later (low) or earlier, negated.

    Only this side of the delays makes the packets analytic; the other halves the share of
    positive frequencies.
    """
    low, high = wavelet.low[0], wavelet.high[0]
    tree_1 = [np.pad(low, (0, 2)), np.pad(high, (2, 0))]
    tree_2 = [np.pad(low, (1, 1)), -np.pad(high, (1, 1))]
    return np.array([tree_1, tree_2])[:, None]


def _later_stage(wavelet: Wavelet, stage: int) -> NDArray[np.float64]:
    pairs = np.stack([wavelet.low, wavelet.high], axis=1)  # (tree, child, taps)
    nodes = np.arange(2**stage)
    swapped = nodes >> (stage - 1) == 1  # the trees swap below the first high-pass
    alike = nodes % 2 ** (stage - 1) != 0  # below a later high-pass both trees are tree a
    own = np.stack([swapped & ~alike, ~swapped & ~alike]).astype(int)
    later: NDArray[np.float64] = pairs[own]
    return later


@lru_cache(maxsize=16)
def packet_stages(depth: int, wavelet: Wavelet) -> tuple[NDArray[np.float64], ...]:
    """Return the filters of all stages of the cascade, to be correlated with a signal.

    Stage s has shape (2, 2**s, 2, taps): (tree, parent node, child, taps), the low-pass child
    first, taps ``2**s`` samples apart. Child c of node n is node ``2 n + c`` of the next stage, and
    node ``k ^ (k >> 1)`` of the last one is packet k: each high-pass mirrors the band below it, so
    the order of frequencies is the Gray code of paths. The last stage holds the packets' norms, and
    the signs that make tree 1 + i tree 2 the inner product with :func:`packet_filters`.
    """
    stages = [_first_stage(wavelet)]
    stages += [_later_stage(wavelet, stage) for stage in range(1, depth)]
    trees = _composed(stages)
    # The published taps of qshift_32 are 8e-10 too long.
    norm = np.sqrt(np.sum(trees**2, axis=(0, 2)))
    # Energy at positive minus energy at negative frequencies, through sum |F|^2 sin(omega).
    packets = trees[0] + 1j * trees[1]
    balance = np.sum((packets[:, 1:] * packets[:, :-1].conj()).imag, axis=1)
    factor = np.stack([np.ones_like(norm), np.where(balance > 0, -1.0, 1.0)]) / norm
    stages[-1] = stages[-1] * factor.reshape(2, -1, 2, 1)
    for taps in stages:
        taps.setflags(write=False)
    return tuple(stages)


def _composed(stages: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the single filters that a cascade amounts to: (tree, node of the last stage, L)."""
    filters = stages[0][:, 0]
    for stage, taps in enumerate(stages[1:], start=1):
        nodes, length = filters.shape[1:]
        spread = 2**stage * np.arange(taps.shape[3])
        longer = np.zeros((2, nodes, 2, length + spread[-1]))
        for tap, shift in enumerate(spread):
            longer[..., shift : shift + length] += taps[..., tap, None] * filters[:, :, None]
        filters = longer.reshape(2, 2 * nodes, -1)
    return filters


@lru_cache(maxsize=16)
def packet_filters(depth: int, wavelet: Wavelet) -> NDArray[np.complex128]:
    """Return the packets, shape (2**depth, L), in order of frequency; read-only."""
    trees = _composed(packet_stages(depth, wavelet))
    k = np.arange(2**depth)
    filters: NDArray[np.complex128] = (trees[0] - 1j * trees[1])[k ^ (k >> 1)]
    filters.setflags(write=False)
    return filters


@lru_cache(maxsize=32)
def _atoms(depth: int, wavelet: Wavelet) -> np.ndarray:
    filters = packet_filters(depth, wavelet)
    count, length = filters.shape
    width = np.pi / count
    centres = (np.arange(count) + 0.5) * width

    omega, energy = _energy_in_bins(filters)
    cell = np.sum(energy * (np.floor(omega / width) == np.arange(count)[:, None]), axis=1)
    envelope = np.abs(filters) ** 2
    envelope /= envelope.sum(axis=1, keepdims=True)
    offset = envelope @ (np.arange(length) - (length - 1) / 2)
    facing = _facing_energy(energy, omega, centres)

    sign, row, col = (
        index.ravel() for index in np.meshgrid([1, -1], *[np.arange(count)] * 2, indexing="ij")
    )
    table = np.empty(sign.size, ATOM_DTYPE)
    table["sign"], table["row"], table["col"] = sign, row, col
    table["theta_y"], table["theta_x"] = centres[row], sign * centres[col]
    table["frequency"] = np.hypot(table["theta_y"], table["theta_x"])
    table["orientation"] = np.degrees(np.arctan2(table["theta_y"], table["theta_x"]))
    table["bandwidth"] = _occupied_bandwidth(energy, omega, centres)[row, col]
    table["concentration"] = cell[row] * cell[col]
    table["analyticity"] = facing[row, col]
    table["offset_y"], table["offset_x"] = offset[row], offset[col]
    table["boundary"] = (row == count - 1) | (col == count - 1)
    table["lowpass"] = (row == 0) & (col == 0)
    table["gabor"] = ~(table["boundary"] | table["lowpass"])
    table.setflags(write=False)
    return table


def _energy_in_bins(
    filters: NDArray[np.complex128],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut the frequencies into narrow bins; return their centres and each one's share of energy.

    The cells are whole numbers of bins.
    """
    count, length = filters.shape
    bins = 2 * count * max(128, 2 ** int(np.ceil(np.log2(length / count))))
    ramp = np.exp(-1j * np.pi / bins * np.arange(length))
    density = np.abs(np.fft.fft(filters * ramp, bins, axis=1)) ** 2
    # The integral of a harmonic over a bin is its value at the centre times a sinc: exact, as
    # the energy spectrum has no more than 2 L - 1 harmonics.
    harmonics = np.fft.ifft(density, axis=1) * np.sinc(np.fft.fftfreq(bins))
    energy = np.fft.fft(harmonics, axis=1).real
    omega = (np.arange(bins) + 0.5) * 2 * np.pi / bins
    omega[bins // 2 :] -= 2 * np.pi
    return omega, energy / energy.sum(axis=1, keepdims=True)


def _occupied_bandwidth(
    energy: NDArray[np.float64], omega: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Side of the square about its centre that holds 99 % of a product atom's energy."""
    step = omega[1] - omega[0]
    radius = np.arange(1, omega.size // 2 + 1) * step
    # Bins are counted by the distance of their far edge, so that only whole bins count as inside.
    distance = np.abs(np.angle(np.exp(1j * (omega - centres[:, None])))) + step / 2
    ring = np.ceil(distance / step - 1e-6).astype(int) - 1
    within = np.stack(
        [
            np.bincount(rings, weights=shares, minlength=radius.size)[: radius.size].cumsum()
            for rings, shares in zip(ring, energy, strict=True)
        ]
    )
    width = np.empty((len(energy), len(energy)))
    for row, down in enumerate(within):
        inside = down * within >= OCCUPIED
        width[row] = 2 * radius[inside.argmax(axis=1)]
    return width


def _facing_energy(
    energy: NDArray[np.float64], omega: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of each product atom's energy where the frequency faces the atom's centre.

    The same for both signs, as the mirror image is.
    """
    order = np.argsort(omega)
    # Eight bins in one: enough for an integral, and there are many atoms.
    omega = omega[order].reshape(-1, 8).mean(axis=1)
    energy = energy[:, order].reshape(len(energy), -1, 8).sum(axis=2)
    step = omega[1] - omega[0]
    edges = np.concatenate([[-np.pi], omega + step / 2])
    above = 1.0 - np.concatenate([np.zeros((len(energy), 1)), np.cumsum(energy, axis=1)], axis=1)
    share = np.empty((len(energy), len(energy)))
    for row, centre_y in enumerate(centres):
        for col, centre_x in enumerate(centres):
            threshold = np.clip(-omega * centre_y / centre_x, -np.pi, np.pi)
            share[row, col] = energy[row] @ np.interp(threshold, edges, above[col])
    return np.clip(share, 0.0, 1.0)
