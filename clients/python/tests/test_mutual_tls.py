"""Mutual TLS: the gateway and the client show each other certificates."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelgate
from gateway import Gateway, add_version, gateway
from modelgate import TLS, Client


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.cert, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        self._openssl("-x509", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.cert)

    def sign(self, name: str, *extensions: str) -> dict[str, str]:
        """A certificate and its key, as TLS takes them."""
        cert, key = self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key"
        options = [option for e in extensions for option in ("-addext", e)]
        self._openssl("-x509", "-CA", self.cert, "-CAkey", self._key, "-subj", f"/CN={name}", *options, "-keyout", key, "-out", cert)
        return {"cert": str(cert), "key": str(key)}

    def _openssl(self, *arguments: object) -> None:
        make = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        done = subprocess.run([*make, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "ours")


@pytest.fixture(scope="module")
def strict(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that wants a certificate from each caller."""
    folder = tmp_path_factory.mktemp("strict")
    add_version(folder / "models", "1")
    shown = ours.sign("gateway", "subjectAltName=IP:127.0.0.1", "extendedKeyUsage=serverAuth", "basicConstraints=critical,CA:FALSE")
    files = ["--tls-cert", shown["cert"], "--tls-key", shown["key"], "--set", f"tls.client_ca={ours.cert}"]
    with gateway(folder, "--models", str(folder / "models"), *files) as g:
        yield g


def test_a_client_with_the_right_certificate_is_answered(strict: Gateway, ours: Authority) -> None:
    mine = ours.sign("caller", "extendedKeyUsage=clientAuth", "basicConstraints=critical,CA:FALSE")
    with Client(strict.grpc, tls=TLS(ca=str(ours.cert), **mine)) as c:
        strict.wait("a prediction", lambda: c.serving() == "1")
        assert c.predict("worst customer service ever").version == "1"


@pytest.mark.parametrize("shows", ["none", "one of another authority", "one for servers"])
def test_a_client_without_the_right_certificate_is_told(strict: Gateway, ours: Authority, tmp_path: Path, shows: str) -> None:
    mine = {}
    if shows == "one of another authority":
        mine = Authority(tmp_path, "theirs").sign("caller", "extendedKeyUsage=clientAuth")
    elif shows == "one for servers":
        mine = ours.sign("server", "extendedKeyUsage=serverAuth")
    refused(Client(strict.grpc, tls=TLS(ca=str(ours.cert), **mine)), "does it want a client certificate, cert= and key=")


def test_a_server_that_is_not_trusted_is_told(strict: Gateway, tmp_path: Path) -> None:
    refused(Client(strict.grpc, tls=TLS(ca=str(Authority(tmp_path, "theirs").cert))), "none that ca= trusts")


def test_tls_to_a_server_without_it(served: Gateway, ours: Authority) -> None:
    refused(Client(served.grpc, tls=TLS(ca=str(ours.cert))), "plain text")


def refused(client: Client, says: str) -> None:
    with client, pytest.raises(modelgate.Unavailable) as caught:
        client.predict("x")
    assert says in str(caught.value)


def test_a_certificate_without_its_key_is_refused(ours: Authority) -> None:
    with pytest.raises(ValueError, match="key="):
        Client(tls=TLS(ca=str(ours.cert), cert=str(ours.cert)))
