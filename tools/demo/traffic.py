"""Steady traffic against the gateway while something happens, and what it saw."""

import itertools
import json
import math
import subprocess
import threading
import time
from pathlib import Path

RATE = 200
CALLERS = 2


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.nan


class Answers:
    """What came back."""

    def __init__(self) -> None:
        self.answers: list[dict] = []

    def failed(self) -> list[dict]:
        return [a for a in self.answers if "error" in a]

    def between(self, start: float, end: float) -> list[dict]:
        """The answers to requests that were due in a span of time, in seconds since 1970."""
        return [a for a in self.answers if start * 1e6 <= a["sent_us"] < end * 1e6]


class Traffic(Answers):
    """Requests at a steady rate from the program in benchmarks/load, until stop."""

    def __init__(self, program: Path, addr: str, texts: Path) -> None:
        super().__init__()
        self._process = subprocess.Popen(
            [program, "-addr", addr, "-texts", texts, "-rate", str(RATE), "-for", "3m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.answers.append(json.loads(line))

    def run_for(self, seconds: float) -> None:
        """Lets it run for so many seconds of requests."""
        until = len(self.answers) + int(RATE * seconds)
        end = time.monotonic() + 10 * seconds + 10
        while len(self.answers) < until:
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit("demo: the load generator gets no answers; the gateway's log is .demo/gateway.log")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it after the last answer."""
        self._process.stdin.close()
        if self._process.wait(30) != 0:
            raise SystemExit("demo: the load generator ended with an error")
        self._reader.join()


class ClipTraffic(Answers):
    """Clips from a few callers, each of which sends the next when it has the answer, until stop."""

    def __init__(self, addr: str, clips: list[Path]) -> None:
        super().__init__()
        from modelgate import Client

        # A call that fails is not repeated: it would not be seen.
        self._client = Client(addr, max_attempts=1, timeout=30)
        self._clips = [path.read_bytes() for path in clips]
        self._ended = threading.Event()
        self._next = itertools.count()
        self._callers = [threading.Thread(target=self._call, daemon=True) for _ in range(CALLERS)]
        for caller in self._callers:
            caller.start()

    def _call(self) -> None:
        from modelgate import ModelgateError

        while not self._ended.is_set():
            clip, start = next(self._next) % len(self._clips), time.time()
            answer = {"sent_us": start * 1e6, "clip": clip}
            try:
                said = self._client.predict(video=self._clips[clip], model="video")
                answer |= {"version": said.version, "score": said.score}
            except ModelgateError as err:
                answer["error"] = str(err)
            answer["latency_us"] = (time.time() - start) * 1e6
            self.answers.append(answer)

    def run_for(self, seconds: float) -> None:
        """Lets it run for so many seconds, and as long as there are only a few answers."""
        few, start = len(self.answers) + 5 * CALLERS, time.monotonic()
        while (took := time.monotonic() - start) < seconds or len(self.answers) < few:
            if took > 60:
                raise SystemExit("demo: clips get no answers; the gateway's log is .demo/gateway.log")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it after the last answers."""
        self._ended.set()
        for caller in self._callers:
            caller.join(40)
        self._client.close()


def milliseconds(answers: list[dict]) -> tuple[float, float]:
    """p50 and p99 of the latency."""
    values = [a["latency_us"] / 1000 for a in answers if "error" not in a]
    return percentile(values, 0.5), percentile(values, 0.99)
