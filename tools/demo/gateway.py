"""The gateway as its operator sees it: its program and its REST API."""

import json
import subprocess
from pathlib import Path

import servers


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

    def serving(self, model: str) -> str:
        """The version that serves, or nothing."""
        return (self.rest(f"/v1/models/{model}").get("model", {}).get("active") or {}).get("version", "")

    def decisions(self, model: str) -> list[dict]:
        """The decisions about the model, newest first."""
        return self.rest(f"/v1/models/{model}/history").get("entries", [])

    def decision_on(self, model: str, version: str, seconds: float = 60) -> dict:
        """Waits for the decision on a version, and returns it."""

        def ready() -> dict | None:
            for entry in self.decisions(model):
                if (entry.get("candidate") or {}).get("version") == version and entry.get("outcome") in ("swapped", "refused", "failed"):
                    return entry
            return None

        return servers.wait_for(f"decision on version {version} of {model}", ready, seconds)
