"""The engine on Ray: the same store as on one machine, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dtwpt
from dtwpt.extract import (
    FeatureStore,
    ImageError,
    Settings,
    WorkerError,
    extract_to_store,
    find_images,
    load,
)

pytest.importorskip("zarr", reason="feature stores need zarr, hence Python 3.11")
pytest.importorskip("ray", reason="needs the extra ray")

import ray

from dtwpt.extract.extractor import Stamp
from dtwpt.extract.run import ray as ray_engine
from dtwpt.extract.run.pipeline import Outcome
from tests.gated import has_features, running, wait_until

pytestmark = [
    # Ray leaves the sockets and log files of its processes to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    # Copies of Ray Data's context set its own deprecated options.
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning:ray"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc"),
]

RNG = np.random.default_rng(0)
COMMAND = [sys.executable, "-m", "dtwpt.cli", "extract"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Begin a cluster, as that takes seconds, for as many tests as can share it."""
    with ray_engine._for_us_alone():  # with a token, in the environment of those who join it
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


def joining() -> dict[str, str]:
    """Return the environment of commands that join the cluster: its token, and loopback alone."""
    names = [name for name in os.environ if name.startswith(("RAY_AUTH", "RAY_ENABLE"))]
    return {**ENVIRONMENT, **{name: os.environ[name] for name in names}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of three sizes, one file that is none, and a name that is not text."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        pixels = RNG.integers(0, 256, (32 + number % 3, 36), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "00.bad.png").write_text("not a picture")
    (folder / "07.png").rename(os.fsdecode(os.fsencode(folder) + b"/07 \xff.png"))
    return folder


def on_ray(paths: Any, output: Path, settings: Settings | None = None, **more: Any) -> FeatureStore:
    return extract_to_store(paths, output, settings, engine="ray", **more)


def check_same(store: FeatureStore, expected: FeatureStore) -> None:
    assert store.files == expected.files
    assert store.skipped == expected.skipped
    assert store.waiting == []
    assert store.feature_names == expected.feature_names
    assert np.asarray(store.features).tobytes() == np.asarray(expected.features).tobytes()


def children(of: int, name: str) -> list[int]:
    """Return the processes below one whose command line begins so."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
    found = []
    for number in parents:
        above = number
        while above in parents and above != of:
            above = parents[above]
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{number}/cmdline").read_bytes()
            if above == of and line.startswith(name.encode()):
                found.append(number)
    return found


def test_a_cluster_of_its_own_listens_to_nobody_else(tmp_path: Path) -> None:
    # In a process of its own: one may join only one cluster after another.
    np.save(tmp_path / "a.npy", np.eye(32))
    code = """
import json, os
from dtwpt.extract import extract_to_store
import ray
def listening():
    ours, above = set(), {os.getpid()}
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open(f"/proc/{entry}/stat").read()
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
        except OSError:
            pass
    for _ in parents:
        above |= {pid for pid, parent in parents.items() if parent in above}
    for pid in above:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                ours.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    found = []
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                found.append(fields[1].rsplit(":", 1)[0])
    return found
seen = []
def look(done, total):
    if done == total:
        seen.extend([listening(), os.environ.get("RAY_AUTH_MODE")])
extract_to_store("a.npy", "a.zarr", engine="ray", workers=1, progress=look)
print(json.dumps([*seen, not any("AUTH" in name for name in os.environ)]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={name: ENVIRONMENT[name] for name in ENVIRONMENT if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    addresses, mode, restored = json.loads(done.stdout.splitlines()[-1])
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert addresses
    assert set(addresses) <= loopback
    assert (mode, restored) == ("token", True)


@pytest.mark.usefixtures("cluster")
def test_the_same_store(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    store = on_ray(
        find_images(folder)[::-1],
        tmp_path / "ray.zarr",
        Settings(pool=2),
        check="hash",
        progress=lambda done, total: calls.append((done, total)),
    )
    check_same(store, extract_to_store(folder, tmp_path / "local.zarr", Settings(pool=2)))
    assert calls == [(done, 41) for done in range(42)]
    assert [Path(name).name for name, _ in store.skipped] == ["00.bad.png"]
    # What was written down about the files serves the other engine, and nothing is left to do.
    calls.clear()
    for engine in ("local", "ray"):
        (folder / "03.png").touch()
        extract_to_store(
            folder,
            store.path,
            Settings(pool=2),
            check="hash",
            engine=engine,
            progress=lambda done, total: calls.append((done, total)),
        )
    assert calls == [(41, 41)] * 2
    assert ray.is_initialized()  # the one who has joined it leaves it


@pytest.mark.usefixtures("cluster")
def test_the_first_image_decides_on_the_size_of_whole_maps(folder: Path, tmp_path: Path) -> None:
    settings = Settings(depth=1, pool="none")
    store = on_ray(folder, tmp_path / "ray.zarr", settings, workers=2)
    check_same(store, extract_to_store(folder, tmp_path / "local.zarr", settings))
    assert len(store.files) == 14


class _StopError(Exception):
    pass


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("engines", [("local", "ray"), ("ray", "local")])
def test_one_engine_goes_on_where_the_other_stopped(
    folder: Path, tmp_path: Path, engines: tuple[str, str]
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 15:
            raise _StopError

    output = tmp_path / "a.zarr"
    with pytest.raises(_StopError):
        extract_to_store(folder, output, engine=engines[0], workers=1, progress=stop)
    store = load(output)
    assert isinstance(store, FeatureStore)
    assert len(store.files) + len(store.skipped) == 15
    (folder / "01.png").write_bytes((folder / "02.png").read_bytes())  # changed meanwhile
    starts: list[int] = []
    store = extract_to_store(
        folder, output, engine=engines[1], workers=1, progress=lambda done, _: starts.append(done)
    )
    assert starts[0] in (14, 15)
    check_same(store, extract_to_store(folder, tmp_path / "local.zarr"))


class Gated(ray_engine._Worker):
    """Waits at some files until it is let go on: before that, a job is not done."""

    def _outcomes(self, tasks: Any) -> Any:
        gates = [Path(f"{task.path}.open") for task in tasks if "gated" in task.path]
        while not all(gate.exists() for gate in gates):
            time.sleep(0.01)
        return super()._outcomes(tasks)


@pytest.mark.usefixtures("cluster")
def test_an_actor_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(60):
        name = "gated" if number == 59 else "free"
        np.save(folder / f"{number:02}.{name}.npy", RNG.random((300, 300), dtype=np.float32))
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done in (1, 20):
            while not (actors := set(children(os.getpid(), "ray::MapWorker")) - set(killed)):
                time.sleep(0.1)  # the one that takes the first one's place is not there yet
            killed.append(min(actors))
            os.kill(killed[-1], signal.SIGKILL)
        if done == 20:
            (folder / "59.gated.npy.open").touch()

    monkeypatch.setattr(ray_engine, "_Worker", Gated)
    store = on_ray(folder, tmp_path / "ray.zarr", progress=kill)
    assert len(set(killed)) == 2
    check_same(store, extract_to_store(folder, tmp_path / "local.zarr"))


class Deadly(ray_engine._Worker):
    """Dies at some files, as one does that takes all memory."""

    def _outcomes(self, tasks: Any) -> Any:
        if any("deadly" in task.path for task in tasks):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._outcomes(tasks)


@pytest.mark.usefixtures("cluster")
def test_a_file_that_kills_every_worker(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = folder / "20.deadly.png"
    deadly.write_bytes((folder / "20.png").read_bytes())
    output = tmp_path / "a.zarr"
    monkeypatch.setattr(ray_engine, "_Worker", Deadly)
    with pytest.raises(WorkerError, match=r"workers of Ray died 3 times at .*20\.deadly\.png, "):
        on_ray(folder, output)
    store = load(output)
    assert isinstance(store, FeatureStore)
    assert store.waiting == [str(deadly)]  # and of all others none is lost
    assert (len(store.files), len(store.skipped)) == (40, 1)
    monkeypatch.undo()
    check_same(on_ray(folder, output), extract_to_store(folder, tmp_path / "local.zarr"))


@pytest.mark.usefixtures("cluster")
def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.zarr"
    for more, message in [
        ({"engine": "dask"}, "unknown engine 'dask'; known: local, ray"),
        ({"address": "auto"}, "address is for engine 'ray'"),
        ({"engine": "ray", "device": "cuda:1"}, "use 'cuda'"),
        ({"engine": "ray", "address": "auto"}, "has joined a cluster already"),
    ]:
        with pytest.raises(ValueError, match=message):
            extract_to_store(folder, output, **more)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"00\.bad\.png: not an image"):
        on_ray(folder / "00.bad.png", tmp_path / "b.zarr", on_error="stop", workers=1)


def test_an_address_where_nobody_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("would try for minutes"))
    output = tmp_path / "a.zarr"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for shown in (address, f"ray://{address}"):
            with pytest.raises(WorkerError, match=f"no Ray cluster answers at '{shown}'"):
                on_ray(folder, output, address=shown)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(WorkerError, match="no Ray cluster answers"):
            on_ray(folder, output)
    with pytest.raises(ValueError, match="address must be auto, local or host:port"):
        on_ray(folder, output, address="nowhere")
    assert not output.exists()


def test_a_cluster_that_never_lets_one_join(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: going_on.wait(600))
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("would wait for it"))
    monkeypatch.setattr(ray_engine, "_JOIN_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(WorkerError, match="did not let this process join in"):
            on_ray(folder, tmp_path / "a.zarr", address=address)
    going_on.set()


def test_a_worker_that_does_not_see_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "a.png"
    here.touch()
    missing = ImageError(str(here), "No such file or directory")
    outcome = Outcome(0, str(here), missing, Stamp())
    with pytest.raises(WorkerError, match="same files at the same paths"):
        ray_engine._checked(outcome)
    here.unlink()
    assert ray_engine._checked(outcome) is outcome


# The command ------------------------------------------------------------------------------------


def test_the_command(folder: Path, tmp_path: Path, cluster: str) -> None:
    command = [*COMMAND, "images", "-o", "a.zarr", "--workers", "2", "--report", "report.json"]
    command += ["--progress", "none"]
    done = subprocess.run(
        [*command, "--engine", "ray", "--address", cluster],
        cwd=tmp_path,
        env=joining(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == (
        "skipped images/00.bad.png: not an image of a format that is read, such as PNG, JPEG, "
        "TIFF, WebP, BMP and .npy\n"
    )
    assert done.stdout.startswith("a.zarr: 40 images x 32 features, 1 skipped, ")
    summary = json.loads((tmp_path / "report.json").read_text().splitlines()[-1])["summary"]
    assert (summary["engine"], summary["workers"], summary["finished"]) == ("ray", 2, 41)


# As the command, but that workers wait at the last image until it is let go.
NEVER_DONE = """
import signal
import time
from os.path import exists
from dtwpt.cli import main
from dtwpt.extract.run import ray as ray_engine

signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores

class Worker(ray_engine._Worker):
    def _outcomes(self, tasks):
        while any("gated" in task.path and not exists(task.path + ".open") for task in tasks):
            time.sleep(0.1)
        return super()._outcomes(tasks)

ray_engine._Worker = Worker
main()
"""


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        # A cluster of its own takes long to begin and to end.
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_the_command_is_stopped(tmp_path: Path, number: signal.Signals, cluster: str) -> None:
    ours = number == signal.SIGINT
    (tmp_path / "long").mkdir()
    np.save(tmp_path / "image.npy", RNG.random((100, 100), dtype=np.float32))
    for index in range(200):
        name = f"{index:04}.{'gated' if index == 199 else 'free'}.npy"
        (tmp_path / "long" / name).symlink_to(tmp_path / "image.npy")
    with running(
        [
            sys.executable,
            "-c",
            NEVER_DONE,
            "extract",
            "long",
            "-o",
            "a.zarr",
            "--engine",
            "ray",
            "--workers",
            "2",
            *("--progress", "none"),
            *([] if ours else ["--address", cluster]),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT if ours else joining(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: has_features(tmp_path / "a.zarr"), process)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does, to every process
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=600)
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert said == (
        f"dtwpt: stopped by {name}, progress saved in a.zarr; rerun the command to resume\n"
    )
    assert process.returncode == 128 + number
    store = load(tmp_path / "a.zarr")
    assert 0 < len(store.files) < 200
    assert len(store.files) + len(store.waiting) == 200
    features = np.asarray(store.features)
    assert (features == features[0]).all()


@pytest.mark.parametrize(
    "part",
    [
        "raylet/raylet",
        # A cluster of its own takes long to begin and to end.
        pytest.param("gcs/gcs_server", marks=pytest.mark.slow),
    ],
)
def test_the_command_when_ray_is_gone(tmp_path: Path, part: str) -> None:
    (tmp_path / "long").mkdir()
    np.save(tmp_path / "image.npy", RNG.random((100, 100), dtype=np.float32))
    for index in range(200):
        name = f"{index:04}.{'gated' if index == 199 else 'free'}.npy"
        (tmp_path / "long" / name).symlink_to(tmp_path / "image.npy")
    with running(
        [
            *(sys.executable, "-c", NEVER_DONE, "extract", "long", "-o", "a.zarr"),
            *("--engine", "ray", "--workers", "2", "--report", "report.json"),
            *("--progress", "none"),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: has_features(tmp_path / "a.zarr"), process)
        program = os.path.join(os.path.dirname(ray.__file__), "core", "src", "ray", part)
        (found,) = children(process.pid, program)
        os.kill(found, signal.SIGKILL)
        _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert said.count("\n") == 1
    assert said.startswith("dtwpt: ")
    assert said.endswith("progress saved in a.zarr; rerun the command to resume\n")
    summary = json.loads((tmp_path / "report.json").read_text().splitlines()[-1])["summary"]
    assert (summary["status"], summary["images"]) == ("failed", 200)
    assert 0 < summary["finished"] < 200


MARK = "DTWPT_TEST"


def marked(mark: str) -> list[str]:
    """Return the command lines of processes that have a mark in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


class TwoMachines:
    """A head and another node of a cluster, each with processes and an object store of its own."""

    def __init__(self, stack: contextlib.ExitStack, tmp_path: Path) -> None:
        self._stack, self._tmp_path = stack, tmp_path
        with socket.create_server(("", 0)) as probe:
            self.address = f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
        environment = {**ENVIRONMENT, **token, MARK: str(tmp_path)}
        self._quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL}
        port = f"--port={self.address.rpartition(':')[2]}"
        self.head = self._start("--head", port, "--include-dashboard=false")
        wait_until(lambda: answers(self.address), self.head)
        self.second = self._start(f"--address={self.address}")

    def _start(self, *options: str) -> subprocess.Popen[Any]:
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1"]
        command += ["--object-store-memory=80000000", *options]
        return self._stack.enter_context(running(command, **self._quiet, stderr=subprocess.DEVNULL))

    def extract(self, *options: str) -> subprocess.Popen[Any]:
        """Start the command, and wait until both nodes have done some of its images."""
        (self._tmp_path / "long").mkdir()
        np.save(self._tmp_path / "image.npy", RNG.random((400, 400), dtype=np.float32))
        for index in range(200):
            name = f"{index:04}.{'gated' if index == 199 else 'free'}.npy"
            (self._tmp_path / "long" / name).symlink_to(self._tmp_path / "image.npy")
        folder = self._tmp_path / "long"
        command = [sys.executable, "-c", NEVER_DONE, "extract", str(folder), "-o", "a.zarr"]
        command += ["--engine", "ray", "--address", self.address, "--workers", "2"]
        driver = self._stack.enter_context(
            running(
                [*command, "--progress", "none", *options],
                **self._quiet,
                cwd=self._tmp_path,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        wait_until(
            lambda: (
                all(children(node.pid, ACTORS) for node in (self.head, self.second))
                and has_features(self._tmp_path / "a.zarr")
            ),
            driver,
        )
        return driver

    def let_go(self) -> None:
        (self._tmp_path / "long" / "0199.gated.npy.open").touch()


ACTORS = "ray::MapWorker"
KEPT = "progress saved in a.zarr; rerun the command to resume\n"


# Two more machines to begin, and a part of them to be found dead: a minute.
@pytest.mark.slow
@pytest.mark.parametrize("dies", ["nothing", "worker", "second", "head", "driver", "command"])
def test_a_cluster_of_two_machines(tmp_path: Path, dies: str) -> None:
    # Whole maps, of 1.3 MB an image, are three times what an object store holds.
    settings = Settings(pool="none") if dies in ("nothing", "head") else Settings()
    with contextlib.ExitStack() as stack:
        cluster = TwoMachines(stack, tmp_path)
        driver = cluster.extract("--pool", str(settings.pool))
        if dies == "worker":
            os.kill(children(cluster.second.pid, ACTORS)[0], signal.SIGKILL)
        elif dies == "second":
            os.killpg(cluster.second.pid, signal.SIGKILL)
        elif dies == "head":
            os.killpg(cluster.head.pid, signal.SIGKILL)
        elif dies == "driver":
            (watched,) = set(children(driver.pid, sys.executable)) - {driver.pid}
            os.kill(watched, signal.SIGKILL)
        elif dies == "command":
            os.kill(driver.pid, signal.SIGKILL)
        if dies in ("nothing", "worker", "second"):
            cluster.let_go()
        _, said = driver.communicate(timeout=600)
        if dies in ("head", "driver"):
            assert driver.returncode == 1
            assert said.startswith("dtwpt: ")
            assert said.endswith(KEPT)
            assert said.count("\n") == 1
        elif dies == "command":  # the process that it watches is told to stop
            assert driver.returncode == -signal.SIGKILL
            assert said == f"dtwpt: stopped by SIGTERM, {KEPT}"
        else:
            assert (driver.returncode, said) == (0, "")
        if dies in ("driver", "command"):  # its actors end with it, the cluster does not
            wait_until(
                lambda: (
                    not any(children(node.pid, ACTORS) for node in (cluster.head, cluster.second))
                ),
                cluster.head,
            )
    with running(["sleep", "infinity"]) as beside:
        wait_until(lambda: not marked(str(tmp_path)), beside)
    store = load(tmp_path / "a.zarr", verify=True)
    assert isinstance(store, FeatureStore)
    assert (store.waiting == []) == (dies in ("nothing", "worker", "second"))
    if store.waiting:
        store = extract_to_store(tmp_path / "long", tmp_path / "a.zarr", settings)
    check_same(store, extract_to_store(tmp_path / "long", tmp_path / "b.zarr", settings))


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def test_the_example(tmp_path: Path, cluster: str) -> None:
    pytest.importorskip("skimage")
    example = Path(__file__).parent.parent / "examples" / "ray_extract.py"
    done = subprocess.run(
        [sys.executable, example, "--output", "features", "--address", cluster],
        cwd=tmp_path,
        env=joining(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "camera.png: 32 features, mean " in done.stdout
    assert "missing.png: No such file or directory" in lines
    assert list((tmp_path / "features").glob("*.parquet"))
