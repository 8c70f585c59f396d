"""What the demo prints: a line a step, and below it what came out."""

import os
import sys
import time

STEPS = 10


class Screen:
    """Prints with colours on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._colour = self._terminal and "NO_COLOR" not in os.environ
        self._start = time.monotonic()

    def paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def step(self, number: int, text: str) -> None:
        # As wide as the last one's, so that the texts stand below each other.
        place = f"{f'[{number}/{STEPS}]':>{len(f'[{STEPS}/{STEPS}]')}}"
        print(f"{self.paint('1;36', place)} {self.paint('1', text)} {self.paint('2', f'({self.seconds():.0f} s)')}", flush=True)

    def line(self, text: str) -> None:
        for part in text.splitlines():
            print(f"        {part}", flush=True)

    def progress(self, text: str) -> None:
        """A line that the next one takes the place of; only a terminal can do that."""
        if self._terminal:
            print(f"        {text}\033[K", end="\r", flush=True)

    def seconds(self) -> float:
        return time.monotonic() - self._start


def expect(what: str, true: bool) -> None:
    """The demo shows nothing that it has not checked."""
    if not true:
        raise SystemExit(f"demo: expected {what}")


def phases(decision: dict) -> str:
    """A decision's phases and their milliseconds."""
    took = decision.get("seconds", {})
    return ", ".join(f"{phase} {short(took[phase])}" for phase in ("fetch", "verify", "load", "warm_up", "check") if phase in took)


def short(seconds: float) -> str:
    """Three digits are enough."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
