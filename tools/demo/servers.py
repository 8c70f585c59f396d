"""Starts and ends the demo's servers, and knows them again in a later run. Standard library only."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".demo"
_STATE = HOME / "servers.json"
# Nothing on this machine is reached through a proxy.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port(wanted: int) -> int:
    """The wanted port, or any other if that one is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise SystemExit("demo: no free port on 127.0.0.1")


def get(url: str, body: object = None, timeout: float = 30) -> bytes:
    """GETs, or POSTs a JSON body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    with _opener.open(request, timeout=timeout) as answer:
        return answer.read()


def wait_for(what: str, ready: Callable[[], object], seconds: float, alive: Callable[[], bool] = lambda: True) -> object:
    """Asks until the answer is true; a server that ended, or time that ran out, ends the demo with a sentence."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if answer := ready():
                return answer
        except (OSError, urllib.error.URLError, ValueError):
            pass
        if not alive():
            raise SystemExit(f"demo: {what}: it ended; its log is in {os.path.relpath(HOME)}/")
        time.sleep(0.05)
    raise SystemExit(f"demo: {what}: not within {seconds:.0f} s; the logs are in {os.path.relpath(HOME)}/")


def _identity(pid: int) -> str | None:
    """When a process started and what it runs, so that a number that was given anew is not mistaken for it."""
    try:
        # The fields after the name, which may hold anything, in parentheses; the 20th of them is the start in ticks.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        # A process that has ended but was not waited for has no command line.
        return f"{started} {command}" if command else None
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    said = subprocess.run(["ps", "-o", "lstart=,args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return " ".join(said.stdout.split()) or None


class Servers:
    """The processes that the demo has started, each the leader of a process group of its own."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen] = {}
        self._known: dict[str, dict] = {}

    def start(self, name: str, command: list[str], env: dict[str, str]) -> None:
        with (HOME / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **env},
                cwd=HOME,
                start_new_session=True,
            )
        self._running[name] = process
        self._known[name] = {"pid": process.pid, "identity": _identity(process.pid)}
        _STATE.write_text(json.dumps(self._known, indent=2))

    def note(self) -> None:
        """Writes down what the servers run by now: an interpreter replaces itself while it starts."""
        for server in self._known.values():
            server["identity"] = _identity(server["pid"])
        _STATE.write_text(json.dumps(self._known, indent=2))

    def alive(self, name: str) -> bool:
        return self._running[name].poll() is None

    def log(self, name: str, lines: int = 20) -> str:
        return "\n".join((HOME / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> dict[str, int]:
        """Ends the servers and returns the exit status of each."""
        for process in self._running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        _STATE.unlink(missing_ok=True)
        return {name: process.returncode for name, process in self._running.items()}


def stop_earlier() -> list[str]:
    """Ends what an earlier run left, if it still is what that run started, and names it."""
    try:
        known = json.loads(_STATE.read_text())
    except (OSError, ValueError):
        return []
    ours = {name: s["pid"] for name, s in known.items() if s["identity"] and _identity(s["pid"]) == s["identity"]}
    for pid in ours.values():
        os.killpg(pid, signal.SIGTERM)
    end = time.monotonic() + 25
    while any(_identity(pid) for pid in ours.values()) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in ours.values():
        if _identity(pid):
            os.killpg(pid, signal.SIGKILL)
    _STATE.unlink(missing_ok=True)
    return sorted(ours)
