"""What can go wrong in a call, as exceptions. Each holds the server's sentence and says what the caller can do."""

from __future__ import annotations

from typing import Any

import grpc

from modelgate import _proto

_STATUS = _proto.message("google.rpc.Status")
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ModelgateError(Exception):
    """A call that has no answer. An error is never a low score: there is no prediction to misread.

    code is gRPC's ("INVALID_ARGUMENT"), message the sentence of the server.
    """

    def __init__(self, code: str, message: str, doing: str = "") -> None:
        super().__init__(f"{doing}: {code}: {message}{_advice(code, message)}" if doing else f"{code}: {message}")
        self.code = code
        self.message = message
        self.doing = doing

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.doing)

    @property
    def temporary(self) -> bool:
        """Whether the same call may succeed later."""
        return self.code in _TEMPORARY


class InvalidInput(ModelgateError):
    """The input is not one that the model takes. The same input fails again."""


class ModelNotFound(ModelgateError):
    """No model or version has this name."""


class Unavailable(ModelgateError):
    """No healthy server answered, or the model has no version yet."""


class Overloaded(ModelgateError):
    """The server has too much to do, or a message is larger than its limit."""


class DeadlineExceeded(ModelgateError):
    """The time for the call ran out."""


class NotAllowed(ModelgateError):
    """The token is missing, unknown or not enough."""


class ServerFault(ModelgateError):
    """The server or the version that serves could not answer."""


_TEMPORARY = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED"})
_CLASSES: dict[str, type[ModelgateError]] = {
    "INVALID_ARGUMENT": InvalidInput,
    "OUT_OF_RANGE": InvalidInput,
    "NOT_FOUND": ModelNotFound,
    "UNAVAILABLE": Unavailable,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAUTHENTICATED": NotAllowed,
    "PERMISSION_DENIED": NotAllowed,
    "INTERNAL": ServerFault,
    "UNKNOWN": ServerFault,
    "DATA_LOSS": ServerFault,
}
_ADVICE = {
    "UNAVAILABLE": " (is the server running, does it speak TLS as this client does or doesn't, and does it serve a model yet?)",
    "DEADLINE_EXCEEDED": " (allow more time with timeout=)",
    "RESOURCE_EXHAUSTED": " (send fewer requests at once, or smaller ones)",
    "UNAUTHENTICATED": " (check token=)",
}
# What gRPC says of a connection that TLS ended.
_TLS_ADVICE = {
    "Unwrap failed": " (the server broke off TLS: does it want a client certificate, cert= and key=, that its tls.client_ca has signed?)",
    "CERTIFICATE_VERIFY_FAILED": " (the server's certificate is none that ca= trusts, or has expired, or is for another name)",
    "WRONG_VERSION_NUMBER": " (the server speaks plain text)",
}


def _advice(code: str, message: str) -> str:
    found = (advice for said, advice in _TLS_ADVICE.items() if code == "UNAVAILABLE" and said in message)
    return next(found, _ADVICE.get(code, ""))


def make(code: str, message: str, doing: str = "") -> ModelgateError:
    """The exception of a code."""
    return _CLASSES.get(code, ModelgateError)(code, message, doing)


def of_call(err: grpc.RpcError, doing: str) -> ModelgateError:
    """The exception of a failed call."""
    code = err.code() if isinstance(err, grpc.Call) else None
    if code is None or code is grpc.StatusCode.OK:
        return make("UNKNOWN", str(err), doing)
    return make(code.name, err.details() or "the server gave no reason", doing)


def of_status(status: Any, doing: str) -> ModelgateError:
    """The exception of a google.rpc.Status inside of an answer."""
    code = _CODES.get(status.code)
    if code is None or code is grpc.StatusCode.OK:
        return make("INTERNAL", f"the server sent an error with the code {status.code}", doing)
    return make(code.name, status.message, doing)
