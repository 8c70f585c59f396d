"""A real gateway for tests, on ports of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# MODELGATE_PROGRAM names one that was built elsewhere.
PROGRAM = Path(os.environ.get("MODELGATE_PROGRAM", ROOT / "bin/modelgate"))
BUNDLES = ROOT / "examples/models/text"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Gateway:
    """A running gateway."""

    def __init__(self, process: subprocess.Popen, log: Path) -> None:
        self._process, self._log = process, log
        self.grpc = self.http = ""

    def lines(self) -> list[dict]:
        """What it has logged."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def wait(self, what: str, ready: object, seconds: float = 60) -> object:
        """Asks until the answer is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process.poll() is None, f"{what}: the gateway ended:\n{self._log.read_text()[-4000:]}"
            with contextlib.suppress(OSError):
                if answer := ready():
                    return answer
            time.sleep(0.02)
        raise AssertionError(f"{what}: not within {seconds:.0f} s:\n{self._log.read_text()[-4000:]}")

    def find_addresses(self) -> None:
        def listening() -> bool:
            for line in self.lines():
                if line.get("msg") == "listening":
                    self.grpc, self.http = line.get("grpc", ""), line.get("http", "")
            return bool(self.grpc and self.http)

        self.wait("listening", listening)

    def get(self, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.http}{path}", data, {"Content-Type": "application/json"})
        with _opener.open(request, timeout=30) as answer:
            return json.loads(answer.read())

    def serving(self, model: str = "text") -> dict:
        return self.get(f"/v1/models/{model}").get("model", {}).get("active") or {}

    def wait_for(self, version: str, model: str = "text", seconds: float = 60) -> dict:
        """Waits until a version serves, and returns what is known of it."""
        return self.wait(f"{model} {version}", lambda: (v := self.serving(model)).get("version") == version and v, seconds)


@contextlib.contextmanager
def gateway(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Gateway]:
    assert PROGRAM.exists(), f"{PROGRAM} is missing: run make build"
    log = folder / "gateway.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [PROGRAM, "serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir", folder / "data", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "MODELGATE_LOG_FORMAT": "json", **(env or {})},
            start_new_session=True,
        )
    try:
        g = Gateway(process, log)
        g.find_addresses()
        yield g
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """Ends a process with its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def add_version(models: Path, version: str) -> None:
    """Adds an example bundle to a folder of models as the gateway wants it: whole or not at all."""
    target = models / "text" / version
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = models.parent / f"{version}.new"
    shutil.copytree(BUNDLES / version, scratch)
    scratch.rename(target)
