"""What the tests share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# Spark's workers run this Python, and its driver listens on this machine only.
os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}

from gateway import Gateway, add_version, gateway
from modelgate import Client


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that serves version 1 of the text model."""
    folder = tmp_path_factory.mktemp("served")
    add_version(folder / "models", "1")
    with gateway(folder, "--models", str(folder / "models")) as g:
        g.wait_for("1")
        yield g


@pytest.fixture
def client(served: Gateway) -> Iterator[Client]:
    with Client(served.grpc) as c:
        yield c
