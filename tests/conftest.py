"""Fixtures shared by every test: a real broker on a port of its own."""

import os
from collections.abc import Iterator

import pytest
from running import ExternalBroker, RunningBroker, running_broker

__all__ = ["ExternalBroker", "RunningBroker", "running_broker"]


@pytest.fixture
def server() -> Iterator[RunningBroker | ExternalBroker]:
    """A fresh broker; LEVERET_TEST_PORT runs the same tests against another one."""
    port = os.environ.get("LEVERET_TEST_PORT")
    if port:
        yield ExternalBroker(int(port))
    else:
        with running_broker() as broker:
            yield broker
