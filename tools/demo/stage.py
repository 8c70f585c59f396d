"""What all steps of the demo share: the screen, MLflow, the gateway, and how a version gets from the one to the other."""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import servers
from gateway import Gateway
from screen import Screen, expect, phases
from traffic import Traffic, milliseconds

BIN = servers.ROOT / "bin"
BUNDLES = servers.HOME / "bundles"
# The package as it lies here, not one that may be installed.
sys.path.insert(0, str(servers.ROOT / "clients/python/src"))


class Stage:
    """The servers that run, and the screen that tells of them."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.servers = servers.Servers()
        self.mlflow = ""  # its address
        self.gateway: Gateway  # once it was started

    def port(self, what: str, wanted: int) -> int:
        port = servers.free_port(wanted)
        if port != wanted:
            self.screen.line(f"port {wanted} is taken: {what} listens on {port} instead")
        return port

    def start_mlflow(self) -> None:
        port = self.port("MLflow", 5000)
        self.mlflow = f"http://127.0.0.1:{port}"
        home = servers.HOME / "mlflow"
        home.mkdir()
        mlflow = Path(sys.executable).parent / "mlflow"
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        options += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
        self.servers.start("mlflow", [str(mlflow), "server", *options], {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})

    def mlflow_ready(self) -> None:
        # Takes two seconds, which the server needs anyway.
        importlib.import_module("modelgate.publish")
        servers.wait_for("MLflow", lambda: servers.get(f"{self.mlflow}/health"), 120, lambda: self.servers.alive("mlflow"))
        self.servers.note()
        self.screen.line(f"MLflow answers on {self.mlflow}")

    def start_gateway(self) -> None:
        grpc, http = (f"127.0.0.1:{self.port(what, port)}" for what, port in (("gRPC", 8001), ("HTTP", 8000)))
        self.servers.start(
            "gateway",
            # The label of the fusion model, which the score of its parts goes by as long as there is none.
            [str(BIN / "modelgate"), "serve", "--set", "models.fusion.positive_label=harmful"],
            {
                "MLFLOW_TRACKING_URI": self.mlflow,
                "MODELGATE_GRPC_ADDR": grpc,
                "MODELGATE_HTTP_ADDR": http,
                "MODELGATE_DATA_DIR": str(servers.HOME / "data"),
                # Half an hour is the default; nobody wants to watch that.
                "MODELGATE_UPDATE_INTERVAL": "1s",
            },
        )
        self.gateway = Gateway(BIN / "modelgate", grpc, f"http://{http}")
        servers.wait_for("the gateway", lambda: servers.get(f"{self.gateway.http}/readyz"), 60, lambda: self.servers.alive("gateway"))
        self.servers.note()

    def publish(self, kind: str, name: str, params: dict[str, object]) -> str:
        """Publishes a bundle as a training script does, promotes it, and returns the version's number."""
        from modelgate import publish

        log = {"text": publish.log_text_model, "video": publish.log_video_model, "fusion": publish.log_fusion_model}[kind]
        metrics = json.loads((BUNDLES / name / "metrics.json").read_text())
        # Promoted whatever its F1: whether that is enough is for the gateway to say.
        done = log(BUNDLES / name, metrics, params, run_name=name, tracking_uri=self.mlflow, promote=True, f1_threshold=0)
        return done.version

    def first(self, kind: str) -> None:
        """Waits until version 1 serves."""
        decision = self.gateway.decision_on(kind, "1")
        expect(f"version 1 of {kind} to serve, not {decision.get('reason')!r}", self.gateway.serving(kind) == "1")
        self.screen.line(f"{decision['reason']} ({phases(decision)})")

    def swap(self, kind: str, name: str, params: dict[str, object], traffic: Traffic, seconds: float = 3) -> None:
        """Publishes version 2 while requests go on, and tells what they saw."""
        traffic.run_for(seconds)
        begin = time.time()
        version = self.publish(kind, name, params)
        decision = self.gateway.decision_on(kind, version)
        expect(f"version {version} to be swapped in, not {decision.get('reason')!r}", decision["outcome"] == "swapped")
        swapped = time.time()
        traffic.run_for(seconds)
        traffic.stop()

        old, new = decision["active"]["f1"], decision["candidate"]["f1"]
        self.screen.line(f"swapped 1 -> {version}: F1 {old:.4f} -> {new:.4f}; {decision['reason']}")
        self.screen.line(f"phases: {phases(decision)}; under the write lock {decision['seconds']['publish_held'] * 1e6:.1f} us")
        failed = traffic.failed()
        self.screen.line(self.screen.paint("1", f"requests sent {len(traffic.answers)}, failed {len(failed)}"))
        for when, part in (
            ("before", traffic.between(0, begin)),
            ("during", traffic.between(begin, swapped)),
            ("after", traffic.between(swapped, time.time())),
        ):
            p50, p99 = milliseconds(part)
            versions = ", ".join(sorted({a["version"] for a in part if "version" in a}))
            self.screen.line(f"  {when:7s} p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {len(part):5d} requests, from version {versions}")
        expect(f"no failed request, not {failed[:3]}", not failed)
        expect("answers from versions 1 and 2 alone", {a["version"] for a in traffic.answers} == {"1", version})
        expect("version 2 to answer last", max(traffic.answers, key=lambda a: a["sent_us"])["version"] == version)


# MLflow reports home unless told not to, and says more than one wants to read.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "NO_PROXY": "127.0.0.1",
}


def quiet() -> None:
    os.environ.update(QUIET)
