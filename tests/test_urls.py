"""Images on servers: each one right, or refused with what the server did."""

from __future__ import annotations

import http.server
import itertools
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import dtwpt
from dtwpt.cli import main
from dtwpt.extract import (
    ImageError,
    Settings,
    extract,
    extract_to_store,
    find_images,
    load,
    read_image,
    save,
)
from dtwpt.extract.images import locations

pytest.importorskip("fsspec", reason="URLs need the extra extract")
pytest.importorskip("aiohttp", reason="the web needs fsspec[http]")

RNG = np.random.default_rng(0)
IMAGES = ("a.png", "b.jpg", "c.tif", "d.npy")
ARCHIVES = ("e.zip", "f.tar", "g.tar.gz", "h.parquet")


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; the first part of a path says how."""

    daemon_threads = True
    folder: Path

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.closing = threading.Event()
        self.versions = itertools.count()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have enough."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        _, way, name = self.path.partition("?")[0].split("/")
        if way.isdecimal():
            self.send_error(int(way))
        elif way == "loop":
            self.start(302, Location=self.path, Content_Length="0")
        elif way == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif way == "deaf":
            self.server.closing.wait(600)
            self.close_connection = True
        elif not (self.server.folder / name).exists():
            self.send_error(404)
        else:
            self.send(way, (self.server.folder / name).read_bytes())

    def start(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, way: str, content: bytes) -> None:
        sent = content[: len(content) // 2] if way in ("cut", "silent", "cut-stream") else content
        wanted = self.headers.get("Range")
        if way in ("stream", "cut-stream"):  # the end of the connection is that of the file
            self.start(200, Connection="close")
            self.close_connection = True
        elif way == "plain" or not wanted:
            version = next(self.server.versions) if way == "changing" else hash(content)
            self.start(200, Content_Length=str(len(content)), ETag=f'"{version}"')
        else:
            first, last = wanted.removeprefix("bytes=").split("-")
            stop = min(int(last) + 1, len(content))
            sent = content[int(first) : stop]
            where = f"bytes {first}-{stop - 1}/{len(content)}"
            self.start(206, Content_Range=where, Content_Length=str(len(sent)))
        if self.command == "GET":
            self.wfile.write(sent)
            self.wfile.flush()
        if way == "silent" and self.command == "GET":
            self.server.closing.wait(600)
        self.close_connection |= way in ("cut", "silent")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    pixels = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name in IMAGES[:2]:
        Image.fromarray(pixels).save(folder / name)
    tifffile.imwrite(folder / "c.tif", pixels, photometric="rgb", tile=(16, 16))
    np.save(folder / "d.npy", RNG.random((30, 30), dtype=np.float32))
    with zipfile.ZipFile(folder / "e.zip", "w") as archive:
        for name in IMAGES:
            archive.write(folder / name, name)
    for name in ("f.tar", "g.tar.gz"):
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
            for member in IMAGES:
                tar.add(folder / member, member)
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    contents = [(folder / name).read_bytes() for name in IMAGES]
    parquet.write_table(pyarrow.table({"image": contents}), folder / "h.parquet")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("way", "whole"), [("ranges", True), ("ranges", False), ("plain", True), ("stream", True)]
)
def test_the_same_from_a_server(
    folder: Path, server: Server, way: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:  # as if they were large
        monkeypatch.setattr(locations, "_WHOLE", 100)
    expected = extract([folder / name for name in IMAGES]).features
    urls = [f"{server.url}/{way}/{name}?signature=a*b" for name in IMAGES]
    table = extract(urls)
    assert table.files == urls
    np.testing.assert_array_equal(table.features, expected)
    for name in ARCHIVES:
        table = extract(f"{server.url}/{way}/{name}")
        np.testing.assert_array_equal(table.features, expected)


BAD = {
    "403": "the server answers 403 Forbidden",
    "404": "the server answers 404 Not Found",
    "429": "the server answers 429 Too Many Requests",
    "500": "the server answers 500 Internal Server Error",
    "loop": "too many redirects",
    "reset": "Connection reset by peer|the server closed the connection",
    "cut": "the transfer broke off",
    "cut-stream": "truncated",
    "silent": "the server does not answer in time",
    "deaf": "the server does not answer in time",
}


def test_what_servers_do_is_the_reason(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(locations, "_STALL_SECONDS", 0.3)
    urls = [f"{server.url}/{way}/a.png?token=1234" for way in BAD]
    table = extract([*urls, f"{server.url}/ranges/a.png"], on_error="skip")
    assert [skipped.file for skipped in table.skipped] == urls
    for skipped, reason in zip(table.skipped, BAD.values(), strict=True):
        assert re.search(reason, skipped.reason), skipped
        assert "1234" not in skipped.reason
    for way, reason in BAD.items():
        if way != "cut-stream":
            with pytest.raises(
                OSError, match=f"cannot read .*/e.zip': cannot be fetched: ({reason})"
            ):
                find_images(f"{server.url}/{way}/e.zip")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png?token=1234"
        with pytest.raises(
            ImageError, match=r"token=\*\*\*: cannot be fetched: Connection refused"
        ):
            read_image(gone)


def test_what_changes_while_it_is_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "_WHOLE", 100)
    with pytest.raises(ImageError, match="changed while it was read"):
        read_image(f"{server.url}/changing/c.tif")


def test_a_store_of_urls_is_resumed(
    folder: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11", exc_type=ImportError)
    here = tmp_path / "here"
    here.mkdir()
    for name in IMAGES:
        shutil.copy(folder / name, here)
    server.folder = here
    urls = [f"{server.url}/ranges/{name}" for name in IMAGES]
    server.folder = tmp_path  # where there is none: the server has lost them
    store = extract_to_store(urls, tmp_path / "a.zarr", workers=2)
    assert {skipped.reason for skipped in store.skipped} == {
        "cannot be fetched: the server answers 404 Not Found"
    }
    server.folder = here
    store = extract_to_store(urls, tmp_path / "a.zarr", retry_skipped=True)
    expected = extract(here).features
    np.testing.assert_array_equal(store.features[:], expected)
    np.testing.assert_array_equal(store.row(urls[1]), expected[1])
    # Another one of the same size, whose server gives no time.
    content = bytearray((here / "d.npy").read_bytes())
    content[-1] ^= 1
    (here / "d.npy").write_bytes(content)
    for workers in (1, 2):
        store = extract_to_store(urls, tmp_path / "a.zarr", workers=workers)
        np.testing.assert_array_equal(store.features[:], extract(here).features)
    assert not (store.features[:] == expected).all()


# What these packages leave to the garbage collector.
@pytest.mark.filterwarnings("ignore")
def test_objects_of_s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server", reason="a server of S3, large: where it is installed")
    pytest.importorskip("s3fs", reason="needed for s3://")
    boto3 = pytest.importorskip("boto3", reason="needed for s3://")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    expected = extract([folder / name for name in IMAGES]).features
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    for name in (*IMAGES, *ARCHIVES):
        client.upload_file(str(folder / name), "bucket", f"photos/{name}")
    for where in ("photos", "photos/", "photos/[a-d].*", *(f"photos/{name}" for name in ARCHIVES)):
        table = extract(f"s3://bucket/{where}", workers=2)
        np.testing.assert_array_equal(table.features, expected)
    with pytest.raises(ImageError, match="cannot be fetched: No such file or directory"):
        read_image("s3://bucket/photos/none.png")
    client.upload_file(str(folder / "a.png"), "bucket", "photos/z.png")  # listed once more
    assert len(find_images("s3://bucket/photos")) == len(IMAGES) + 1
    signed = client.generate_presigned_url(
        "get_object", Params={"Bucket": "bucket", "Key": "photos/a.png"}
    )
    np.testing.assert_array_equal(extract(signed).features, expected[:1])
    server.stop()
    with pytest.raises(ImageError, match="cannot be fetched: Connection refused"):
        read_image("s3://bucket/photos/a.png")


def test_outputs_are_paths(server: Server) -> None:
    url = f"{server.url}/ranges/a.png"
    with pytest.raises(ValueError, match="an output must be a path on this machine"):
        extract_to_store(url, "s3://bucket/a.zarr")
    with pytest.raises(ValueError, match=r"an output must be a path.*token=\*\*\*"):
        save(extract(url), "https://host/a.npz?token=1234")


def test_secrets_are_not_shown(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (
        f"{server.url}/ranges/a.png?page=1&X-Amz-Signature=s3cr3t",
        f"{server.url}/403/a.png?sig=s3cr3t",
        f"{server.url}/403/e.zip?access_token=s3cr3t",
        f"http://user:s3cr3t@127.0.0.1:{server.server_address[1]}/ranges/a.png",
        "ftp://user:s3cr3t@127.0.0.1/e.zip",
        "s3://key:s3cr3t@bucket/*.png",
    ):
        for more in ("skip", "stop"):
            with pytest.raises(SystemExit):
                main(["extract", url, "-o", "a.npz", "--on-error", more])
    said = capsys.readouterr()
    assert "s3cr3t" not in said.out + said.err
    assert said.err.count("has a password in it") == 6


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made by openssl")
def test_over_tls(folder: Path, server: Server, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"{server.url.replace('http', 'https')}/ranges/a.png"
    command = [sys.executable, "-m", "dtwpt.cli", "extract", url, "-o", "a.npz"]
    environment = {**os.environ, "PYTHONPATH": str(Path(dtwpt.__file__).parents[1])}
    for trusted in (False, True):
        if trusted:
            environment["SSL_CERT_FILE"] = str(certificate)
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == trusted, done.stderr
        if not trusted:
            assert done.stderr == (
                f"dtwpt: {url}: cannot be fetched: the server's certificate is not one that is "
                "trusted\n"
            )
    expected = extract(folder / "a.png", Settings()).features
    np.testing.assert_array_equal(np.asarray(load(tmp_path / "a.npz").features), expected)
