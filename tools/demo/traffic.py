"""Steady traffic against the gateway while something happens, and what it saw."""

import json
import math
import subprocess
import threading
import time
from pathlib import Path

RATE = 200


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.nan


class Traffic:
    """Requests at a steady rate from the program in benchmarks/load, until stop."""

    def __init__(self, program: Path, addr: str, texts: Path) -> None:
        self._process = subprocess.Popen(
            [program, "-addr", addr, "-texts", texts, "-rate", str(RATE), "-for", "3m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answers: list[dict] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.answers.append(json.loads(line))

    def failed(self) -> list[dict]:
        return [a for a in self.answers if "error" in a]

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

    def between(self, start: float, end: float) -> list[dict]:
        """The answers to requests that were due in a span of time, in seconds since 1970."""
        return [a for a in self.answers if start * 1e6 <= a["sent_us"] < end * 1e6]


def milliseconds(answers: list[dict]) -> tuple[float, float]:
    """p50 and p99 of the latency."""
    values = [a["latency_us"] / 1000 for a in answers if "error" not in a]
    return percentile(values, 0.5), percentile(values, 0.99)
