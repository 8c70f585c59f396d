"""Calls a modelgate server, scores Spark DataFrames with it (modelgate.spark), and publishes models for it (modelgate.publish)."""

from modelgate.client import TLS, Client
from modelgate.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelgateError,
    ModelNotFound,
    NotAllowed,
    Overloaded,
    ServerFault,
    Unavailable,
)
from modelgate.results import ClassScore, Decision, Part, Path, Prediction, Request, Result, Timings

__all__ = [
    "TLS",
    "ClassScore",
    "Client",
    "DeadlineExceeded",
    "Decision",
    "InvalidInput",
    "ModelNotFound",
    "ModelgateError",
    "NotAllowed",
    "Overloaded",
    "Part",
    "Path",
    "Prediction",
    "Request",
    "Result",
    "ServerFault",
    "Timings",
    "Unavailable",
]
