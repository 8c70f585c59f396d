"""The gateway as its operator sees it: its program and its REST API."""

import json
import subprocess
import time
from pathlib import Path

import servers

MODEL = "text"


class Gateway:
    """A running gateway."""

    def __init__(self, program: Path, grpc: str, http: str) -> None:
        self.program, self.grpc, self.http = program, grpc, http

    def command(self, *args: str, check: bool = True) -> str:
        """Runs the program against this gateway and returns what it prints."""
        done = subprocess.run(
            [self.program, *args, "--addr", self.grpc], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
        )
        if check and done.returncode != 0:
            raise SystemExit(f"demo: modelgate {' '.join(args)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")

    def rest(self, path: str, body: object = None) -> dict:
        return json.loads(servers.get(self.http + path, body))

    def serving(self) -> str:
        """The version that serves, or nothing."""
        return (self.rest(f"/v1/models/{MODEL}").get("model", {}).get("active") or {}).get("version", "")

    def decisions(self) -> list[dict]:
        """The decisions about the model, newest first."""
        return self.rest(f"/v1/models/{MODEL}/history").get("entries", [])

    def decision_on(self, version: str, outcomes: tuple[str, ...], seconds: float = 60) -> dict:
        """Waits for the newest decision on a version to be one of the outcomes, and returns it."""

        def ready() -> dict | None:
            for entry in self.decisions():
                if (entry.get("candidate") or {}).get("version") == version and entry.get("outcome") in outcomes:
                    return entry
            return None

        start = time.monotonic()
        entry = servers.wait_for(f"decision on version {version}", ready, seconds)
        entry["waited"] = time.monotonic() - start
        return entry
