"""The client against a real gateway."""

import itertools
import pathlib
import pickle
import subprocess
import time

import grpc
import pytest

import modelgate
from gateway import ROOT, Gateway, add_version, gateway
from modelgate import Client, Decision, Part, Path, Request, Timings, _proto
from modelgate.results import prediction


def test_predict(client: Client) -> None:
    p = client.predict("worst customer service ever", id="a")
    assert (p.label, p.decision, p.positive_label) == ("negative", Decision.AT_OR_ABOVE_THRESHOLD, "negative")
    assert (p.model, p.version, p.id) == ("text", "1", "a")
    assert (p.path, p.parts, p.reason, len(p.digest)) == (Path.TEXT, (), "", 64) and 0 < p.timings.compute < 10
    assert 0.5 <= p.score <= 1 and p.score == p.classes[0].score and abs(sum(c.score for c in p.classes) - 1) < 1e-6
    assert client.predict(text="thank you, lovely crew").decision is Decision.BELOW_THRESHOLD
    assert len(client.predict("fine", top_k=1).classes) == 1
    assert client.serving() == "1"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"text": ""}, modelgate.InvalidInput, "empty"),
        ({}, modelgate.InvalidInput, "text"),
        ({"text": "x", "model": "nosuch"}, modelgate.ModelNotFound, "nosuch"),
        ({"text": "x" * 70_000}, modelgate.InvalidInput, "65536"),
        ({"text": "\ud800"}, modelgate.InvalidInput, "surrogates"),
        ({"text": b"bytes"}, modelgate.InvalidInput, "bytes"),
        ({"video": "/nosuch/clip.mp4"}, modelgate.InvalidInput, "clip.mp4"),
        # gRPC's clock ticks in milliseconds, in which a short text is answered.
        ({"text": "good film " * 6_000, "timeout": 1e-6}, modelgate.DeadlineExceeded, "timeout="),
    ],
)
def test_an_error_has_the_servers_sentence(client: Client, arguments: dict, error: type, says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        client.predict(**arguments)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), error)


def test_a_server_that_is_not_there() -> None:
    with Client("127.0.0.1:1", timeout=5) as c, pytest.raises(modelgate.Unavailable, match="is the server running"):
        c.predict("x")


def test_a_batch_keeps_its_order_and_its_errors(client: Client) -> None:
    results = client.predict_batch(["worst customer service ever", "", Request("lovely", id="c"), Request("\ud800", id="d")])
    assert [r.error is None for r in results] == [True, False, True, False]
    assert results[0].get().label == "negative" and results[2].id == "c"
    assert isinstance(results[1].error, modelgate.InvalidInput)
    with pytest.raises(modelgate.InvalidInput):
        results[3].get()


def test_a_stream_answers_each_request_once(client: Client) -> None:
    inputs = [Request("" if i % 100 == 7 else "\ud800" if i % 100 == 8 else f"text {i}", id=str(i)) for i in range(2000)]
    results = list(client.predict_stream(iter(inputs)))
    assert sorted(int(r.id) for r in results) == list(range(2000))
    assert {int(r.id) for r in results if r.error} == {i for i in range(2000) if i % 100 in (7, 8)}


def test_a_stream_reads_no_further_than_its_window(client: Client) -> None:
    read = itertools.count()
    endless = (Request("x", id=str(next(read))) for _ in itertools.repeat(None))
    stream = client.predict_stream(endless, window=8)
    for _ in range(20):
        next(stream)
    stream.close()
    assert next(read) <= 20 + 8 + 1


def test_a_producer_that_fails_ends_the_stream_with_its_error(client: Client) -> None:
    def producer() -> object:
        yield "one"
        raise KeyError("the source is gone")

    results = []
    with pytest.raises(KeyError, match="the source is gone"):
        results.extend(client.predict_stream(producer()))


def test_a_stream_over_a_swap(tmp_path: pathlib.Path) -> None:
    add_version(tmp_path / "models", "1")
    with gateway(tmp_path, "--models", str(tmp_path / "models"), "--set", "update_interval=1s") as g, Client(g.grpc) as c:
        g.wait_for("1")

        def producer() -> object:
            for i in itertools.count():
                if i == 500:
                    add_version(tmp_path / "models", "2")
                    g.wait_for("2")
                if i == 1000:
                    return
                yield Request("on time", id=str(i))

        versions = {int(r.id): r.get().version for r in c.predict_stream(producer())}
    assert len(versions) == 1000 and versions[0] == "1" and versions[999] == "2"


def test_the_token_is_sent(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-secret-of-the-test-0123456789\n")
    token.chmod(0o600)
    add_version(tmp_path / "models", "1")
    with gateway(tmp_path, "--models", str(tmp_path / "models"), "--token-file", str(token)) as g:
        with Client(g.grpc) as c, pytest.raises(modelgate.NotAllowed):
            c.predict("x")
        with Client(g.grpc, token=token.read_text()) as c:
            g_ready(c)
            assert c.predict("x").version == "1"


def g_ready(c: Client) -> None:
    """Waits until the model serves, through the client alone."""
    end = time.monotonic() + 60
    while not c.serving():
        assert time.monotonic() < end, "no version serves"
        time.sleep(0.02)


def test_tls(tmp_path: pathlib.Path) -> None:
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    make += " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    add_version(tmp_path / "models", "1")
    files = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    with gateway(tmp_path, "--models", str(tmp_path / "models"), *files) as g:
        with Client(g.grpc, tls=modelgate.TLS(ca=str(tmp_path / "cert.pem"))) as c:
            g_ready(c)
            assert c.predict("x").version == "1"
        with Client(g.grpc, timeout=3) as c, pytest.raises(modelgate.ModelgateError):
            c.predict("x")


@pytest.mark.parametrize("target", ["gateway:8001", "10.0.0.1:8001", "127.0.0.1:1,10.0.0.1:1"])
def test_plain_text_stays_on_this_machine(target: str) -> None:
    with pytest.raises(ValueError, match="insecure=True"):
        Client(target)
    Client(target, insecure=True).close()


def test_addresses_in_a_list_get_calls(served: Gateway) -> None:
    with Client(f"127.0.0.1:1,{served.grpc}") as c:
        assert c.predict("x").version == "1"


GOOD = {"label": "negative", "score": 0.25, "decision": 1, "threshold": 0.5, "model": "text", "version": "1"}
PART = {"model": "text", "version": "3", "digest": "d", "label": "negative", "score": 0.25, "positive_label": "negative", "weight": 0.3}
ANSWER = _proto.message("modelgate.v1.PredictResponse")


@pytest.mark.parametrize(
    "change",
    [
        {"score": float("nan")},
        {"score": 1.5},
        {"decision": 0},
        {"decision": 9},
        {"label": ""},
        {"threshold": -1.0},
        {"classes": [{"label": "negative", "score": float("inf")}]},
        {"parts": [PART, PART | {"score": float("nan")}]},
        {"parts": [PART | {"score": 1.01}]},
        {"parts": [PART | {"weight": -0.1}]},
        {"parts": [PART | {"label": ""}]},
        {"parts": [PART | {"version": ""}]},
        {"path": 4},
    ],
    ids="-".join,
)
def test_what_is_no_verdict_is_an_error(change: dict) -> None:
    with pytest.raises(modelgate.ServerFault, match="no verdict"):
        prediction(ANSWER(**GOOD | change))


def test_an_answer_says_where_it_comes_from() -> None:
    told = {"path": 4, "parts": [PART, PART | {"model": "video", "weight": 0.7}], "reason": "why", "digest": "d"}
    p = prediction(ANSWER(**GOOD | told, timings={"decode_seconds": 0.1, "queue_seconds": 0.2, "compute_seconds": 0.3}))
    assert (p.score, p.path, p.reason, p.digest, p.timings) == (0.25, Path.LATE_SCORE, "why", "d", Timings(0.1, 0.2, 0.3))
    assert p.parts == (Part(**PART), Part(**PART | {"model": "video", "weight": 0.7}))


@pytest.mark.parametrize("path", [0, 99])
def test_a_path_of_another_release_is_unknown(path: int) -> None:
    # As older and newer servers have it on the wire.
    p = prediction(ANSWER.FromString(ANSWER(**GOOD, path=path).SerializeToString()))
    assert (p.path, p.parts, p.score) == (Path.UNKNOWN, (), 0.25)


def test_every_path_and_decision_of_the_api_has_a_name() -> None:
    for ours, field in ((Path, "path"), (Decision, "decision")):
        for value in ANSWER.DESCRIPTOR.fields_by_name[field].enum_type.values[1:]:
            assert ours(value.number).name == value.name.removeprefix(f"{field.upper()}_")


def test_the_descriptors_are_those_of_the_protos(tmp_path: pathlib.Path) -> None:
    fresh = tmp_path / "fresh.binpb"
    subprocess.run([ROOT / "clients/python/generate.sh", fresh], check=True)
    kept = ROOT / "clients/python/src/modelgate/_proto/modelgate.binpb"
    assert fresh.read_bytes() == kept.read_bytes(), "clients/python/src/modelgate/_proto is not what proto/ gives: run make generate"


def test_every_code_has_an_exception() -> None:
    for code in grpc.StatusCode:
        assert len(code.name) <= 20
        if code is not grpc.StatusCode.OK:
            err = modelgate.errors.make(code.name, "why", "predict")
            assert err.code == code.name and "why" in str(err)
