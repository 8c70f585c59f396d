"""Texts, clips and both on real input and real servers, step by step: `make demo`.

With --once it ends by itself, and its status says whether all went well.
"""

import argparse
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor

import media_steps
import servers
import text_steps
from screen import Screen, expect
from stage import BIN, BUNDLES, Stage, quiet


def run(stage: Stage) -> None:
    screen = stage.screen
    said = subprocess.run([BIN / "modelgate", "version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    screen.step(1, f"Built: {said}, ONNX Runtime beside it")
    screen.step(2, "A real MLflow server (sqlite, artifacts through its proxy)")
    stage.start_mlflow()
    media_steps.start_clips(stage)
    with ThreadPoolExecutor(1) as pool:
        # The server needs some seconds to start; the training uses them.
        ready: Future = pool.submit(stage.mlflow_ready)
        screen.step(3, "Text classifiers from human-labelled tweets: negative against the rest")
        text_steps.train_all(stage)
        ready.result()
    # What follows is timed, so nothing else shall run beside it.
    media_steps.wait_for_clips(stage)
    screen.step(4, "Version 1 is registered, and the gateway started: it finds, fetches, checks, warms up and serves it")
    stage.publish("text", "first", {"rows": "first"})
    stage.start_gateway()
    stage.first("text")
    text_steps.predict(stage)
    text_steps.swap(stage)
    text_steps.refuse(stage)
    media_steps.MediaSteps(stage).run()


def farewell(screen: Screen, gateway, uri: str) -> None:
    flag = "" if gateway.grpc == "127.0.0.1:8001" else f" --addr {gateway.grpc}"
    clip = (media_steps.COPIES / media_steps.held_out("strobe").path.name).relative_to(servers.ROOT)
    rest = f"curl -s -H 'Content-Type: application/json' {gateway.http}/v1/models/text:predict -d '{{\"text\": \"what a day\"}}'"
    print(f"\n{screen.paint('1', 'The servers go on running.')} Try:")
    for line in (
        f'bin/modelgate predict{flag} "what a lovely day"',
        f"bin/modelgate predict{flag} --video {clip}",
        f'bin/modelgate predict{flag} --video {clip} "what a lovely day"',
        f"bin/modelgate models{flag}",
        f"bin/modelgate history{flag} text",
        rest,
        f"the API's pages: {gateway.http}/docs    metrics: {gateway.http}/metrics    MLflow: {uri}",
        "make demo-stop    ends them; logs and state are in .demo/",
    ):
        print(f"  {line}")


def clear() -> None:
    """Deletes what an earlier demo left, but for what it has trained."""
    BUNDLES.mkdir(parents=True, exist_ok=True)
    for left in servers.HOME.iterdir():
        if left.is_dir() and left != BUNDLES:
            shutil.rmtree(left)
        elif left.is_file():
            left.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="end the servers, and say by the exit status whether all went well")
    once = parser.parse_args().once
    quiet()
    screen = Screen()
    if ended := servers.stop_earlier():
        screen.line(f"ended what an earlier demo left running: {', '.join(ended)}")
    clear()
    stage = Stage(screen)
    try:
        run(stage)
    except BaseException as err:
        stage.servers.stop()
        if isinstance(err, KeyboardInterrupt):
            raise SystemExit("\ndemo: interrupted; its servers are ended") from None
        raise
    if not once:
        farewell(screen, stage.gateway, stage.mlflow)
        return
    ends = stage.servers.stop()
    expect(f"the gateway to end with status 0 on SIGTERM, not {ends['gateway']}", ends["gateway"] == 0)
    print(f"demo: every outcome as expected, {screen.seconds():.0f} s")


if __name__ == "__main__":
    main()
