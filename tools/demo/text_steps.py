"""The main job with the model of texts: trained, published, served, swapped under load, refused, rolled back."""

import corpus
import servers
import train
from screen import expect
from stage import BIN, BUNDLES, Stage
from traffic import RATE, Traffic

MODEL = "text"
# Said by nobody in the corpus.
TEXTS = [
    "Three hours late, no explanation, and they lost my suitcase. Never again.",
    "The crew was lovely and we even landed early, thank you!",
    "Is the 6pm flight to Boston still leaving from gate 12?",
    "worst customer service ever, I have been on hold all day",
    "Can't wait to see the new phone tomorrow",
]


def train_all(stage: Stage) -> None:
    training, held_out = corpus.load()
    (servers.HOME / "texts.txt").write_text("\n".join(" ".join(t.split()) for t in held_out.texts[:1000]) + "\n", encoding="utf-8")
    f1 = {}
    for name, rows in train.ROWS.items():
        part = training.first(rows)
        f1[name] = train.train_once(BUNDLES / name, part, held_out)["eval_f1"]
        stage.screen.line(f"{len(part.texts):6d} rows: F1 {f1[name]:.4f} on {len(held_out.texts)} held-out tweets")
    expect("the F1 of the first version to clear 0.75 by 0.01", f1["first"] >= 0.76)
    expect("F1 to grow from the first to all rows by way of the middle", f1["first"] < f1["middle"] < f1["all"])
    expect("1,500 rows to stay under 0.75", f1["small"] < 0.75)


def predict(stage: Stage) -> None:
    screen, gateway = stage.screen, stage.gateway
    screen.step(5, "Predictions, over gRPC and over REST")
    said = gateway.command("predict", "--model", MODEL, *TEXTS)
    screen.line(said)
    expect("a line an answer", len(said.splitlines()) == len(TEXTS))
    screen.line(f"POST {gateway.http}/v1/models/{MODEL}:predict")
    for text in TEXTS[:2]:
        answer = gateway.rest(f"/v1/models/{MODEL}:predict", {"text": text})
        expect("an answer from version 1", answer["version"] == "1")
        screen.line(f'  {{"text": "{text[:40]}..."}} -> {answer["label"]} {answer["score"]:.3f} (version {answer["version"]})')


def swap(stage: Stage) -> None:
    stage.screen.step(6, f"Version 2 is registered and promoted while {RATE} requests a second go on")
    stage.swap(MODEL, "all", {"rows": "all"}, Traffic(BIN / "load", stage.gateway.grpc, servers.HOME / "texts.txt"))


def refuse(stage: Stage) -> None:
    screen, gateway = stage.screen, stage.gateway
    screen.step(7, "Two worse versions are promoted, and not taken; then a rollback, and forward again")
    for name, code in (("middle", "no_improvement"), ("small", "below_threshold")):
        decision = gateway.decision_on(MODEL, stage.publish(MODEL, name, {"rows": name}))
        expect(f"{name} to be refused as {code}, not {decision}", (decision["outcome"], decision["code"]) == ("refused", code))
    screen.line(gateway.command("history", MODEL))
    expect("version 2 to serve on", gateway.serving(MODEL) == "2")
    for args, version in ((("rollback", MODEL), "1"), (("promote", MODEL, "2"), "2")):
        screen.line(f"modelgate {' '.join(args)}")
        screen.line(gateway.command(*args))
        expect(f"version {version} to serve", gateway.serving(MODEL) == version)
        expect(f"version {version} to answer", gateway.rest(f"/v1/models/{MODEL}:predict", {"text": TEXTS[0]})["version"] == version)
