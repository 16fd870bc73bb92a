"""The command as a shell sees it: outputs, exit statuses, one line for each failure."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pytest
from PIL import Image

import dtwpt
from dtwpt.cli import main
from dtwpt.extract import Settings, extract, load
from dtwpt.invariance import predict
from tests.gated import has_features, let_go, running, wait_until

RNG = np.random.default_rng(0)
COMMAND = [sys.executable, "-m", "dtwpt.cli"]
GATED = [sys.executable, str(Path(__file__).with_name("gated.py"))]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])}


class Said(NamedTuple):
    """What a command has come to."""

    returncode: int
    stdout: str
    stderr: str


class Runs(Protocol):
    def __call__(self, *args: str | Path, cwd: Path | None = None) -> Said: ...


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Run the command in this process, to be quick."""
    monkeypatch.setattr("dtwpt.cli._on_stop_signals", lambda handler: None)

    def call(*args: str | Path, cwd: Path | None = None) -> Said:
        with monkeypatch.context() as patch:
            patch.chdir(cwd or Path.cwd())
            with pytest.raises(SystemExit) as caught:
                main([str(arg) for arg in args])
        assert isinstance(caught.value.code, int)
        return Said(caught.value.code, *capfd.readouterr())

    return call


def run_apart(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


class Fails(Protocol):
    def __call__(self, *args: str | Path, status: int = 1) -> str: ...


@pytest.fixture
def fails(run: Runs) -> Fails:
    """Return the one line that a failing command says."""

    def call(*args: str | Path, status: int = 1) -> str:
        done = run(*args)
        assert (done.returncode, done.stdout) == (status, "")
        assert re.fullmatch(r"dtwpt.+\n", done.stderr)
        return done.stderr

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        pixels = RNG.integers(0, 256, (40, 50 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photo {number}.png")
    return folder


def test_extract(photos: Path, tmp_path: Path, run: Runs) -> None:
    options = ["--operator", "rmax", "--depth", "1", "--wavelet", "qshift_a", "--mode", "reflect"]
    options += ["--color", "channels", "--resize", "36", "--crop", "32X34", "--pool", "2x3"]
    apart = run_apart("extract", "photos", "-o", "a.npz", *options, cwd=tmp_path)
    assert (apart.returncode, apart.stderr) == (0, ""), apart.stderr
    assert re.fullmatch(
        r"a\.npz: 5 images x 144 features, [\d.]+ s \([\d.]+ images/s\)\n", apart.stdout
    )
    table = load(tmp_path / "a.npz")
    assert table.files == [f"photos/photo {number}.png" for number in range(5)]
    assert table.settings == Settings(
        *("rmax", 1, "qshift_a", "reflect", "channels", 36, (32, 34), (2, 3))
    )
    expected = extract(photos, table.settings)
    np.testing.assert_array_equal(table.features, expected.features)
    assert table.feature_names == expected.feature_names

    # Repeated from its output alone, also in several processes: the same file to the last byte.
    done = run(
        *("extract", "photos", "-o", "b.npz", "--settings-from", "a.npz", "--workers", "0"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "a.npz").read_bytes()
    # Options given beside it win, also where they are the default.
    done = run(
        *("extract", "photos/*[13]*", "-o", "b.npz", "--settings-from", "b.npz"),
        *("--depth", "2", "--pool", "none"),
        cwd=tmp_path,
    )
    assert done.returncode == 0
    settings = json.loads(str(np.load(tmp_path / "b.npz")["settings"]))
    assert (settings["depth"], settings["pool"], settings["operator"]) == (2, "none", "rmax")
    options = ["--depth", "1,2", "--pool", "max,mean,2x3"]
    done = run("extract", "photos", "-o", "c.csv", *options, cwd=tmp_path)
    assert done.returncode == 0
    several = load(tmp_path / "c.csv")
    assert several.settings == Settings(depth=(1, 2), pool=("mean", "max", (2, 3)))
    assert several.features.shape == (5, (8 + 32) * 2 * 6)
    assert load(tmp_path / "b.npz").files == ["photos/photo 1.png", "photos/photo 3.png"]


def test_skip(photos: Path, tmp_path: Path, run: Runs, fails: Fails) -> None:
    (photos / "new\nline.jpg").touch()
    (photos / "text.png").write_text("no picture")
    output = tmp_path / "features.npz"
    line = fails("extract", photos, "-o", output)
    assert r"new\nline.jpg: the file is empty" in line
    assert not output.exists()
    done = run("extract", photos, "-o", output, "--on-error", "skip")
    assert done.returncode == 3
    assert "5 images x 32 features, 2 skipped" in done.stdout
    assert len(done.stderr.splitlines()) == 2
    assert re.search(r"skipped .*new\\nline\.jpg: the file is empty", done.stderr)
    assert [os.path.basename(file) for file, _ in load(output).skipped] == [
        *("new\nline.jpg", "text.png")
    ]
    before = output.read_bytes()
    fails("extract", photos / "text.png", "-o", output, "--on-error", "skip")
    assert output.read_bytes() == before


def test_progress_without_a_terminal(
    photos: Path, tmp_path: Path, run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtwpt.cli.terminal._Lines._PLAIN", 0.0)
    command = ("extract", photos, "-o", tmp_path / "a.csv")
    done = run(*command, "--dry-run")
    assert re.search(
        r"5 images to process, about .* s with 1 core, 32 features each, 0\.0 MB .*"
        r"nothing was written",
        done.stdout,
    )
    assert (done.returncode, done.stderr, os.listdir(tmp_path)) == (0, "", ["photos"])
    done = run(*command, "--labels", "folder")
    assert re.fullmatch(r"5 of 5 images, [\d.]+ a second.*", done.stderr.splitlines()[-1])
    table = load(tmp_path / "a.csv")
    assert (table.labels, len(table.files)) == (["photos"] * 5, 5)
    done = run(*command, "--progress", "json", "--workers", "2", "--timeout", "100")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0] == {"done": 0, "total": 5, "seconds": 0, "left": None}
    assert lines[-1]["done"] == 5
    assert run(*command, "--progress", "none").stderr == ""
    if importlib.util.find_spec("zarr"):
        command = ("extract", photos, "-o", tmp_path / "a.zarr")
        assert run(*command).returncode == 0
        (photos / "more.png").write_text("no image")
        said = run(*command, "--dry-run").stdout
        assert "1 image to process, 5 already done, 1 of 1 tried cannot be used" in said


@pytest.mark.skipif(os.name == "nt", reason="closes streams as shells do")
@pytest.mark.parametrize("output", ["ж.npz", "ж.zarr"])
def test_streams_that_are_closed(photos: Path, tmp_path: Path, output: str) -> None:
    # What is opened next would get their numbers, and be written to.
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&- 2>&-', *COMMAND, "extract", photos, "-o", output],
        cwd=tmp_path,
        # Nor does standard output know the letter.
        env={**ENVIRONMENT, "PYTHONIOENCODING": "latin-1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(rf"\u0436{output[1:]}: 5 images x 32 features, ")
    assert len(load(tmp_path / output).features[:]) == 5


def test_c_libraries_keep_quiet(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tif"
    Image.fromarray(RNG.integers(0, 256, (40, 40), dtype=np.uint8)).save(
        path, compression="tiff_lzw"
    )
    content = bytearray(path.read_bytes())
    content[20:120] = b"\xff" * 100  # about which libtiff writes to stderr
    path.write_bytes(content)
    for workers in ("1", "2"):
        done = run_apart(
            "extract", path, path.parent, "-o", tmp_path / "a.npz", "--workers", workers
        )
        assert done.returncode == 1
        assert re.fullmatch(r"dtwpt: .*damaged\.tif: cannot be decoded: .*\n", done.stderr)


@pytest.mark.usefixtures("photos")
def test_failures(tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "old.npz").write_text("not one of ours")
    cases: list[tuple[int, str, list[str]]] = [
        (1, "no such file or folder: 'nowhere'", ["nowhere", "-o", "a.npz"]),
        (1, "no images in folder 'empty'", ["empty", "-o", "a.npz"]),
        (1, "no image matches '*.gif'", ["*.gif", "-o", "a.npz"]),
        (1, "folder of the output does not exist", ["photos", "-o", "nowhere/a.npz"]),
        (1, "is a folder", ["photos", "-o", "folder.npz"]),
        (1, "*.npz", ["photos", "-o", "a.txt"]),
        (1, "not a file of features", ["photos", "-o", "a.npz", "--settings-from", "old.npz"]),
        (1, "more than the 10 rows", ["photos", "-o", "a.npz", "--pool", "11"]),
        (1, "use resize or crop", ["photos", "-o", "a.npz", "--pool", "none", "--workers", "2"]),
        (2, "Missing option '-o'", ["photos"]),
        (2, "PATH", ["-o", "a.npz"]),
        (2, "--depth", ["photos", "-o", "a.npz", "--depth", "0"]),
        (2, "qshift_b", ["photos", "-o", "a.npz", "--wavelet", "haar"]),
        (2, "'4y5'", ["photos", "-o", "a.npz", "--crop", "4y5"]),
        (2, "'1x2x3'", ["photos", "-o", "a.npz", "--resize", "1x2x3"]),
        (2, "at least 1", ["photos", "-o", "a.npz", "--resize", "0"]),
        (2, "'median'", ["photos", "-o", "a.npz", "--pool", "mean,median"]),
        (2, "more than one grid", ["photos", "-o", "a.npz", "--pool", "2,3"]),
        (2, "a depth twice", ["photos", "-o", "a.npz", "--depth", "2,3,2"]),
        (2, "--workers 2", ["photos", "-o", "a.npz", "--timeout", "9"]),
        (2, "for .zarr outputs", ["photos", "-o", "a.npz", "--prune"]),
    ]
    before = sorted(tmp_path.iterdir())
    for status, message, args in cases:
        assert message in fails("extract", *args, status=status)
    assert sorted(tmp_path.iterdir()) == before


def test_output_that_cannot_be_written_is_noticed_first(tmp_path: Path, fails: Fails) -> None:
    # Neither the images nor anything else is looked at.
    assert "/nowhere" in fails("extract", "missing.png", "-o", "/nowhere/a.npz")
    if Path("/dev/null").exists():
        (tmp_path / "a.npz").symlink_to("/dev/null")
        assert "not a regular file" in fails("extract", "missing.png", "-o", tmp_path / "a.npz")
    if os.geteuid() != 0:  # whom nothing stops
        tmp_path.chmod(0o500)
        assert "Permission" in fails("extract", "missing.png", "-o", tmp_path / "b.npz")


def test_help_and_info(run: Runs, fails: Fails) -> None:
    done = run_apart("--help")
    assert done.returncode == 0
    for name in ("bench", "extract", "filters", "info", "invariance"):
        assert name in done.stdout
        assert "Example" in run(name, "--help").stdout
    assert run("-h").stdout == run().stdout == done.stdout
    assert run("--version").stdout == f"dtwpt {dtwpt.__version__}\n"
    info = run("info").stdout
    for word in ("Python", "numpy", "torch", "pillow", *dtwpt.wavelets()):
        assert word in info
    assert "No such command" in fails("extrakt", status=2)


def test_nothing_heavy_is_imported_early() -> None:
    # What makes help slow is what is imported for it.
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "import dtwpt.cli; dtwpt.cli.main(sys.argv[1:])"
    )
    heavy = {
        *("torch", "matplotlib", "sklearn", "PIL", "tifffile", "tqdm", "zarr", "pyarrow", "ray"),
        *("scipy.signal", "scipy.stats", "dtwpt.extract", "dtwpt.report", "multiprocessing"),
    }
    for args in ([], ["--help"], ["extract", "--help"], ["invariance", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = done.stderr.split()
        assert "dtwpt.cli.extract" in loaded
        assert heavy.isdisjoint(loaded)


def test_missing_extras() -> None:
    for package, args in (
        ("click", ["--help"]),
        ("PIL", ["extract", "a.png", "-o", "a.npz"]),
        ("matplotlib", ["filters", "-o", "a.png"]),
        ("matplotlib", ["invariance", "-o", "a"]),
    ):
        code = (
            "import sys, importlib.util as util; find = util.find_spec\n"
            f"util.find_spec = lambda name: None if name == {package!r} else find(name)\n"
            f"sys.modules[{package!r}] = None\n"
            f"import dtwpt.cli; dtwpt.cli.main({args!r})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert re.fullmatch(r'dtwpt: .*pip install "dtwpt\[(cli|plot)\]"\n', done.stderr)


def test_filters(tmp_path: Path, run: Runs, fails: Fails) -> None:
    pytest.importorskip("dtwpt.plot")
    for name, beginning in (("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")):
        done = run("filters", "-o", name, "--depth", "1", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / name).read_bytes().startswith(beginning)
    run("filters", "-o", "b.png", "--size", "3.4x1.7", "--dpi", "100", "--no-title", cwd=tmp_path)
    run("filters", "-o", "c.png", "--size", "4.8", "--dpi", "50", cwd=tmp_path)
    for name, size in (("b.png", (340, 170)), ("c.png", (240, 100))):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size
    assert "7x3" in fails("filters", "-o", tmp_path / "a.png", "--size", "wide", status=2)
    assert "from 1 to" in fails("filters", "-o", tmp_path / "a.png", "--size", "0.2", status=2)
    assert ".png" in fails("filters", "-o", tmp_path / "a.xyz")
    assert "does not exist" in fails("filters", "-o", tmp_path / "nowhere/a.png")


def test_invariance(photos: Path, tmp_path: Path, run: Runs) -> None:
    pytest.importorskip("dtwpt.plot")
    args = ["photos", "-o", "report", "--shift", "0,1", "--shift", "-1,0", "--crop", "40x44"]
    kernels = RNG.normal(size=(3, 3, 3, 3))
    kernels[1] = 0
    np.save(tmp_path / "conv1.npy", kernels)
    done = run("invariance", *args, "--kernels", "conv1.npy", "--stride", "1", cwd=tmp_path)
    assert done.stderr == ("note: 1 kernel left out, without an answer to grey images: 1\n"), (
        done.stderr
    )
    assert (done.returncode, done.stdout) == (
        *(0, "report/index.html: 2 kernels x 2 shifts on 5 images\n"),
    )
    page = (tmp_path / "report" / "index.html").read_text()
    assert "the middle of 5 images, each 40 x 44 pixels" in page
    command = "dtwpt invariance photos --crop 40x44 --kernels conv1.npy -o report --shift 0,1 "
    assert f"{command}--shift -1,0 --stride 1" in page
    # Replaced by another kind of report, of which nothing stays but the new one.
    done = run("invariance", "-o", "report", "--spectrum", "white", "--pool", "5", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "report/index.html: 32 packets x 1 shift, theory alone\n"
    assert sorted(os.listdir(tmp_path / "report")) == [
        *("filters.csv", "frequency.png", "gamma.png", "index.html", "orientation.png"),
        *("plane.png", "shift.png"),
    ]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "white noise" in page
    assert "5 x 5 outputs (q = 2)" in page
    with open(tmp_path / "report" / "filters.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = predict(dtwpt.PacketBank(2), q=2, spectrum="white")
    assert [float(row["predicted_rmax_shift"]) for row in rows] == expected["rmax_shift"].tolist()
    assert sorted(os.listdir(tmp_path)) == ["conv1.npy", "photos", "report"]


def test_invariance_skips_what_cannot_be_used(tmp_path: Path, run: Runs, fails: Fails) -> None:
    pytest.importorskip("dtwpt.plot")
    photos = tmp_path / "photos"
    photos.mkdir()
    for height, width in ((64, 300), (300, 70)):
        pixels = RNG.integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{height}.png")
    whole = run("invariance", "photos", "-o", "whole", cwd=tmp_path)
    assert (whole.returncode, whole.stderr) == (0, "")
    (photos / "bad\n.png").write_text("no picture")
    Image.new("L", (80, 80), 99).save(photos / "blank.png")
    Image.new("L", (30, 30)).save(photos / "small.png")
    line = fails("invariance", photos, "-o", tmp_path / "report")
    assert r"bad\n.png: not an image" in line
    done = run("invariance", "photos", "-o", "report", "--on-error", "skip", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout == "report/index.html: 32 packets x 1 shift on 2 images, 3 skipped\n"
    said = done.stderr.splitlines()
    assert said[:2] == [
        r"skipped photos/bad\n.png: not an image of a format that is read, such as PNG, JPEG, "
        "TIFF, WebP, BMP and .npy",
        "skipped photos/blank.png: blank where it is cropped: a constant has nothing to shift",
    ]
    assert re.match(r"skipped photos/small\.png: 30x30 pixels, these filters.* need", said[2])
    assert len(said) == 3
    # As if there were only the others: the smallest of them says how large all crops are.
    tables = [(tmp_path / name / "filters.csv").read_bytes() for name in ("whole", "report")]
    assert tables[0] == tables[1]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "the middle of 2 images, each 64 x 64 pixels" in page
    assert "photos/blank.png: blank where it is cropped" in page
    assert "dtwpt invariance photos --on-error skip -o report" in page
    # With nothing left there is no report, and the first reason is given.
    bad: list[str | Path] = [
        photos / "bad\n.png",
        photos / "blank.png",
        "-o",
        tmp_path / "r",
        "--on-error",
        "skip",
    ]
    assert "not an image" in fails("invariance", *bad)
    assert not (tmp_path / "r").exists()


def test_invariance_failures(
    photos: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dtwpt.plot")
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2, 3, 3, 3), "b": torch.ones(2, 3, 3, 3)}, "two.pt")
    Path("evil.pt").write_bytes(b"cos\nmkdir\n(S'was_run'\ntR.")
    cases: list[tuple[int, str, list[str]]] = [
        (1, "is a folder that is not a report", ["-o", "photos"]),
        (1, "exists and is not a folder", ["-o", "two.pt"]),
        (1, "folder of the output does not exist", ["-o", "nowhere/report"]),
        (1, "no such file or folder: 'missing'", ["missing", "-o", "r"]),
        (1, "photo 0.png: 40x50 pixels", ["photos", "-o", "r"]),
        (1, "crops of 30x30 are too small", ["photos", "-o", "r", "--crop", "30"]),
        (1, "choose with --key: a 2x3x3x3, b 2x3x3x3", ["-o", "r", "--kernels", "two.pt"]),
        (1, "evil.pt: damaged, or not tensors alone", ["-o", "r", "--kernels", "evil.pt"]),
        (2, "--spectrum is for a report without", ["photos", "-o", "r", "--spectrum", "white"]),
        (2, "--crop is for images", ["-o", "r", "--crop", "99"]),
        (2, "--on-error is for images", ["-o", "r", "--on-error", "skip"]),
        (2, "--depth is for packets", ["-o", "r", "--kernels", "two.pt", "--depth", "2"]),
        (2, "--key is for --kernels", ["-o", "r", "--key", "a"]),
        (2, "'1' is not two numbers", ["-o", "r", "--shift", "1"]),
        (2, "64 pixels at most", ["-o", "r", "--shift", "0,nan"]),
        (2, "must not be zero", ["-o", "r", "--shift", "0,-0"]),
        (2, "is not 3, 5, 7 or 9", ["-o", "r", "--pool", "4"]),
        (2, "--depth", ["-o", "r", "--depth", "1"]),
    ]
    before = sorted(tmp_path.rglob("*"))
    for status, message, args in cases:
        assert message in fails("invariance", *args, status=status)
    assert sorted(tmp_path.rglob("*")) == before


# Stopped half way -------------------------------------------------------------------------------


LAST = "9999.gated.npy"


@contextlib.contextmanager
def half_way(
    tmp_path: Path, workers: int
) -> Iterator[tuple[subprocess.Popen[bytes], Path, list[bytes]]]:
    """Run an extraction on a terminal, up to where images are done; the last one is gated."""
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    folder = tmp_path / "long"
    folder.mkdir()
    np.save(tmp_path / "image.npy", RNG.random((100, 100), dtype=np.float32))
    for name in (*(f"{number:04}.npy" for number in range(20)), "8888.slow.npy", LAST):
        (folder / name).symlink_to(tmp_path / "image.npy")
    output = tmp_path / "out" / "features.npz"
    output.parent.mkdir()
    output.write_bytes(b"the good old one")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # else no bar
    process = subprocess.Popen(
        [*GATED, "extract", folder, "-o", output, "--workers", str(workers)],
        env=ENVIRONMENT,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = [b""]

    def listen() -> bool:
        try:
            said[0] += os.read(ours, 4096)
        except OSError:  # the other side is closed
            return False
        return True

    try:
        while not re.search(rb" [1-9]\d*/22", said[0]):
            assert listen(), said[0]
        yield process, output, said
        while listen():
            pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        os.close(ours)


def last_line(said: bytes) -> str:
    assert b"Traceback" not in said
    assert b"Exception" not in said
    # What the bar leaves behind is the line itself, wiped.
    return said.decode().replace("\r\n", "\n").rstrip("\n").split("\r")[-1].removeprefix("\x1b[A")


def processes_of(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def all_gone(group: int) -> bool:
    """Whether no process stays behind; multiprocessing has a helper that leaves a little later."""
    deadline = time.monotonic() + 60
    while processes_of(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes_of(group) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_stopped_by_a_signal(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    with half_way(tmp_path, workers) as (process, output, said):
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does, to every process
        else:
            process.send_signal(number)
        # At once: it would wait forever for the image that it is about to read.
        assert process.wait(300) == 128 + number
        assert all_gone(process.pid)
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert last_line(said[0]) == f"dtwpt: stopped by {name}, nothing written"
    assert output.read_bytes() == b"the good old one"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_killed_worker_and_a_killed_command(tmp_path: Path) -> None:
    def workers(group: int) -> list[int]:
        return [
            number
            for number in processes_of(group)
            if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()
        ]

    with half_way(tmp_path, 2) as (process, output, said):
        os.kill(workers(process.pid)[0], signal.SIGKILL)  # as the kernel does, out of memory
        let_go(tmp_path / "long" / LAST)
        assert process.wait(600) == 0
        assert all_gone(process.pid)
    assert "22 images x 32 features, " in last_line(said[0])  # another one took over
    assert len(load(output).files) == 22
    assert list(output.parent.iterdir()) == [output]

    (tmp_path / "again").mkdir()
    with half_way(tmp_path / "again", 2) as (process, output, _):
        assert workers(process.pid)
        process.kill()
        process.wait(60)
        assert all_gone(process.pid)  # they do not stay behind
    assert output.read_bytes() == b"the good old one"


# Stores -----------------------------------------------------------------------------------------


def many(tmp_path: Path) -> Path:
    folder = tmp_path / "long"
    folder.mkdir()
    np.save(tmp_path / "image.npy", RNG.random((100, 100), dtype=np.float32))
    for name in (*(f"{number:04}.npy" for number in range(20)), "8888.slow.npy", LAST):
        (folder / name).symlink_to(tmp_path / "image.npy")
    return folder


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGHUP, 2)]
)
def test_a_store_is_gone_on_with(
    tmp_path: Path, run: Runs, number: signal.Signals, workers: int
) -> None:
    pytest.importorskip("zarr")
    many(tmp_path)
    command = ["extract", "long", "-o", "a.zarr", "--workers", str(workers), "--progress", "none"]
    with running(
        [*GATED, *command, "--report", "report.json"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: has_features(tmp_path / "a.zarr"), process)
        busy = run(*command, cwd=tmp_path)
        assert busy.returncode == 1
        assert busy.stderr == "dtwpt: another process is writing to 'a.zarr'\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=300)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert process.returncode == 128 + number
    assert said == (
        f"dtwpt: stopped by {name}, progress saved in a.zarr; rerun the command to resume\n"
    )
    store = load(tmp_path / "a.zarr")
    done = len(store.files)
    assert 0 < done < 22
    assert len(store.waiting) == 22 - done
    summary = json.loads((tmp_path / "report.json").read_text())["summary"]
    assert (summary["status"], summary["images"]) == ("stopped", 22)
    again = run(*command, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert re.match(rf"a\.zarr: 22 images x 32 features, {done} files? earlier, ", again.stdout)
    assert "nothing new" in run(*command, cwd=tmp_path).stdout
    features = np.asarray(load(tmp_path / "a.zarr").features)
    assert (features == features[0]).all()


def test_failures_of_stores(
    photos: Path, tmp_path: Path, run: Runs, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    assert run("extract", photos, "-o", "a.zarr", cwd=tmp_path).returncode == 0
    cases: list[tuple[int, str, list[str]]] = [
        (1, "with depth 2, not 3", ["photos", "-o", "a.zarr", "--depth", "3"]),
        (1, "no such file or folder: 'nowhere'", ["nowhere", "-o", "b.zarr"]),
        (1, "is not a feature store", ["photos", "-o", "photos.zarr"]),
        (1, "folder of the output does not exist", ["photos", "-o", "nowhere/a.zarr"]),
        (1, "folder of the output does not exist", ["photos", "-o", "a.zarr", "--report", "x/y"]),
        (1, "'nonsense' cannot be used", ["photos", "-o", "b.zarr", "--device", "nonsense"]),
        (2, "--restart is for .zarr", ["photos", "-o", "a.npz", "--restart"]),
        (2, "--check is for .zarr", ["photos", "-o", "a.npz", "--check", "hash"]),
        (2, "--retry-skipped is for .zarr", ["photos", "-o", "a.npz", "--retry-skipped"]),
        (2, "--engine is for .zarr", ["photos", "-o", "a.npz", "--engine", "ray"]),
        (2, "--address is for --engine ray", ["photos", "-o", "b.zarr", "--address", "auto"]),
    ]
    (tmp_path / "photos.zarr").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for status, message, args in cases:
        assert message in fails("extract", *args, status=status)
    assert sorted(tmp_path.rglob("*")) == before
    # The first bad one stops the run if that is asked for, and nothing is said of it twice.
    (photos / "photo 2.5.png").write_text("not a picture")
    line = fails("extract", "photos", "-o", "c.zarr", "--on-error", "stop")
    assert "photo 2.5.png: not an image" in line
    assert len(load("c.zarr").files) == 2
