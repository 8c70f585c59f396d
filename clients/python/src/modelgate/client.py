"""Calls a modelgate server."""

from __future__ import annotations

import collections
import ipaddress
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from modelgate import _proto, errors, results
from modelgate.results import Prediction, Request, Result, Video

_BATCH = _proto.message("modelgate.v1.PredictBatchRequest")
_STREAM = _proto.message("modelgate.v1.PredictStreamRequest")
_GET_MODEL = _proto.message("modelgate.v1.GetModelRequest")


@dataclass(frozen=True)
class TLS:
    """How TLS is spoken. Paths of PEM files; without ca the system's roots are trusted; cert and key are for mutual TLS."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        def read(path: str | None) -> bytes | None:
            return Path(path).read_bytes() if path else None

        return grpc.ssl_channel_credentials(read(self.ca), read(self.key), read(self.cert))


class Client:
    """A connection to one or more servers. All methods may be called from several threads at once.

    Calls that are safe to repeat are repeated when a server is unavailable: predictions change nothing. A call that fails raises a
    ModelgateError. Close the client after use, or use it in a with statement.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8001",
        *,
        token: str | None = None,
        tls: TLS | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        max_attempts: int = 4,
        window: int = 64,
        message_bytes: int = 16 << 20,
    ) -> None:
        """Doesn't wait for a connection: a server that isn't there shows in the first call.

        target: host:port, several IP addresses with commas between them, or any target that gRPC knows.
        insecure: allows plain text to other machines; to this machine it is allowed anyway.
        timeout: seconds for a call, all attempts together. Streams have their own.
        window: how many requests of one stream may be without an answer.
        """
        if window < 1 or not 1 <= max_attempts <= 5 or timeout <= 0:
            raise ValueError("window must be positive, max_attempts from 1 to 5, timeout positive")
        local = _is_local(target)
        if tls is None and not local and not insecure:
            raise ValueError(
                f"{target} is not on this machine and there is no TLS: give tls=, or insecure=True to send everything as plain text"
            )
        options = _options(max_attempts, message_bytes, local)
        if tls:
            self._channel = grpc.secure_channel(_target(target), tls.credentials(), options)
        else:
            self._channel = grpc.insecure_channel(_target(target), options)
        self._target, self._timeout, self._window = target, timeout, window
        self._metadata = [("authorization", f"Bearer {token.strip()}")] if token else None
        self._predictions: Any = _proto.Stub(self._channel, _proto.PREDICTION_SERVICE)
        self._models: Any = _proto.Stub(self._channel, _proto.MODEL_SERVICE)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections and the calls in progress."""
        self._channel.close()

    def predict(
        self,
        text: str | None = None,
        video: Video | None = None,
        *,
        model: str = "text",
        id: str = "",
        top_k: int = 0,
        timeout: float | None = None,
    ) -> Prediction:
        """Scores one input with the version of the model that serves now."""
        doing = self._doing(f"predict with {model}")
        request = results.message(Request(text, video, id, top_k), model)
        try:
            answer = self._predictions.Predict(request, timeout=timeout or self._timeout, metadata=self._metadata)
        except grpc.RpcError as err:
            raise errors.of_call(err, doing) from err
        return results.prediction(answer)

    def predict_batch(self, inputs: Sequence[Request | str], *, model: str = "text", timeout: float | None = None) -> list[Result]:
        """Scores several inputs. Results come in the order of the inputs; one that failed doesn't fail the others.

        Servers take 256 by default. An error of the whole call is raised.
        """
        doing = self._doing(f"predict a batch with {model}")
        out: list[Result | None] = [None] * len(inputs)
        batch, places = _BATCH(model=model), []
        for i, request in enumerate(_requests(inputs)):
            try:
                batch.requests.append(results.message(request, model))
                places.append(i)
            except errors.ModelgateError as err:
                out[i] = Result(request.id, error=err)
        if places:
            try:
                answer = self._predictions.PredictBatch(batch, timeout=timeout or self._timeout, metadata=self._metadata)
            except grpc.RpcError as err:
                raise errors.of_call(err, doing) from err
            if len(answer.responses) != len(places):
                raise errors.make("INTERNAL", f"the server gave {len(answer.responses)} answers to {len(places)} requests", doing)
            for i, item in zip(places, answer.responses, strict=True):
                out[i] = results.result(item, doing)
        return [r for r in out if r is not None]

    def predict_stream(
        self, inputs: Iterable[Request | str], *, model: str = "text", window: int | None = None, timeout: float | None = None
    ) -> Iterator[Result]:
        """Scores inputs as they come and yields results as they are ready, not in order: match them by id.

        At most window inputs are without an answer; then no more are read until an answer comes, so that a slow server or a slow
        caller slows the producer down. inputs is read in another thread. A stream that breaks off raises a ModelgateError after the
        results that it had; what has no result by then may be sent again. timeout bounds the whole stream; without it there is no
        bound.
        """
        doing = self._doing(f"predict a stream with {model}")
        feed = _Feed(_requests(inputs), model, window or self._window)
        call = self._predictions.PredictStream(feed, timeout=timeout, metadata=self._metadata)
        try:
            for item in call:
                feed.answered()
                yield results.result(item, doing)
                yield from feed.refused()
            yield from feed.refused()
        except grpc.RpcError as err:
            yield from feed.refused()
            raise feed.error or errors.of_call(err, doing) from err
        finally:
            feed.end()
            call.cancel()
        if feed.error:
            raise feed.error

    def serving(self, model: str = "text", *, timeout: float | None = None) -> str:
        """The version that serves now, or an empty string."""
        try:
            answer = self._models.GetModel(_GET_MODEL(model=model), timeout=timeout or self._timeout, metadata=self._metadata)
        except grpc.RpcError as err:
            raise errors.of_call(err, self._doing(f"ask for {model}")) from err
        return answer.model.active.version

    def _doing(self, what: str) -> str:
        return f"{what} at {self._target}"


class _Feed:
    """The requests of a stream, as gRPC's own thread reads them."""

    def __init__(self, requests: Iterator[Request], model: str, window: int) -> None:
        self._requests, self._model = requests, model
        self._places = threading.Semaphore(window)
        self._ended = threading.Event()
        self._refused: collections.deque[Result] = collections.deque()
        self.error: BaseException | None = None

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> Any:
        while True:
            self._places.acquire()
            if self._ended.is_set():
                raise StopIteration
            try:
                request = next(self._requests)
            except StopIteration:
                raise
            except BaseException as err:
                # gRPC would only log it; the caller of predict_stream is told.
                self.error = err
                raise StopIteration from err
            try:
                return _STREAM(request=results.message(request, self._model))
            except errors.ModelgateError as err:
                self._refused.append(Result(request.id, error=err))
                self._places.release()

    def answered(self) -> None:
        self._places.release()

    def refused(self) -> Iterator[Result]:
        """What could not be sent."""
        while self._refused:
            yield self._refused.popleft()

    def end(self) -> None:
        """Lets the thread go that may wait for a place."""
        self._ended.set()
        self._places.release()


def _requests(inputs: Iterable[Request | str]) -> Iterator[Request]:
    return (i if isinstance(i, Request) else Request(text=i) for i in inputs)


def _hosts(target: str) -> list[str]:
    target = target.removeprefix("dns:///")
    return [part.strip().rpartition(":")[0].strip("[]") for part in target.split(",")]


def _is_local(target: str) -> bool:
    if target.startswith("unix:"):
        return True

    def loopback(host: str) -> bool:
        try:
            return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    return all(loopback(host) for host in _hosts(target))


def _target(target: str) -> str:
    """The target as gRPC wants it: a list of addresses has a scheme of its own."""
    if "," not in target:
        return target
    try:
        versions = {ipaddress.ip_address(host).version for host in _hosts(target)}
    except ValueError:
        versions = set()
    if len(versions) != 1:
        raise ValueError(f"{target}: a list must hold IP addresses with ports, all IPv4 or all IPv6; give names one by one")
    return f"ipv{versions.pop()}:" + ",".join(part.strip() for part in target.split(","))


def _options(max_attempts: int, message_bytes: int, local: bool) -> list[tuple[str, Any]]:
    """Predictions and what only reads are repeated on UNAVAILABLE, and nothing while most calls fail.

    RESOURCE_EXHAUSTED is not: the server has too much to do already. gRPC repeats a stream only until its first answer.
    """
    repeatable = [
        *({"service": _proto.PREDICTION_SERVICE, "method": m} for m in ("Predict", "PredictBatch", "PredictStream")),
        {"service": _proto.MODEL_SERVICE, "method": "GetModel"},
    ]
    method: dict[str, Any] = {"name": repeatable}
    if max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": max_attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [method],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
    }
    return [
        ("grpc.service_config", json.dumps(config)),
        # A DNS record must not change what is repeated.
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", -1),
        # A dead peer is noticed within 40 seconds. Servers refuse pings more often than every 10 seconds.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Nothing on this machine is reached through a proxy.
        *([("grpc.enable_http_proxy", 0)] if local else []),
    ]
