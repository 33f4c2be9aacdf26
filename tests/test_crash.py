"""A short version of `tests/crash/kill_loop.py`, whose long one is run by hand."""

import random
from pathlib import Path

from crash.kill_loop import KillLoop


async def test_nothing_promised_is_lost_by_kill_9(tmp_path: Path) -> None:
    """What was confirmed is there, what was settled is gone, what was delivered is marked."""
    loop = KillLoop(tmp_path, random.Random())
    await loop.run(rounds=5)

    assert loop.violations == [], loop.report()
    # A round may end one more life, in which there were deliveries alone.
    assert loop.counts["killed"] + loop.counts["stopped"] >= 6
    assert loop.counts["confirmed"] > 0
