"""The transform from its definition, with explicit loops and nothing shared with the package.

Written down from the table of the cascade: which filter a stage uses depends on the path so far.
Slow, and meant to be read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Taps = list[float]


def tree_pairs(low_a: Taps) -> tuple[tuple[Taps, Taps], tuple[Taps, Taps]]:
    """(low, high) of tree a, and of tree b, its time reverse."""
    high_a = [(-1) ** n * tap for n, tap in enumerate(reversed(low_a))]
    return (low_a, high_a), (low_a[::-1], high_a[::-1])


def convolve_upsampled(taps: Taps, stage: Taps, factor: int) -> Taps:
    out = [0.0] * (len(taps) + factor * (len(stage) - 1))
    for i, tap in enumerate(taps):
        for j, other in enumerate(stage):
            out[i + factor * j] += tap * other
    return out


def path_of(k: int, depth: int) -> list[str]:
    """Branches to the packet at place k in the order of frequency.

    Below a low-pass the children come in the order low, high; below a high-pass, whose
    decimation turns its band around, in the order high, low.
    """
    path: list[str] = []
    turned = False
    low, high = 0, 2**depth
    for _ in range(depth):
        upper = k >= (low + high) // 2
        low, high = ((low + high) // 2, high) if upper else (low, (low + high) // 2)
        branch = "high" if upper != turned else "low"
        path.append(branch)
        turned = upper
    return path


def packet(low_a: Taps, depth: int, k: int) -> list[complex]:
    """Packet k: both trees, as long as the longest path needs."""
    a, b = tree_pairs(low_a)
    path = path_of(k, depth)
    if path[0] == "low":
        first = [*a[0], 0.0, 0.0]
        second = [0.0, *a[0], 0.0]
        own_first, own_second = a, b
    else:
        first = [0.0, 0.0, *a[1]]
        second = [0.0, *[-tap for tap in a[1]], 0.0]
        own_first, own_second = b, a
    passed_high = False
    for stage in range(1, depth):
        branch = 0 if path[stage] == "low" else 1
        pair_first, pair_second = (a, a) if passed_high else (own_first, own_second)
        first = convolve_upsampled(first, pair_first[branch], 2**stage)
        second = convolve_upsampled(second, pair_second[branch], 2**stage)
        passed_high = passed_high or branch == 1
    norm = math.sqrt(sum(t * t for t in first) + sum(t * t for t in second))
    psi = [complex(p, q) / norm for p, q in zip(first, second, strict=True)]
    if positive_share(psi) < 0.5:
        psi = [value.conjugate() for value in psi]
    return psi


def positive_share(psi: list[complex]) -> float:
    spectrum = np.abs(np.fft.fft(psi, 8192)) ** 2
    positive = spectrum[1:4096].sum() + (spectrum[0] + spectrum[4096]) / 2
    return float(positive / spectrum.sum())


def sample(x: NDArray[Any], position: int, mode: str) -> float:
    """Value of the extended signal at any position, walking back into it step by step."""
    n = len(x)
    if mode == "zero":
        return float(x[position]) if 0 <= position < n else 0.0
    if mode == "replicate":
        return float(x[min(max(position, 0), n - 1)])
    while not 0 <= position < n:
        if mode == "periodic":
            position += n if position < 0 else -n
        elif mode == "symmetric":
            position = -1 - position if position < 0 else 2 * n - 1 - position
        elif n == 1:
            position = 0
        else:
            position = -position if position < 0 else 2 * (n - 1) - position
    return float(x[position])


def coefficients(
    x: NDArray[Any], bank: list[list[complex]], stride: int, mode: str
) -> NDArray[np.complex128]:
    """One dimension: inner products with the packets, their middle on the stride cell's."""
    length = len(bank[0])
    count = -(-len(x) // stride)
    out = np.zeros((len(bank), count), complex)
    for n in range(count):
        start = math.floor(stride * n + (stride - 1) / 2 - (length - 1) / 2)
        for tap in range(length):
            value = sample(x, start + tap, mode)
            for k, psi in enumerate(bank):
                out[k, n] += value * psi[tap].conjugate()
    return out


def dtcwpt(x: NDArray[Any], low_a: Taps, depth: int, stride: int, mode: str) -> NDArray[Any]:
    bank = [packet(low_a, depth, k) for k in range(2**depth)]
    return coefficients(x, bank, stride, mode)


def dtcwpt2(x: NDArray[Any], low_a: Taps, depth: int, stride: int, mode: str) -> NDArray[Any]:
    """Two dimensions, from complex packets: psi (x) psi and psi (x) conj(psi), over sqrt 2."""
    bank = [packet(low_a, depth, k) for k in range(2**depth)]
    conjugates = [[value.conjugate() for value in psi] for psi in bank]
    signs = []
    for horizontal in (bank, conjugates):
        across = np.stack([complex_rows(row, horizontal, stride, mode) for row in x])
        down = np.zeros((len(bank), len(bank), -(-len(x) // stride), across.shape[2]), complex)
        for j in range(across.shape[1]):
            for column in range(across.shape[2]):
                down[:, j, :, column] = complex_rows(across[:, j, column], bank, stride, mode)
        signs.append(down * math.sqrt(0.5))
    return np.stack(signs)


def complex_rows(
    x: NDArray[Any], bank: list[list[complex]], stride: int, mode: str
) -> NDArray[np.complex128]:
    x = np.asarray(x, complex)
    return coefficients(x.real, bank, stride, mode) + 1j * coefficients(x.imag, bank, stride, mode)
