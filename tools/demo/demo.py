"""The main job on real input, step by step: `make demo`. With --once it ends by itself, and its status says whether all went well."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import servers
from gateway import MODEL, Gateway
from traffic import RATE, Traffic, milliseconds

BIN = servers.ROOT / "bin"
BUNDLES = servers.HOME / "bundles"
# MLflow reports home unless told not to, and says more than one wants to read.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "NO_PROXY": "127.0.0.1",
}
# Said by nobody in the corpus.
TEXTS = [
    "Three hours late, no explanation, and they lost my suitcase. Never again.",
    "The crew was lovely and we even landed early, thank you!",
    "Is the 6pm flight to Boston still leaving from gate 12?",
    "worst customer service ever, I have been on hold all day",
    "Can't wait to see the new phone tomorrow",
]


class Screen:
    """Prints a line a step, with colours on a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._start = time.monotonic()

    def paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def step(self, number: int, text: str) -> None:
        print(f"{self.paint('1;36', f'[{number}/7]')} {self.paint('1', text)} {self.paint('2', f'({self.seconds():.0f} s)')}", flush=True)

    def line(self, text: str) -> None:
        for part in text.splitlines():
            print(f"      {part}", flush=True)

    def seconds(self) -> float:
        return time.monotonic() - self._start


def expect(what: str, true: bool) -> None:
    """The demo shows nothing that it has not checked."""
    if not true:
        raise SystemExit(f"demo: expected {what}")


def names_of(decision: dict) -> str:
    """A decision's phases and their milliseconds."""
    took = decision.get("seconds", {})
    return ", ".join(f"{phase} {took[phase] * 1000:.3g} ms" for phase in ("fetch", "verify", "load", "warm_up") if phase in took)


class Demo:
    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.servers = servers.Servers()
        self.f1: dict[str, float] = {}

    def start_mlflow(self) -> str:
        self.screen.step(2, "A real MLflow server (sqlite, artifacts through its proxy)")
        port = self.port("MLflow", 5000)
        uri = f"http://127.0.0.1:{port}"
        home = servers.HOME / "mlflow"
        home.mkdir()
        mlflow = Path(sys.executable).parent / "mlflow"
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        options += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
        self.servers.start("mlflow", [str(mlflow), "server", *options], {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        return uri

    def mlflow_ready(self, uri: str) -> None:
        servers.wait_for("MLflow", lambda: servers.get(f"{uri}/health"), 120, lambda: self.servers.alive("mlflow"))
        self.servers.note()
        self.screen.line(f"MLflow answers on {uri}")

    def port(self, what: str, wanted: int) -> int:
        port = servers.free_port(wanted)
        if port != wanted:
            self.screen.line(f"port {wanted} is taken: {what} listens on {port} instead")
        return port

    def train(self) -> None:
        import corpus
        import train

        self.screen.step(3, "Text classifiers from human-labelled tweets: negative against the rest")
        training, held_out = corpus.load()
        (servers.HOME / "texts.txt").write_text("\n".join(" ".join(t.split()) for t in held_out.texts[:1000]) + "\n", encoding="utf-8")
        for name, rows in train.ROWS.items():
            part = training.first(rows)
            self.f1[name] = train.train_once(BUNDLES / name, part, held_out)["eval_f1"]
            self.screen.line(f"{len(part.texts):6d} rows: F1 {self.f1[name]:.4f} on {len(held_out.texts)} held-out tweets")
        f1 = self.f1
        expect("the F1 of the first version to clear 0.75 by 0.01", f1["first"] >= 0.76)
        expect("F1 to grow from the first to all rows by way of the middle", f1["first"] < f1["middle"] < f1["all"])
        expect("1,500 rows to stay under 0.75", f1["small"] < 0.75)

    def start_gateway(self, uri: str) -> Gateway:
        grpc, http = (f"127.0.0.1:{self.port(what, port)}" for what, port in (("gRPC", 8001), ("HTTP", 8000)))
        self.servers.start(
            "gateway",
            [str(BIN / "modelgate"), "serve"],
            {
                "MLFLOW_TRACKING_URI": uri,
                "MODELGATE_GRPC_ADDR": grpc,
                "MODELGATE_HTTP_ADDR": http,
                "MODELGATE_DATA_DIR": str(servers.HOME / "data"),
                # Half an hour is the default; nobody wants to watch that.
                "MODELGATE_UPDATE_INTERVAL": "1s",
            },
        )
        gateway = Gateway(BIN / "modelgate", grpc, f"http://{http}")
        servers.wait_for("the gateway", lambda: servers.get(f"{gateway.http}/readyz"), 60, lambda: self.servers.alive("gateway"))
        self.servers.note()
        return gateway

    def predict(self, gateway: Gateway) -> None:
        self.screen.step(5, "Predictions, over gRPC and over REST")
        said = gateway.command("predict", "--model", MODEL, *TEXTS)
        self.screen.line(said)
        expect("a line an answer", len(said.splitlines()) == len(TEXTS))
        self.screen.line(f"POST {gateway.http}/v1/models/{MODEL}:predict")
        for text in TEXTS[:2]:
            answer = gateway.rest(f"/v1/models/{MODEL}:predict", {"text": text})
            expect("an answer from version 1", answer["version"] == "1")
            self.screen.line(f'  {{"text": "{text[:40]}..."}} -> {answer["label"]} {answer["score"]:.3f} (version {answer["version"]})')

    def swap(self, gateway: Gateway, registry) -> None:
        self.screen.step(6, f"Version 2 is registered and promoted while {RATE} requests a second go on")
        traffic = Traffic(BIN / "load", gateway.grpc, servers.HOME / "texts.txt")
        traffic.run_for(3)
        begin = time.time()
        version = registry.publish(BUNDLES / "all", {"rows": "all"})
        decision = gateway.decision_on(version, ("swapped", "failed", "refused"))
        expect(f"version {version} to be swapped in, not {decision.get('reason')!r}", decision["outcome"] == "swapped")
        swapped = time.time()
        traffic.run_for(3)
        traffic.stop()

        old, new = decision["active"]["f1"], decision["candidate"]["f1"]
        self.screen.line(f"swapped 1 -> {version}: F1 {old:.4f} -> {new:.4f}; {decision['reason']}")
        self.screen.line(f"phases: {names_of(decision)}; under the write lock {decision['seconds']['publish_held'] * 1e6:.1f} us")
        failed = traffic.failed()
        self.screen.line(self.screen.paint("1", f"requests sent {len(traffic.answers)}, failed {len(failed)}"))
        for name, part in (
            ("before", traffic.between(0, begin)),
            ("during", traffic.between(begin, swapped)),
            ("after", traffic.between(swapped, time.time())),
        ):
            p50, p99 = milliseconds(part)
            versions = ", ".join(sorted({a["version"] for a in part if "version" in a}))
            self.screen.line(f"  {name:7s} p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {len(part):5d} requests, from version {versions}")
        expect(f"no failed request, not {failed[:3]}", not failed)
        expect("answers from versions 1 and 2 alone", {a["version"] for a in traffic.answers} == {"1", version})
        expect("version 2 to answer last", max(traffic.answers, key=lambda a: a["sent_us"])["version"] == version)

    def refuse(self, gateway: Gateway, registry) -> None:
        self.screen.step(7, "Two worse versions are promoted, and not taken; then a rollback, and forward again")
        for name, code in (("middle", "no_improvement"), ("small", "below_threshold")):
            version = registry.publish(BUNDLES / name, {"rows": name})
            decision = gateway.decision_on(version, ("swapped", "failed", "refused"))
            expect(
                f"version {version} to be refused as {code}, not {decision}", (decision["outcome"], decision["code"]) == ("refused", code)
            )
        self.screen.line(gateway.command("history", MODEL))
        expect("version 2 to serve on", gateway.serving() == "2")
        for args, version in ((("rollback", MODEL), "1"), (("promote", MODEL, "2"), "2")):
            self.screen.line(f"modelgate {' '.join(args)}")
            self.screen.line(gateway.command(*args))
            expect(f"version {version} to serve", gateway.serving() == version)
            expect(f"version {version} to answer", gateway.rest(f"/v1/models/{MODEL}:predict", {"text": TEXTS[0]})["version"] == version)

    def run(self) -> tuple[Gateway, str]:
        said = subprocess.run([BIN / "modelgate", "version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        self.screen.step(1, f"Built: {said}, ONNX Runtime beside it")
        uri = self.start_mlflow()
        with ThreadPoolExecutor(1) as pool:
            # The server needs some seconds to start; the training uses them.
            ready: Future = pool.submit(self.mlflow_ready, uri)
            self.train()
            ready.result()
        from publish import Registry

        registry = Registry(uri)
        self.screen.step(4, "Version 1 is registered, and the gateway started: it finds, fetches, checks, warms up and serves it")
        registry.publish(BUNDLES / "first", {"rows": "first"})
        gateway = self.start_gateway(uri)
        decision = gateway.decision_on("1", ("swapped",))
        self.screen.line(f"{decision['reason']} ({names_of(decision)})")
        expect("version 1 to serve", gateway.serving() == "1")
        self.predict(gateway)
        self.swap(gateway, registry)
        self.refuse(gateway, registry)
        return gateway, uri


def farewell(screen: Screen, gateway: Gateway, uri: str) -> None:
    flag = "" if gateway.grpc == "127.0.0.1:8001" else f" --addr {gateway.grpc}"
    rest = f"curl -s -H 'Content-Type: application/json' {gateway.http}/v1/models/{MODEL}:predict -d '{{\"text\": \"what a day\"}}'"
    print(f"\n{screen.paint('1', 'The servers go on running.')} Try:")
    for line in (
        f'bin/modelgate predict{flag} "what a lovely day"',
        f"bin/modelgate models{flag}",
        f"bin/modelgate history{flag} {MODEL}",
        rest,
        f"the API's pages: {gateway.http}/docs    metrics: {gateway.http}/metrics    MLflow: {uri}",
        "make demo-stop    ends them; logs and state are in .demo/",
    ):
        print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="end the servers, and say by the exit status whether all went well")
    once = parser.parse_args().once
    os.environ.update(QUIET)
    screen = Screen()
    if ended := servers.stop_earlier():
        screen.line(f"ended what an earlier demo left running: {', '.join(ended)}")
    BUNDLES.mkdir(parents=True, exist_ok=True)
    for left in servers.HOME.iterdir():
        if left.is_dir() and left != BUNDLES:
            shutil.rmtree(left)
        elif left.is_file():
            left.unlink()
    demo = Demo(screen)
    try:
        gateway, uri = demo.run()
    except BaseException as err:
        demo.servers.stop()
        if isinstance(err, KeyboardInterrupt):
            raise SystemExit("\ndemo: interrupted; its servers are ended") from None
        raise
    if not once:
        farewell(screen, gateway, uri)
        return
    ends = demo.servers.stop()
    expect(f"the gateway to end with status 0 on SIGTERM, not {ends['gateway']}", ends["gateway"] == 0)
    print(f"demo: every outcome as expected, {screen.seconds():.0f} s")


if __name__ == "__main__":
    main()
