"""Where max pooling is as stable as a modulus: predicted and measured on photographs.

The experiment of Leterme, Polisano, Perrier and Alahari (arXiv 2209.11740) with dtwpt's packets.
It prints all figures that the page "Reproduction" of the documentation quotes, and saves them with
its pictures:

    python examples/reproduce_shift_invariance.py --output docs/images/reproduction

Other images, shifts, depths and wavelets are options; --wavelet qshift_a is what the authors took.
Needs dtwpt[examples]. Nothing is downloaded: the photographs come with scikit-image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage import data

import dtwpt
import dtwpt.plot
from dtwpt.extract import find_images, read_image
from dtwpt.invariance import alpha, beta, gamma, measure, predict

Image = NDArray[np.float64]

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
SIZE = 257  # a shift of one pixel leaves pairs of 257 x 256
DEPTHS = (2, 3)
SHIFT = (0, 1)
FEW = 4  # one crop in so many, where all would take long
ERRORS = {
    "rmax_cmod": "RMax against CMod",
    "cmod_shift": "CMod, shifted",
    "rmax_shift": "RMax, shifted",
}
COLOURS = ("#0072B2", "#D55E00", "#6b6b6b")


# Images -----------------------------------------------------------------------------------------


def bundled() -> dict[str, Image]:
    """Return scikit-image's photographs in grey, by name."""
    images = {}
    for name in PHOTOGRAPHS:
        pixels = getattr(data, name)() / 255.0
        images[name] = pixels @ [0.299, 0.587, 0.114] if pixels.ndim == 3 else pixels
    return images


def crops(count: int, images: dict[str, Image] | None = None) -> Iterator[tuple[str, Image]]:
    """Yield crops spread evenly over photographs, with the photographs' names."""
    images = bundled() if images is None else images
    places = [
        (name, top, left)
        for name, image in images.items()
        for top in range(0, image.shape[0] - SIZE + 1, 64)
        for left in range(0, image.shape[1] - SIZE + 1, 64)
    ]
    for index in np.linspace(0, len(places) - 1, count).round().astype(int):
        name, top, left = places[index]
        yield name, images[name][top : top + SIZE, left : left + SIZE]


def gaussian_twin(image: Image, rng: np.random.Generator) -> Image:
    """Image of the same power spectrum and mean with random phases: a Gaussian field."""
    window = np.hanning(SIZE + 2)[1:-1, None] * np.hanning(SIZE + 2)[1:-1]
    modulus = np.abs(np.fft.fft2((image - image.mean()) * window))
    modulus[0, 0] = 0
    phases = np.fft.fft2(rng.normal(size=image.shape))
    twin = np.fft.ifft2(modulus * phases / np.abs(phases)).real
    return np.asarray(image.mean() + twin * image.std() / twin.std())


def impulses(density: float, rng: np.random.Generator) -> Image:
    """White noise in which only a share of the pixels is not zero."""
    size = (SIZE, SIZE)
    return np.asarray(rng.normal(size=size) * (rng.random(size) < density))


# Figures ----------------------------------------------------------------------------------------


def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def kurtosis(image: Image, bank: dtwpt.PacketBank) -> NDArray[np.float64]:
    """Fourth moment of each packet's modulus over its squared second."""
    maps = dtwpt.cmod2(image, bank.depth, bank.wavelet)
    squared = maps.reshape(2 * 4**bank.depth, -1) ** 2
    return np.asarray(np.mean(squared**2, axis=1) / np.mean(squared, axis=1) ** 2)


def mean_table(tables: list[np.ndarray]) -> np.ndarray:
    """Average over images: what measure() returns for all of them at once."""
    out = tables[0].copy()
    for name in (*ERRORS, "rmax_shift_by_cmod"):
        out[name] = np.mean([table[name] for table in tables], axis=0)
    out["bandwidth"] = np.sqrt(np.mean([table["bandwidth"] ** 2 for table in tables], axis=0))
    return out


class Report:
    """Lines that are printed and kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str = "") -> None:
        """Print and keep a line."""
        self.lines.append(line.rstrip())
        print(line.rstrip(), flush=True)


class Experiment:
    """All tables of one depth."""

    def __init__(
        self,
        depth: int,
        photographs: list[tuple[str, Image]],
        wavelet: str = "qshift_b",
        shift: tuple[float, float] = SHIFT,
    ) -> None:
        self.depth, self.stride, self.shift = depth, 2 ** (depth - 1), shift
        self.bank = bank = dtwpt.PacketBank(depth, wavelet)
        self.atoms = bank.atoms()
        self.oriented = ~(self.atoms["boundary"] | self.atoms["lowpass"])
        self.names = np.array([name for name, _ in photographs])
        images = [image for _, image in photographs]
        rng = np.random.default_rng(0)
        twins = [gaussian_twin(image, rng) for image in images]
        self.each = [measure([image], bank, shift) for image in images]
        self.each_twin = [measure([twin], bank, shift) for twin in twins]
        self.kurtosis = [kurtosis(image, bank)[self.oriented].mean() for image in images]
        self.measured, self.twins = mean_table(self.each), mean_table(self.each_twin)
        self.predicted = predict(bank, shift, spectrum=images)
        # Images one by one: slow at depth 3.
        alone = [predict(bank, shift, spectrum=[image]) for image in images[::FEW] if depth == 2]
        self.alone = mean_table(alone) if alone else None
        noise = (rng.normal(size=(SIZE, SIZE)) for _ in images)
        self.noise, self.white = measure(noise, bank, shift), predict(bank, shift)
        theta = np.stack([self.atoms["theta_y"], self.atoms["theta_x"]], axis=-1)
        self.gamma = gamma(theta, self.stride)

    def bound_ratios(self, table: np.ndarray) -> dict[str, NDArray[np.float64]]:
        """Square roots of the errors over their bounds, of the oriented packets.

        RMax's own error is on CMod's scale here, as the bound is.
        """
        a, b = alpha(table["bandwidth"], self.shift), beta(table["bandwidth"], self.stride)
        bounds = {
            "rmax_cmod": self.gamma + b,
            "cmod_shift": a,
            "rmax_shift": 2 * (self.gamma + b) + a,
        }
        columns = {name: name for name in ERRORS} | {"rmax_shift": "rmax_shift_by_cmod"}
        return {
            name: (np.sqrt(table[column]) / bounds[name])[self.oriented]
            for name, column in columns.items()
        }


def report_prediction(report: Report, run: Experiment) -> None:
    oriented = run.oriented
    others = ~run.atoms["lowpass"]
    for which, title in (
        (oriented, "the oriented packets"),
        (others, "all packets but the low-pass"),
    ):
        report(f"Photographs, mean over {title} ({which.sum()}):")
        report(f"{'':20}{'measured':>10}{'predicted':>11}{'ratio':>8}{'r':>8}")
        for name, label in ERRORS.items():
            m, p = run.measured[name][which], run.predicted[name][which]
            ratio = m.mean() / p.mean()
            report(
                f"{label:20}{m.mean():10.4f}{p.mean():11.4f}{ratio:8.2f}{correlation(m, p):8.3f}"
            )
        report()
    report("Gaussian images with the spectra of the photographs (oriented packets):")
    report(f"{'':20}{'measured':>10}{'photographs / them':>20}{'them / predicted':>18}{'r':>8}")
    for name, label in ERRORS.items():
        t, m, p = (x[name][oriented] for x in (run.twins, run.measured, run.predicted))
        report(
            f"{label:20}{t.mean():10.4f}{m.mean() / t.mean():20.2f}{t.mean() / p.mean():18.3f}"
            f"{correlation(t, p):8.3f}"
        )
    if run.alone is not None:
        count = len(run.each_twin[::FEW])
        ratios = []
        for name in ERRORS:
            measured = np.mean([table[name][oriented] for table in run.each_twin[::FEW]])
            ratios.append(f"{measured / run.alone[name][oriented].mean():.3f}")
        report(f"them / predicted for each alone, averaged ({count} crops): {', '.join(ratios)}")
    report()
    report("White noise (oriented packets):")
    report(f"{'':20}{'measured':>10}{'predicted':>11}{'difference':>12}{'r':>8}")
    for name, label in ERRORS.items():
        m, p = run.noise[name][oriented], run.white[name][oriented]
        away = 100 * np.mean(np.abs(m / p - 1))
        report(f"{label:20}{m.mean():10.4f}{p.mean():11.4f}{away:10.1f} %{correlation(m, p):8.3f}")
    report()


def report_gamma(report: Report, run: Experiment) -> None:
    oriented, squared = run.oriented, run.gamma**2
    values, counts = np.unique(squared[oriented].round(8), return_counts=True)
    levels = ", ".join(f"{v:.4f} ({n} packets)" for v, n in zip(values, counts, strict=True))
    report("gamma^2 (oriented packets):")
    report(f"values: {levels}; mean {squared[oriented].mean():.4f}")
    for title, table in (("photographs", run.measured), ("white noise", run.noise)):
        means = ", ".join(
            f"{table['rmax_cmod'][oriented & np.isclose(squared, v, atol=1e-6)].mean():.4f}"
            for v in values
        )
        report(f"measured RMax against CMod at these values, {title}: {means}")
    for title, table in (("photographs", run.measured), ("white noise", run.noise)):
        near, moved = table["rmax_cmod"][oriented], table["rmax_shift"][oriented]
        report(
            f"{title}: r(gamma^2, RMax against CMod) = {correlation(squared[oriented], near):.3f}, "
            f"r(gamma^2, RMax shifted) = {correlation(squared[oriented], moved):.3f}, "
            f"r(RMax against CMod, RMax shifted) = {correlation(near, moved):.3f}"
        )
    report()


def report_bounds(report: Report, run: Experiment) -> None:
    report("Root of the measured error over its bound (oriented packets): smallest, mean, largest")
    for title, table in (("photographs", run.measured), ("white noise", run.noise)):
        for name, ratio in run.bound_ratios(table).items():
            report(
                f"{title}, {ERRORS[name]:20}{ratio.min():8.2f}{ratio.mean():8.2f}{ratio.max():8.2f}"
            )
    inner = ~run.atoms["boundary"]
    worst = {"output": 0.0, "occupied": 0.0}
    exceeding: dict[str, list[str]] = {"output": [], "occupied": []}
    for photograph, table in zip(run.names, run.each, strict=True):
        for kind, kappa in (("output", table["bandwidth"]), ("occupied", run.atoms["bandwidth"])):
            ratio = (np.sqrt(table["cmod_shift"]) / alpha(kappa, run.shift))[inner].max()
            worst[kind] = max(worst[kind], ratio)
            exceeding[kind] += [str(photograph)] * bool(ratio > 1)
    report("Single crops, CMod shifted over alpha, worst packet not at pi:")
    for kind, title in (
        ("output", "bandwidth of the output"),
        ("occupied", "of the filter (99 %)"),
    ):
        crops_of = ", ".join(sorted(set(exceeding[kind]))) or "none"
        report(
            f"{title:24} {worst[kind]:.2f}; above 1 on {len(exceeding[kind])} of {len(run.each)} "
            f"crops ({crops_of})"
        )
    report()


def report_sparseness(report: Report, run: Experiment, few: int) -> None:
    oriented, rng = run.oriented, np.random.default_rng(1)
    report("Measured over the Gaussian images' (oriented packets):")
    columns = (*ERRORS.values(), "kurtosis of Z")
    report(f"{'':20}{'crops':>7}" + "".join(f"{label:>20}" for label in columns))
    for photograph in dict.fromkeys(run.names.tolist()):
        chosen = np.flatnonzero(run.names == photograph)
        row = f"{photograph:20}{chosen.size:7}"
        for name in ERRORS:
            ratio = np.mean([run.each[k][name][oriented] for k in chosen]) / np.mean(
                [run.each_twin[k][name][oriented] for k in chosen]
            )
            row += f"{ratio:20.2f}"
        report(row + f"{np.mean([run.kurtosis[k] for k in chosen]):20.1f}")
    report("(kurtosis E |Z|^4 / (E |Z|^2)^2, mean over packets and crops; of a Gaussian field, 2)")
    report("White noise with few pixels that are not zero, over its prediction:")
    for density in (1, 0.1, 0.01, 0.001):
        table = measure((impulses(density, rng) for _ in range(few)), run.bank, run.shift)
        row = f"1 pixel in {round(1 / density):<9}{few:7}"
        for name in ERRORS:
            row += f"{table[name][oriented].mean() / run.white[name][oriented].mean():20.2f}"
        report(row)
    report()


def report_shifts(
    report: Report, run: Experiment, images: list[Image]
) -> tuple[NDArray[Any], dict[str, NDArray[np.float64]]]:
    """Errors against the length of the shift, means over the oriented packets."""
    lengths = np.arange(9)
    shifts = np.stack([0 * lengths, lengths], axis=1)
    table, white = measure(images, run.bank, shifts), predict(run.bank, shifts)
    curves = {}
    report(f"Shifts of several pixels to the right ({len(images)} crops, oriented packets):")
    report(f"{'pixels':34}" + "".join(f"{n:8d}" for n in lengths))
    for name in ("cmod_shift", "rmax_shift"):
        for title, values in (("measured", table), ("predicted for white noise", white)):
            curve = values[name][:, run.oriented].mean(axis=1)
            curves[f"{name} {title}"] = curve
            report(f"{ERRORS[name][:4]}, {title:28}" + "".join(f"{v:8.3f}" for v in curve))
    report()
    return lengths, curves


# Pictures ---------------------------------------------------------------------------------------


def draw_maps(run: Experiment) -> Figure:
    """Draw gamma^2 and the errors over the frequency plane."""
    figure = Figure(figsize=(9.8, 10.4), dpi=82, layout="constrained")
    axes = figure.subplots(3, 2)
    measured, predicted = run.measured, run.predicted
    near = max(table["rmax_cmod"][run.oriented].max() for table in (measured, predicted))
    moved = measured["rmax_shift"][run.oriented].max()
    panels = (
        ("γ², from frequency alone", run.gamma**2, "γ²", None),
        ("RMax against CMod, measured", measured["rmax_cmod"], "error", near),
        ("RMax, shifted, measured", measured["rmax_shift"], "error", moved),
        ("RMax against CMod, predicted", predicted["rmax_cmod"], "error", near),
        ("CMod, shifted, measured, on RMax's scale", measured["cmod_shift"], "error", moved),
        ("CMod, shifted, measured, on its own scale", measured["cmod_shift"], "error", None),
    )
    for axis, (title, values, label, top) in zip(axes.ravel(), panels, strict=True):
        shown = np.where(run.oriented, values, np.nan)
        dtwpt.plot.frequency_plane(run.bank, shown, axis, label=label, vmin=0, vmax=top)
        axis.set_title(title, fontsize=10)
    return figure


def draw_prediction(runs: list[Experiment]) -> Figure:
    """Draw measurement against prediction, one dot per packet."""
    figure = Figure(figsize=(8.4, 2.9 * len(runs)), dpi=100, layout="constrained")
    axes = figure.subplots(len(runs), 3, squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        for axis, (name, label) in zip(row, ERRORS.items(), strict=True):
            top = 0.0
            for m, p, colour, title in (
                (run.measured, run.predicted, COLOURS[1], "photographs"),
                (run.twins, run.predicted, COLOURS[0], "Gaussian images, same spectra"),
            ):
                x, y = p[name][run.oriented], m[name][run.oriented]
                axis.scatter(x, y, s=9, color=colour, alpha=0.7, lw=0, label=title)
                top = max(top, x.max(), y.max())
            axis.plot([0, 1.05 * top], [0, 1.05 * top], color="0.4", lw=0.8, zorder=0)
            axis.set(xlim=(0, 1.05 * top), ylim=(0, 1.05 * top), aspect="equal")
            axis.set_title(f"{label}, J = {run.depth}", fontsize=10)
            axis.set_xlabel("predicted", fontsize=9)
            axis.tick_params(labelsize=8)
        row[0].set_ylabel("measured", fontsize=9)
    axes[0, 0].legend(fontsize=7.5, frameon=False, loc="lower right", handletextpad=0.1)
    return figure


def draw_shifts(
    curves: dict[int, tuple[NDArray[Any], dict[str, NDArray[np.float64]]]],
) -> Figure:
    """Draw the shift errors against the length of the shift."""
    figure = Figure(figsize=(8.4, 3.3), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axis, (depth, (lengths, values)) in zip(axes, curves.items(), strict=True):
        for name, colour in (("rmax_shift", COLOURS[1]), ("cmod_shift", COLOURS[0])):
            short = ERRORS[name][:4]
            axis.plot(
                lengths,
                values[f"{name} measured"],
                "o-",
                ms=4,
                color=colour,
                label=f"{short}, measured",
            )
            predicted = values[f"{name} predicted for white noise"]
            axis.plot(
                lengths,
                predicted,
                "--",
                color=colour,
                lw=1,
                label=f"{short}, predicted, white noise",
            )
        axis.axvline(2 ** (depth - 1), color="0.6", lw=0.8, ls=":")
        axis.text(2 ** (depth - 1) + 0.08, 0.012, "stride m", fontsize=8, color="0.3")
        axis.set_title(f"J = {depth}", fontsize=10)
        axis.set_xlabel("shift to the right (pixels)", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("relative squared error", fontsize=9)
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output/reproduction"),
        help="folder for the report and the pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--crops", type=int, default=68, help="number of crops (default: %(default)s)"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help=f"files or folders of images of at least {SIZE} x {SIZE} pixels "
        "(default: photographs that come with scikit-image)",
    )
    parser.add_argument(
        "--depths", type=int, nargs="+", default=DEPTHS, metavar="J", help="depths (default: 2 3)"
    )
    parser.add_argument(
        "--wavelet",
        choices=dtwpt.wavelets(),
        default="qshift_b",
        help="qshift_a is the one that the authors took (default: %(default)s)",
    )
    parser.add_argument(
        "--shift",
        type=float,
        nargs=2,
        default=SHIFT,
        metavar=("DOWN", "RIGHT"),
        help="pixels, in any direction and not necessarily whole (default: 0 1)",
    )
    options = parser.parse_args()
    shift = (options.shift[0], options.shift[1])
    if options.crops < 2:
        parser.error("--crops must be at least 2")
    started = time.perf_counter()
    options.output.mkdir(parents=True, exist_ok=True)

    given = bundled()
    if options.images is not None:
        files = find_images(options.images)
        given = {Path(file).stem: np.asarray(read_image(file), float) for file in files}
        small = [name for name, image in given.items() if min(image.shape) < SIZE]
        if small:
            parser.error(f"image {small[0]!r} must have at least {SIZE} x {SIZE} pixels")
    photographs = list(crops(options.crops, given))
    images = [image for _, image in photographs]
    report = Report()
    down, right = shift
    how = (
        "one pixel to the right"
        if shift == SHIFT
        else f"({down:g}, {right:g}) pixels (down, right)"
    )
    report(f"{len(images)} crops of {SIZE} x {SIZE} pixels of {len(given)} photographs,")
    report(f"moved by {how}; wavelet {options.wavelet}. r: Pearson correlation over packets.")
    runs, curves = [], {}
    for depth in options.depths:
        report()
        report(f"Depth {depth}")
        report("-------")
        report()
        run = Experiment(depth, photographs, options.wavelet, shift)
        runs.append(run)
        report_prediction(report, run)
        report_gamma(report, run)
        report_bounds(report, run)
        report_sparseness(report, run, max(2, options.crops // FEW))
        curves[depth] = report_shifts(report, run, images[::FEW])
    (options.output / "report.txt").write_text("\n".join(report.lines).strip() + "\n", "utf-8")
    pictures = {
        **{f"maps-{run.depth}.png": draw_maps(run) for run in runs},
        "prediction.png": draw_prediction(runs),
        "shifts.png": draw_shifts(curves),
    }
    for name, figure in pictures.items():
        figure.savefig(options.output / name)
    print(f"Saved report.txt, {', '.join(pictures)} in {options.output}.")
    print(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
