"""The report on shift invariance: its numbers, its page, its folder, and kernels from files."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import dtwpt
from dtwpt.cli import main
from dtwpt.invariance import (
    Layer,
    as_layer,
    characterize,
    design,
    estimate_spectrum,
    measure,
    predict,
)
from dtwpt.invariance.filters import ERRORS

pytest.importorskip("matplotlib")

from dtwpt.extract import ImageError
from dtwpt.report import (
    KernelError,
    analyse_layer,
    analyse_packets,
    load_kernels,
    load_layer,
    read_crops,
    write_report,
)
from dtwpt.report.analysis import _shifts_of_lengths, _whole_shifts, least_size
from dtwpt.report.explorer import _complex_kernels, _maps, _outputs, _photograph
from dtwpt.report.folder import check_folder
from dtwpt.report.page import _verdict, describe, page, retell
from dtwpt.report.pictures import Style, draw
from tests.photographs import grey


def gabor(frequency: float, angle: float) -> NDArray[np.float64]:
    y, x = np.mgrid[-3:4, -3:4]
    wave = np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y))
    envelope = np.exp(-(x**2 + y**2) / 5)
    wave *= envelope
    return np.asarray(wave - envelope * wave.sum() / envelope.sum())


def layer() -> NDArray[np.float64]:
    """Two Gabor kernels, one dead, one that sees colour alone, a blob, noise."""
    y, x = np.mgrid[-3:4, -3:4]
    colour = np.array([1.0, -2.0, 1.0])[:, None, None] * gabor(1.5, 1)
    return np.stack(
        [
            np.broadcast_to(gabor(1.6, 0.2), (3, 7, 7)),
            np.zeros((3, 7, 7)),
            colour,
            np.broadcast_to(gabor(2.0, 2.0), (3, 7, 7)),
            np.broadcast_to(np.exp(-(x**2 + y**2) / 4), (3, 7, 7)),
            np.random.default_rng(0).normal(size=(3, 7, 7)),
        ]
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    files = []
    for name, (height, width) in {"camera": (120, 140), "brick": (97, 130)}.items():
        np.save(folder / f"{name}.npy", grey(name)[:height, :width])
        files.append(str(folder / f"{name}.npy"))
    return files


# Numbers ----------------------------------------------------------------------------------------


def parsed(content: bytes) -> dict[str, NDArray[Any]]:
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_packets_on_images(photos: list[str]) -> None:
    bank, shifts = dtwpt.PacketBank(2), [(0.0, 1.0), (-1.0, 1.0)]
    crops = read_crops(photos, least=least_size(bank, 2, 1, shifts))
    assert crops.size == (97, 97)  # the shorter side of the smallest
    np.testing.assert_array_equal(
        next(crops.images), grey("camera")[:120, :140][11:108, 21:118].astype(np.float32)
    )
    steps = []
    analysis = analyse_packets(bank, shifts, crops=crops, progress=lambda: steps.append(1))
    assert len(steps) == 2 * len(photos)
    table = parsed(analysis.csv())
    assert len(table["filter"]) == 2 * 32
    for which, expected in (
        ("measured", measure(crops.images, bank, shifts)),
        ("predicted", predict(bank, shifts, spectrum=estimate_spectrum(crops.images))),
    ):
        for error in ERRORS:
            for end in ("", "_stderr"):
                np.testing.assert_array_equal(
                    table[f"{which}_{error}{end}"], expected[error + end].ravel()
                )
    atoms = bank.atoms()
    for name in ("sign", "row", "col", "theta_y", "theta_x", "bandwidth", "boundary"):
        np.testing.assert_array_equal(table[name], np.tile(atoms[name], 2))
    np.testing.assert_array_equal(table["shift_y"], np.repeat([0, -1], 32))
    assert analysis.gabor.sum() == table["gabor"][:32].sum() == 16
    np.testing.assert_array_equal(
        np.unique(analysis.curve_predicted["filter"]), np.flatnonzero(analysis.gabor)
    )
    assert analysis.curve_measured is not None
    np.testing.assert_array_equal(analysis.curve_measured["shift_x"][:, 0], np.arange(1, 9))


def test_a_layer_leaves_out_what_does_not_answer_grey() -> None:
    kernels = layer()
    analysis = analyse_layer(kernels, [(0.0, 1.0)], stride=2)
    assert analysis.filters.tolist() == [0, 3, 4, 5]
    assert analysis.blank == [1, 2]
    assert analysis.gabor.tolist() == [True, True, False, False]
    table = parsed(analysis.csv())
    expected = predict(kernels[[0, 3, 4, 5]], (0, 1), spectrum="pink", stride=2)
    for error in ERRORS:
        np.testing.assert_array_equal(table[f"predicted_{error}"], expected[error])
    likeness = characterize(kernels[[0, 3, 4, 5]])["gabor_likeness"]
    np.testing.assert_array_equal(table["gabor_likeness"], likeness)
    np.testing.assert_allclose(table["grey_share"][:3], 1)
    assert table["grey_share"][3] < 0.6
    assert not any(name.startswith("measured") for name in table)
    with pytest.raises(ValueError, match="no kernel responds to grey"):
        analyse_layer(kernels[1:3], [(0.0, 1.0)])


@pytest.fixture(scope="module")
def stem() -> Any:
    """A stem of three kernels, one of them dead, in evaluation mode."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 3, 7, 2, 3), torch.nn.BatchNorm2d(3)
    conv.weight.data = torch.from_numpy(layer()[[0, 2, 1]])
    conv.bias.data = torch.tensor([0.1, 0.2, 0])
    norm.running_mean, norm.running_var = torch.tensor([0.3, 0.1, 0]), torch.tensor([0.5, 2, 1])
    norm.weight.data, norm.bias.data = torch.tensor([1.5, 0.7, 1]), torch.tensor([0.4, 0.3, 0])
    return torch.nn.Sequential(conv, norm, torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1)).eval()


def test_a_whole_layer_in_colour(stem: Any, tmp_path: Path) -> None:
    import torch

    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        np.save(tmp_path / f"{name}.npy", rng.random((72, 80, 3)))
    files = sorted(str(path) for path in tmp_path.glob("*.npy"))
    torch.save(stem.state_dict(), tmp_path / "stem.pt")
    found, key = load_layer(tmp_path / "stem.pt", bias="0.bias", norm="1", relu=True)
    assert key == "0.weight"
    expected = as_layer(stem)
    np.testing.assert_allclose(found.filters, expected.filters, rtol=1e-12)
    np.testing.assert_allclose(found.bias, expected.bias, rtol=1e-12)
    expected.save(tmp_path / "stem.npz")
    again = Layer.load(tmp_path / "stem.npz")
    for name in ("filters", "bias", "relu", "stride", "window", "blur", "pool_stride"):
        np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))

    crops = read_crops(files, least=least_size(found, 2, 1, [(0.0, 1.0)]))
    analysis = analyse_layer(found, [(0.0, 1.0)], crops=crops)
    assert analysis.blank == [2]
    assert analysis.crops is not None
    images = list(analysis.crops.images)
    assert images[0].shape == (3, 72, 72)
    some = Layer(found.filters[:2], found.bias[:2], relu=True, stride=2)
    table = parsed(analysis.csv())
    for which, result in (
        ("measured", measure(images, some)),
        ("predicted", predict(some, spectrum=images)),
    ):
        np.testing.assert_allclose(table[f"{which}_rmax_shift"], result["rmax_shift"], rtol=1e-6)
    assert ("layer", "bias; ReLU; maximum over 3 x 3") in describe(analysis)
    assert b"its twin" in page(analysis, draw(analysis), [], "")
    blurred = Layer(found.filters[:2], relu=True, window=2, blur=3, stride=1.5)
    analysis = analyse_layer(blurred, [(0.0, 1.0)])
    assert "gamma.png" not in [picture.name for picture in draw(analysis)]
    assert np.isnan(parsed(analysis.csv())["gamma"]).all()
    with pytest.raises(ValueError, match="a layer with a bias needs images"):
        analyse_layer(found, [(0.0, 1.0)])
    with pytest.raises(KernelError, match=r"tensor '0.weight' must have shape \(3,\), got"):
        load_layer(tmp_path / "stem.pt", bias="0.weight")
    with pytest.raises(KernelError, match=r"no tensor 'bn\.running_mean'"):
        load_layer(tmp_path / "stem.pt", norm="bn")
    with pytest.raises(ValueError, match=r"one\.npy: not a layer that Layer\.save wrote"):
        Layer.load(files[0])


def test_a_design_on_the_command_line(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    ours = ["--stride", "2", "--pool", "3", "--budget", "4"]
    monkey = pytest.MonkeyPatch()
    monkey.setattr("dtwpt.cli._on_stop_signals", lambda handler: None)

    def run(*args: Any) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["invariance", *map(str, args)])
        return caught.value.code, *capsys.readouterr()

    with monkey.context():
        said = run(*photos, "-o", report, "--design", *ours, "--crop", 97)
        assert said[:2] == (0, f"{report}/index.html: 4 filters of 60 chosen on 2 images\n")
        images = list(read_crops(photos, 97).images)
        found = design(2, 3, estimate_spectrum(images, reach=5), budget=4)
        table = parsed((report / "filters.csv").read_bytes())
        for name in found.table.dtype.names or ():
            np.testing.assert_array_equal(table[name], found.table[name].astype(float))
        measured = measure(images, found.candidates, [(0, 1), (1, 0)])["rmax_shift"].mean(0)
        np.testing.assert_allclose(table["measured"], measured, rtol=1e-6)
        np.testing.assert_array_equal(np.load(report / "kernels.npy"), found.kernels.real)
        text = (report / "index.html").read_text()
        assert f"{measured[found.chosen].mean():.3f}" in text
        assert "--budget 4 --crop 97 --design -o" in text
        assert (report / "design.png").read_bytes().startswith(b"\x89PNG")
        # Packets, in theory alone, replace it.
        said = run("-o", report, "--design", "--depth", 2, "--spectrum", "white", "--budget", 30)
        assert said[:2] == (0, f"{report}/index.html: 30 filters of 30 chosen, theory alone\n")
        for status, message, args in (
            (1, "budget must be at most 60, the candidates, got 99", ["--design", "--budget", 99]),
            (2, "--budget is for --design", ["--budget", 9]),
            (2, "--design and --kernels exclude each other", ["--design", "--kernels", "a.npy"]),
            (2, "--kernels and --layer exclude each", ["--layer", "a", "--kernels", "a.npy"]),
            (2, "--wavelet is for packets: give --depth", ["--design", "--wavelet", "qshift_a"]),
            (2, "--relu is for --kernels", ["--relu"]),
            (2, "--pool is a part of the layer", ["--layer", "a.npz", "--pool", 3]),
            (1, "a.npz: No such file", ["--layer", "a.npz"]),
        ):
            code, out, error = run("-o", tmp_path / "no", *args)
            assert (code, out) == (status, "")
            assert message in error
            assert error.count("\n") == 1
    monkey.undo()
    assert os.listdir(tmp_path) == ["report"]


@pytest.mark.parametrize(
    ("shift", "whole"),
    [
        ((0.0, 1.0), [(0, k) for k in range(1, 9)]),
        ((-4.0, 4.0), [(-k, k) for k in range(1, 6)]),
        ((0.0, -0.25), [(0, -k) for k in range(1, 9)]),
        ((9.0, 7.0), [(9, 7)]),
    ],
)
def test_curves_go_in_the_shifts_direction(
    shift: tuple[float, float], whole: list[tuple[float, float]]
) -> None:
    np.testing.assert_allclose(_whole_shifts(shift), whole)
    lengths = np.array(_shifts_of_lengths(shift))
    np.testing.assert_allclose(
        np.cross([(*shift, 0)], [(*end, 0) for end in lengths]), 0, atol=1e-9
    )
    assert np.hypot(*lengths[-1]) == pytest.approx(max(8, np.hypot(*whole[-1])))


@pytest.mark.parametrize("filters", [dtwpt.PacketBank(2), layer()[[0, 3]]])
def test_least_size_is_enough_to_measure(filters: Any) -> None:
    for shifts in ([(0.0, 1.0)], [(0.5, 1.0)], [(-3.0, 2.0), (3.0, 2.0)]):
        least = least_size(filters, 2, 2, shifts)
        for extra in range(3):
            image = np.random.default_rng(0).normal(size=(1, least[0] + extra, least[1]))
            for moves in (shifts, _whole_shifts(shifts[0])):
                table = measure(image, filters, moves, q=2)
                assert np.all(table["cmod_shift"] > 0)


def test_images_that_cannot_be_used_are_named(photos: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.ones((200, 200)))
    with pytest.raises(ImageError, match=r"brick.npy: 97x130 .* need 98x98"):
        read_crops(photos, least=(98, 98))
    with pytest.raises(ImageError, match=r"brick.npy: 97x130 pixels, --crop is 100x20"):
        read_crops(photos, (100, 20))
    with pytest.raises(ImageError, match=r"flat.npy: blank"):
        read_crops([*photos, str(tmp_path / "flat.npy")])
    with pytest.raises(ValueError, match=r"crops of 50x50 are too small.* 60x54"):
        read_crops(photos, 50, (60, 54))


# Page and folder --------------------------------------------------------------------------------


class Sources(HTMLParser):
    """What a page would load, and its tags that were never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.images: list[bytes] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "background") and value:
                head, _, data = value.partition(",")
                if head == "data:image/png;base64":
                    self.images.append(base64.b64decode(data))
                else:
                    self.urls.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of what is closed where it begins, in SVG and forms."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_self_contained_and_reproducible(photos: list[str]) -> None:
    crops = read_crops(photos)
    pages = []
    for _ in range(2):
        analysis = analyse_layer(layer(), [(0.0, 1.0)], crops=crops)
        pictures = draw(analysis)
        settings = describe(analysis, "folder/<conv1>.pt", "conv1.weight")
        pages.append(page(analysis, pictures, settings, retell(["a & b"], {"output": "r"})))
    assert pages[0] == pages[1]
    text = pages[0].decode()
    sources = Sources()
    sources.feed(text)
    assert set(sources.urls) == {"filters.csv", *(picture.name for picture in pictures)}
    assert sources.open == []
    assert sources.images == [picture.png for picture in pictures]
    assert all(png.startswith(b"\x89PNG") for png in sources.images)
    assert [picture.name for picture in pictures] == [
        *("kernels.png", "gain.png", "plane.png", "orientation.png", "frequency.png"),
        *("prediction.png", "shift.png", "gamma.png"),
    ]
    for words in (
        *(f"dtwpt {dtwpt.__version__}", "&lt;conv1&gt;.pt, conv1.weight", "left out", "1, 2"),
        *("the middle of 2 images, each 97 x 97 pixels", "dtwpt invariance &#x27;a &amp; b&#x27;"),
        *("prefers-color-scheme: dark", "default-src 'none'", "2 of 4"),
    ):
        assert words in text, words
    assert not re.search(r"https?:|@import|url\((?!data:image/png;base64,)|<script [^>]", text)
    # The policy allows the one script that the page holds.
    ((script,), policy) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL), text
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    found = json.loads(re.search(r"const data = (.*), rows = ", script)[1])  # type: ignore[index]
    for row, said in zip(analysis.shown[0], found["rows"], strict=True):
        assert said["RMax"].startswith(f"{row['rmax_shift']:.3g}")
        assert said["CMod"].startswith(f"{row['cmod_shift']:.3g}")
    table = analysis.shown[0][analysis.gabor]
    assert f">{table['rmax_shift'].mean():.3g}</b>" in text
    assert f">{table['cmod_shift'].mean():.3g}</b>" in text


def test_the_verdict_names_the_more_stable_operator(photos: list[str]) -> None:
    analysis = analyse_packets(dtwpt.PacketBank(2), [(0.0, 1.0)], crops=read_crops(photos))
    verdict = _verdict(analysis)
    assert verdict.startswith("A shift by 1 pixel to the right changes CMod ")
    assert "times less than RMax" in verdict
    swapped = {
        name: np.array(table)
        for name, table in (("measured", analysis.measured), ("curve", analysis.curve_measured))
    }
    for table in swapped.values():
        table["cmod_shift"], table["rmax_shift"] = table["rmax_shift"], table["cmod_shift"].copy()
    other = replace(analysis, measured=swapped["measured"], curve_measured=swapped["curve"])
    assert "changes RMax" in _verdict(other)
    assert "stays" not in _verdict(other)


def test_maps_of_the_page_are_those_of_the_operators(photos: list[str]) -> None:
    analysis = analyse_packets(dtwpt.PacketBank(2), [(0.0, 1.0)], crops=read_crops(photos))
    image = _photograph(analysis)
    assert image is not None
    expected = (dtwpt.cmod2(image), dtwpt.rmax2(image))
    for tiles, outputs in zip(_maps(analysis, image), expected, strict=True):
        maps = outputs.reshape(32, *tiles.shape[1:])
        white = np.quantile(maps, 0.995, axis=(1, 2), keepdims=True)
        shades = 255 * np.sqrt(np.clip(maps / white, 0, 1))
        assert np.abs(tiles - shades).max() <= 0.5 + 1e-9
    # Of a layer: at a place inside, against sums written out.
    values = np.random.default_rng(0).normal(size=(2, 5, 5))
    several = analyse_layer(values, [(0.0, 1.0)], stride=2, crops=read_crops(photos))
    kernel = next(_complex_kernels(several))
    modulus, pooled = _outputs(image, kernel, several)
    half = kernel.shape[0] // 2
    sums = {
        (y, x): np.sum(image[y - half : y + half, x - half : x + half] * kernel.conj())
        for y in (38, 40, 42)
        for x in (42, 44, 46)
    }
    assert pooled[10, 11] == pytest.approx(max(value.real for value in sums.values()))
    assert modulus[10, 11] == pytest.approx(abs(sums[40, 44]))


def test_pictures_have_the_size_that_is_asked_for() -> None:
    analysis = analyse_packets(dtwpt.PacketBank(2), [(0.0, 1.0)])
    for size, shape in (((4.0, 2.0), (400, 200)), ((4.8,), (480, 195))):
        picture = draw(analysis, Style(dpi=100, size=size, title=False))[0]
        with Image.open(io.BytesIO(picture.png)) as drawn:
            assert drawn.size == shape


PAGE = b'<meta name="generator" content="dtwpt 0.0">'


def test_a_report_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report"
    write_report(report, {"index.html": PAGE, "gain.png": b"old"})
    write_report(report, {"index.html": PAGE, "filters.csv": b"new"})
    assert sorted(os.listdir(report)) == ["filters.csv", "index.html"]  # nothing old in it

    rename = os.rename
    calls = []

    def fail_at_last(source: str, target: str) -> None:
        calls.append(source)
        if len(calls) == 2:  # the old one is out of the way, the new one not yet in its place
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("dtwpt.report.folder.os.rename", fail_at_last)
        with pytest.raises(KeyboardInterrupt):
            write_report(report, {"index.html": PAGE, "filters.csv": b"newer"})
    assert (report / "filters.csv").read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_report(report, {"index.html": PAGE, "filters.csv": 3})  # type: ignore[dict-item]
    assert (report / "filters.csv").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["report"]


def test_a_report_outlives_kills_and_power_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report"
    write_report(report, {"index.html": PAGE, "gain.png": b"old"})
    # Killed between two renames: the old one is found again, and what was half written removed.
    report.rename(tmp_path / ".report.0123456789abcdef.old")
    rubbish = [tmp_path / f".dtwpt-{digit * 16}.tmp" for digit in "01"]
    rubbish[0].mkdir()
    (rubbish[0] / "index.html").write_bytes(PAGE)
    rubbish[1].write_bytes(b"half")
    mine = [tmp_path / ".report.mine.old", tmp_path / ".dtwpt-mine.tmp"]
    for folder in mine:
        folder.mkdir()
    check_folder(report)
    assert (report / "gain.png").read_bytes() == b"old"
    synced: list[int] = []
    real = os.fsync

    def fsync(number: int) -> None:
        synced.append(os.fstat(number).st_ino)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    write_report(report, {"index.html": PAGE})
    assert synced[-2:] == [report.stat().st_ino, tmp_path.stat().st_ino]
    assert sorted(tmp_path.iterdir()) == sorted([report, *mine])


def test_what_is_not_a_report_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"index.html": PAGE}
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<html>mine</html>")
    with pytest.raises(FileExistsError, match="not a report"):
        write_report(site, files)
    report = tmp_path / "report"
    report.mkdir()  # an empty folder may be filled
    write_report(report, files)
    (report / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"'notes.txt'.*would be lost"):
        write_report(report, files)
    assert (report / "notes.txt").read_text() == "mine"
    with pytest.raises(NotADirectoryError):
        write_report(report / "notes.txt", files)
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "nowhere" / "report", files)
    monkeypatch.chdir(report)
    with pytest.raises(OSError, match="the folder you are in"):
        write_report(".", files)
    assert sorted(os.listdir(tmp_path)) == ["report", "site"]


# Kernels ----------------------------------------------------------------------------------------


class Bomb:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_files_of_kernels_run_no_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    mark = tmp_path / "was run"
    bomb = {"conv1.weight": torch.ones(2, 3, 7, 7), "extra": Bomb(mark)}
    torch.save(bomb, tmp_path / "new.pt")
    torch.save(bomb, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Bomb(mark)))
    np.save(tmp_path / "array.npy", np.array([Bomb(mark)], object), allow_pickle=True)
    for path in sorted(tmp_path.glob("*.*")):
        with pytest.raises(KernelError) as caught:
            load_kernels(path)
        assert re.fullmatch(r".+: (damaged, or not tensors|not a plain \.npy).+", str(caught.value))
    assert not mark.exists()
    torch.load(tmp_path / "new.pt", weights_only=False)
    assert mark.exists()  # it would have been


def test_which_tensor_of_a_state_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    conv1, conv2 = torch.randn(4, 3, 7, 7), torch.randn(8, 4, 3, 3)
    torch.save({"conv1.weight": conv1, "bn.weight": torch.ones(4)}, tmp_path / "one.pt")
    kernels, key = load_kernels(tmp_path / "one.pt")
    np.testing.assert_array_equal(kernels, conv1.numpy())
    assert key == "conv1.weight"
    nested = {"epoch": 3, "model": {"conv1.weight": conv1.half(), "conv2.weight": conv2}}
    torch.save(nested, tmp_path / "two.pth")
    listed = r"choose with --key: model.conv1.weight 4x3x7x7, model.conv2.weight 8x4x3x3$"
    with pytest.raises(KernelError, match=listed):
        load_kernels(tmp_path / "two.pth")
    kernels, _ = load_kernels(tmp_path / "two.pth", "model.conv1.weight")
    np.testing.assert_array_equal(kernels, conv1.half().double().numpy())
    with pytest.raises(KernelError, match=r"did you mean 'model.conv1.weight'"):
        load_kernels(tmp_path / "two.pth", "conv1.weight")
    torch.save(torch.nn.Parameter(conv1), tmp_path / "bare.pt")
    np.testing.assert_array_equal(load_kernels(tmp_path / "bare.pt")[0], conv1.numpy())


def test_tensors_of_strangers_are_never_converted(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    # What torch would write to memory that is not its own is never turned into a dense tensor.
    outside = torch.sparse_coo_tensor(
        torch.tensor([[10**9], [0], [0], [0]]),
        torch.ones(1),
        (8, 3, 3, 3),
        check_invariants=False,
    )
    dense = torch.ones(8, 3, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prototypes
        tensors = {
            "outside": outside,
            "coo": dense.to_sparse(),
            "csr": dense[0, 0].to_sparse_csr(),
            "csc": dense[0, 0].to_sparse_csc(),
            "bsr": torch.ones(4, 4).to_sparse_bsr((2, 2)),
            "bsc": torch.ones(4, 4).to_sparse_bsc((2, 2)),
            "quantised": torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
            "channels": torch.quantize_per_channel(
                dense, torch.ones(8), torch.zeros(8), 0, torch.qint8
            ),
            "nested": torch.nested.nested_tensor([torch.ones(3), torch.ones(5)]),
            "jagged": torch.nested.nested_tensor(
                [torch.ones(3, 2), torch.ones(5, 2)], layout=torch.jagged
            ),
            "meta": torch.ones(8, 3, 3, 3, device="meta"),
            "endless": torch.ones(1, 1, 1, 1).expand(1 << 20, 3, 1 << 10, 1 << 10),
        }
        code = (
            "import sys, torch\nfrom dtwpt.report import load_kernels\nfor path in sys.argv[1:]:\n"
        )
        code += "    try: load_kernels(path)\n    except ValueError as error: print(error)\n"
        files = []
        for name, tensor in tensors.items():
            for how, content in (("bare", tensor), ("beside", {"conv1": dense, "it": tensor})):
                files.append(tmp_path / f"{name} {how}.pt")
                torch.save(content, files[-1])
    del tensors, outside
    # In a process of its own, whose memory is none of ours.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, files)],
        env={**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    for path, line in zip(files, said, strict=True):
        assert re.fullmatch(rf"{re.escape(str(path))}: (the tensor|tensor 'it'|damaged,) .+", line)


def test_dictionaries_that_hold_themselves(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    around: dict[Any, Any] = {"conv1": torch.ones(2, 3, 3, 3), "more": {}, (1,): 3}
    around["more"]["again"] = around
    torch.save(around, tmp_path / "around.pt")
    assert load_kernels(tmp_path / "around.pt")[1] == "conv1"
    deep: dict[str, Any] = {"conv1": torch.ones(2, 3, 3, 3)}
    for _ in range(200):  # 2**200 ways to it
        deep = {"in": deep, "also": deep}
    torch.save({"first": torch.ones(2, 3, 5, 5), "deep": deep}, tmp_path / "deep.pt")
    with pytest.raises(KernelError, match=r"choose with --key: first 2x3x5x5, deep(\.in){200}"):
        load_kernels(tmp_path / "deep.pt")


def test_kernels_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values, message in (
        ("flat", np.ones((3, 3)), "must have shape"),
        ("deep", np.ones((8, 64, 3, 3)), "64 input channels are not a first layer's"),
        ("nan", np.full((2, 3, 3), np.nan), "finite"),
        ("complex", np.ones((2, 3, 3), complex), "real numbers"),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(KernelError, match=message):
            load_kernels(tmp_path / f"{name}.npy")
    for file, message in (
        ("missing.npy", "No such file"),
        ("a.bin", r"read from .npy .pt .pth .safetensors"),
    ):
        with pytest.raises(KernelError, match=message):
            load_kernels(tmp_path / file)
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 40)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        load_kernels(tmp_path / "a.safetensors")
    (tmp_path / "a.pt").write_bytes(b"\xff" * 40)
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ImportError, match=r"takes torch 2.6 or later"):
        load_kernels(tmp_path / "a.pt")


def test_safetensors(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    kernels = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    library.save_file(
        {"conv.weight": kernels, "conv.bias": kernels[:, 0, 0, 0].copy()},
        tmp_path / "a.safetensors",
    )
    loaded, key = load_kernels(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(loaded, kernels)
    assert key == "conv.weight"
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(KernelError, match="not a safetensors file"):
        load_kernels(tmp_path / "bad.safetensors")
