"""Fixtures for the tests of LogStore."""

from collections.abc import Iterator

import pytest
from store.engine_double import Disk
from store.log_support import Log, life


@pytest.fixture
def log() -> Iterator[Log]:
    """A store on an empty disk of large segments, with queues 1 and 2."""
    with life(Disk()) as log:
        log.declare(1, 2)
        log.loop.settle()
        yield log


@pytest.fixture
def head() -> Iterator[Log]:
    """A store whose first segment is full of what the test puts there."""
    with life(Disk(600)) as log:
        log.declare(1, 2, 9)
        yield log
