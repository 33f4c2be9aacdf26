"""Clients that speak bytes, for the tests of sessions."""

from collections.abc import Iterator

import pytest
from running import ExternalBroker, RunningBroker
from wire import WireClient


@pytest.fixture
def client(server: RunningBroker | ExternalBroker) -> Iterator[WireClient]:
    """A client with channel 1 open."""
    with WireClient(server.host, server.port) as client:
        client.handshake().open_channel()
        yield client


@pytest.fixture
def newcomer(server: RunningBroker | ExternalBroker) -> Iterator[WireClient]:
    """A client that has said nothing yet."""
    with WireClient(server.host, server.port) as client:
        yield client
