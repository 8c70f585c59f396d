"""Trains the demo's text classifier, negative tweets against the rest, and writes it as a bundle. No torch, seconds.

python tools/demo/train.py --version all --out DIR
"""

import argparse
import hashlib
import shutil
import time
from pathlib import Path

import bundle
import corpus
import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

# How many training rows each version gets. F1 grows with them; the demo checks that these four land where it needs them.
ROWS: dict[str, int | None] = {"small": 1500, "first": 8000, "middle": 16000, "all": None}
VOCABULARY = 12000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
# Strong regularisation: most tokens are rare.
C = 0.1


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A lower-casing BPE tokenizer over words and punctuation.

    A word's start is marked by a character of its own, as SentencePiece does. With WordPiece's "##" the trainer numbers pieces in the
    order of a hash table, and two runs over the same texts differ.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(prepend_scheme="always", split=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # With these two around it, even an empty text has tokens.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def count_tokens(tokenizer: Tokenizer, texts: list[str]) -> sparse.csr_matrix:
    """How often each token occurs in each text."""
    rows = [e.ids[: bundle.MAX_LENGTH - 2] for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    ends = np.cumsum([0] + [len(ids) for ids in rows])
    ids = np.fromiter((i for row in rows for i in row), np.int32, ends[-1])
    counts = sparse.csr_matrix((np.ones(len(ids), np.float64), ids, ends), shape=(len(texts), tokenizer.get_vocab_size()))
    counts.sum_duplicates()
    return counts


def train(folder: Path, training: corpus.Split, held_out: corpus.Split) -> dict[str, float]:
    """Trains on the training rows, writes the bundle into folder, and returns the metrics on the held-out rows."""
    tokenizer = train_tokenizer(training.texts)
    # Negative rows weigh as much as the rest together, so that 0.5 is the threshold and nothing has to be tuned on held-out rows.
    model = LogisticRegression(C=C, class_weight="balanced", max_iter=500)
    # One thread: the matrix is too sparse for more to be anything but slower.
    with threadpool_limits(1):
        model.fit(count_tokens(tokenizer, training.texts), training.labels)
    # Four decimals are plenty, and make the files the same where the last bits of the arithmetic differ.
    weights, bias = np.round(model.coef_[0], 4), round(float(model.intercept_[0]), 4)

    shutil.rmtree(folder, ignore_errors=True)
    bundle.write(folder, tokenizer, weights, bias)
    metrics = bundle.evaluate(folder, held_out.labels, held_out.texts)
    bundle.seal(folder)
    return metrics


def _recipe(training: corpus.Split) -> str:
    """A digest of all that decides a bundle's bytes: the code, the versions of what it uses, the rows."""
    here = Path(__file__).parent
    digest = hashlib.sha256(f"{len(training.texts)}:{''.join(training.texts[-1:])}".encode())
    for source in (*(here / f"{name}.py" for name in ("corpus", "graphs", "bundle", "train")), here.parent / "requirements.txt"):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def train_once(folder: Path, training: corpus.Split, held_out: corpus.Split) -> dict[str, float]:
    """Like train, but a bundle that the same recipe has made before is only measured again."""
    recipe, stamp = _recipe(training), folder.with_suffix(".recipe")
    if folder.is_dir() and stamp.exists() and stamp.read_text() == recipe:
        metrics = bundle.evaluate(folder, held_out.labels, held_out.texts)
        bundle.seal(folder)
        return metrics
    metrics = train(folder, training, held_out)
    stamp.write_text(recipe)
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one version of the demo's text classifier.")
    parser.add_argument("--version", choices=ROWS, default="all", help="which number of training rows")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; replaced if it exists")
    parser.add_argument("--seed", type=int, default=corpus.SEED, help="decides the order of the rows and so the split")
    args = parser.parse_args()

    start = time.monotonic()
    training, held_out = corpus.load(seed=args.seed)
    training = training.first(ROWS[args.version])
    metrics = train(args.out, training, held_out)
    print(
        f"train: {args.out}: {len(training.texts)} rows, F1 {metrics['eval_f1']:.4f} on {len(held_out.texts)} held-out rows,"
        f" {time.monotonic() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
