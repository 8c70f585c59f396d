"""Converts PhoBERT's tokenizer (vocab.txt and bpe.codes) into a tokenizer.json, which transformers can't.

The tokenizer.json equals the slow tokenizer if ids from vocab_size on are read as <unk>: merges make pieces that
vocab.txt doesn't have, and the library wants an id for each. modelgate does so where tokenizer_class is
PhobertTokenizer.
"""

import argparse
import json
from pathlib import Path

SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
MASK = "<mask>"
# A word is what Python's \S+\n? matches: Oniguruma doesn't count the four information separators as white space.
WORD = r"[^\s\x1c-\x1f]+\n?"


def read_vocab(path: Path) -> dict[str, int]:
    """Reads `piece count` lines. Every piece that doesn't end a word ends in @@."""
    vocab = dict(SPECIAL)
    for line in path.read_text(encoding="utf-8").split("\n"):
        piece, space, _ = line.strip().rpartition(" ")
        if space:
            vocab[piece] = len(vocab)
    return vocab


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Reads `left right count` lines, best first."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").split("\n")]
    return [(row[0], row[1]) for row in rows if len(row) == 3]


def symbols(vocab: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, int]:
    """Names the pieces as the library does: `ab</w>` ends a word, `ab` doesn't. What vocab.txt lacks comes last."""
    named = dict(SPECIAL)
    for piece, i in vocab.items():
        if piece not in SPECIAL:
            named[piece.removesuffix("@@") if piece.endswith("@@") else piece + "</w>"] = i
    end = len(vocab)
    named[MASK] = end
    for pair in merges:
        for s in (*pair, "".join(pair)):
            if s not in named:
                end += 1
                named[s] = end
    return named


def convert(folder: Path) -> dict:
    """The content of tokenizer.json for the vocab.txt and bpe.codes in folder."""
    vocab = read_vocab(folder / "vocab.txt")
    merges = read_merges(folder / "bpe.codes")
    added = {**SPECIAL, MASK: len(vocab)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}

    def special(name: str) -> dict:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    def text(name: str) -> dict:
        return {"Sequence": {"id": name, "type_id": 0}}

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": s, **flags} for s, i in added.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": WORD}, "behavior": "Removed", "invert": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("<s>"), text("A"), special("</s>")],
            "pair": [special("<s>"), text("A"), special("</s>"), special("</s>"), text("B"), special("</s>")],
            "special_tokens": {s: {"id": s, "ids": [SPECIAL[s]], "tokens": [s]} for s in ("<s>", "</s>")},
        },
        "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": symbols(vocab, merges),
            "merges": [list(pair) for pair in merges],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes tokenizer.json beside PhoBERT's vocab.txt and bpe.codes.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    (folder / "tokenizer.json").write_text(json.dumps(convert(folder), ensure_ascii=False), encoding="utf-8")
    print(f"wrote {folder / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
