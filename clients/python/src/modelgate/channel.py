"""How a server is reached."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from modelgate import _proto


@dataclass(frozen=True)
class TLS:
    """How TLS is spoken. Paths of PEM files; without ca the system's roots are trusted; cert and key are for mutual TLS."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        def read(path: str | None) -> bytes | None:
            return Path(path).read_bytes() if path else None

        if bool(self.cert) != bool(self.key):
            raise ValueError("a client certificate needs both cert= and key=")
        return grpc.ssl_channel_credentials(read(self.ca), read(self.key), read(self.cert))


def _hosts(target: str) -> list[str]:
    target = target.removeprefix("dns:///")
    return [part.strip().rpartition(":")[0].strip("[]") for part in target.split(",")]


def is_local(target: str) -> bool:
    if target.startswith("unix:"):
        return True

    def loopback(host: str) -> bool:
        try:
            return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    return all(loopback(host) for host in _hosts(target))


def address(target: str) -> str:
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


def options(max_attempts: int, message_bytes: int, local: bool) -> list[tuple[str, Any]]:
    """Predictions and what only reads are repeated on UNAVAILABLE, and nothing while most calls fail.

    RESOURCE_EXHAUSTED is not: the server has too much to do already. gRPC repeats a stream only until its first answer. Uploads are
    repeated elsewhere.
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
        ("grpc.max_receive_message_length", max(message_bytes, 16 << 20)),
        ("grpc.max_send_message_length", -1),
        # A dead peer is noticed within 40 seconds. Servers refuse pings more often than every 10 seconds.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Nothing on this machine is reached through a proxy.
        *([("grpc.enable_http_proxy", 0)] if local else []),
    ]
