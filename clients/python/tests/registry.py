"""A real MLflow server for tests."""

import contextlib
import http.server
import os
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from gateway import ROOT, end

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def mlflow_server(folder: Path, venv: str, target: str) -> Iterator[str]:
    """A server of the MLflow in .cache/<venv>, which `make <target>` sets up."""
    program = ROOT / ".cache" / venv / "bin/mlflow"
    assert program.exists(), f".cache/{venv} is missing: run make {target}"
    port, log = free_port(), folder / "mlflow.log"
    address = f"http://127.0.0.1:{port}"
    options = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *options],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
    try:
        limit = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError), _opener.open(f"{address}/health", timeout=2):
                break
            assert process.poll() is None and time.monotonic() < limit, f"MLflow does not answer:\n{log.read_text()[-4000:]}"
            time.sleep(0.05)
        yield address
    finally:
        end(process)


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on to a server; what is done about the answers is for those that derive from it."""

    upstream = ""

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def ask(self) -> tuple[int, bytes]:
        body = self.read()
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "accept-encoding")}
        request = urllib.request.Request(self.upstream + self.path, body or None, headers, method=self.command)
        try:
            with _opener.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as err:
            return err.code, err.read()

    def answer(self, status: int, said: bytes, form: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", form)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def forward(self) -> None:
        self.answer(*self.ask())

    def forwarding(self) -> None:
        self.forward()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forwarding

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[Proxy]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def resetting(upstream: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy before a server that loses the first answer to each kind of POST: the server has done it, the caller sees a reset.

    Yields its address and the list of what was lost.
    """
    lost: list[str] = []

    class Losing(Proxy):
        def forward(self) -> None:
            status, said = self.ask()
            if self.command != "POST" or self.path in lost:
                self.answer(status, said)
                return
            lost.append(self.path)
            # Without lingering a close is a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

    Losing.upstream = upstream
    with serving(Losing) as address:
        yield address, lost


@contextlib.contextmanager
def without_aliases(upstream: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy that makes of a server one of before there were aliases: their routes are not found, as Flask says it.

    Yields its address and the list of what wasn't found.
    """
    missing: list[str] = []

    class Old(Proxy):
        def forward(self) -> None:
            if urllib.parse.urlsplit(self.path).path.endswith("/registered-models/alias"):
                missing.append(self.command)
                self.read()
                self.answer(404, b"<!doctype html>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n", "text/html; charset=utf-8")
            else:
                super().forward()

    Old.upstream = upstream
    with serving(Old) as address:
        yield address, missing
