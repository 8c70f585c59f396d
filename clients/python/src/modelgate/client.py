"""Calls a modelgate server."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc

from modelgate import _proto, channel, errors, results, upload
from modelgate.channel import TLS
from modelgate.results import Prediction, Request, Result, Video

_BATCH = _proto.message("modelgate.v1.PredictBatchRequest")
_STREAM = _proto.message("modelgate.v1.PredictStreamRequest")
_GET_MODEL = _proto.message("modelgate.v1.GetModelRequest")


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
        message_bytes: int = 4 << 20,
    ) -> None:
        """Doesn't wait for a connection: a server that isn't there shows in the first call.

        target: host:port, several IP addresses with commas between them, or any target that gRPC knows.
        insecure: allows plain text to other machines; to this machine it is allowed anyway.
        timeout: seconds for a call, all attempts together. Streams have their own.
        window: how many requests of one stream may be without an answer.
        message_bytes: the server's limits.message_bytes. A clip that is too large for that is uploaded by predict.
        """
        if window < 1 or not 1 <= max_attempts <= 5 or timeout <= 0:
            raise ValueError("window must be positive, max_attempts from 1 to 5, timeout positive")
        local = channel.is_local(target)
        if tls is None and not local and not insecure:
            raise ValueError(
                f"{target} is not on this machine and there is no TLS: give tls=, or insecure=True to send everything as plain text"
            )
        options = channel.options(max_attempts, message_bytes, local)
        if tls:
            self._channel = grpc.secure_channel(channel.address(target), tls.credentials(), options)
        else:
            self._channel = grpc.insecure_channel(channel.address(target), options)
        self._target, self._timeout, self._window = target, timeout, window
        self._attempts, self._message_bytes = max_attempts, message_bytes
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
        """Scores one input with the version of the model that serves now.

        A clip that is too large for a message is uploaded in parts; one in a file is read as it is sent.
        """
        doing, request = self._doing(f"predict with {model}"), Request(text, video, id, top_k)
        call = {"timeout": timeout or self._timeout, "metadata": self._metadata}
        if clip := results.large_clip(request, model, self._message_bytes):
            head, rpc = results.header(request, model), self._predictions.UploadPredict
            return results.prediction(upload.send(rpc, head, clip, attempts=self._attempts, doing=doing, **call))
        message = results.message(request, model, self._message_bytes)
        try:
            answer = self._predictions.Predict(message, **call)
        except grpc.RpcError as err:
            raise errors.of_call(err, doing) from err
        return results.prediction(answer)

    def uploads(self, request: Request, *, model: str = "text") -> bool:
        """Whether the clip of a request is too large for a message: predict uploads it, batches and streams don't take it."""
        return results.large_clip(request, model, self._message_bytes) is not None

    def predict_batch(self, inputs: Sequence[Request | str], *, model: str = "text", timeout: float | None = None) -> list[Result]:
        """Scores several inputs. Results come in the order of the inputs; one that failed doesn't fail the others.

        Servers take 256 by default, in one message. An error of the whole call is raised.
        """
        doing = self._doing(f"predict a batch with {model}")
        out: list[Result | None] = [None] * len(inputs)
        batch, places = _BATCH(model=model), []
        for i, request in enumerate(_requests(inputs)):
            try:
                batch.requests.append(results.message(request, model, self._message_bytes))
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
        feed = _Feed(_requests(inputs), model, window or self._window, self._message_bytes)
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

    def __init__(self, requests: Iterator[Request], model: str, window: int, message_bytes: int) -> None:
        self._requests, self._model, self._message_bytes = requests, model, message_bytes
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
                return _STREAM(request=results.message(request, self._model, self._message_bytes))
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
