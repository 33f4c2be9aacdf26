"""kill -9 of a real broker under load, again and again, on one data directory.

Each round starts the broker, takes everything out of every queue and compares it with what the
broker promised before, gives some of it back, lets publishers and consumers work for a moment, and
kills the broker in the middle of it: now and then while it starts, now and then by a stop in good
order.

What must hold:

- a confirmed message, or one of a committed transaction, is in each of its queues until this client
  acknowledged it there;
- what was acknowledged before a publish on the same channel whose confirm arrived stays away;
- a message that was delivered before the end of a life is redelivered after it; after a stop in
  good order one that was not delivered is not;
- no message is twice in a queue, and those of one publisher are in their order;
- a message is in both queues of a fan-out, and a transaction is whole, or not at all.

    python tests/crash/kill_loop.py --rounds 200
"""

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from crash.client import Client, Lost
from pamqp import commands

ROOT = Path(__file__).parent.parent.parent

#: A fan-out goes to the first two; the others have no consumers but this client's inspection.
FAN_OUT = ("fan-out-1", "fan-out-2")
QUEUES = (*FAN_OUT, "direct", "transactions", "markers")

#: Small, so that cleaning goes on under load.
SEGMENT_BYTES = 256 * 1024
START_SECONDS_MAX = 30
#: Unconfirmed messages of one publisher.
WINDOW = 200
#: Messages of one transaction.
TRANSACTION = 3

#: A message: who published it, and its number there.
Body = bytes


def publisher_of(body: Body) -> str:
    return body.split(b" ", 2)[0].decode()


def number_of(body: Body) -> int:
    return int(body.split(b" ", 2)[1])


class QueueRecord:
    """What this client knows of one queue."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: the broker promised that they are there
        self.confirmed: set[Body] = set()
        #: this client acknowledged them, or was about to
        self.acked: set[Body] = set()
        #: the broker promised that they are gone
        self.settled: set[Body] = set()
        #: this client saw them, in whatever life
        self.delivered: set[Body] = set()
        #: a life was killed while they were there
        self.in_doubt: set[Body] = set()


class KillLoop:
    """See the module's theory.

    Arguments:
        directory: for the data and the configuration of the broker.
        chance: decides what happens when.
    """

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self._directory = directory
        self._chance = chance
        self._config = directory / "leveret.toml"
        self._config.write_text(f'segment_bytes = {SEGMENT_BYTES}\nlog_level = "error"\n')
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._queues = {name: QueueRecord(name) for name in QUEUES}
        self._published = Counter[str]()
        self._killed = False
        self._round = 0
        #: what did not hold, as sentences
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.start_seconds_max = 0.0

    async def run(self, rounds: int) -> None:
        """Live and die so many times, then look once more."""
        await self._start()
        await self._declare()
        for self._round in range(1, rounds + 1):
            await self._load()
            await self._start()
            if not self._killed and self._chance.random() < 0.5:
                await self._glance()
                await self._start()
            await self._inspect()
        await self._end(signal.SIGTERM)

    # Lives.

    async def _spawn(self) -> asyncio.subprocess.Process:
        data = str(self._directory / "data")
        arguments = ("--port", "0", "--config", str(self._config), "--data-dir", data)
        with (self._directory / "broker.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "broker", "serve", *arguments),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def _start(self) -> None:
        """Begin a life, maybe after one that ended while it began."""
        while self._chance.random() < 0.15:
            process = await self._spawn()
            await asyncio.sleep(self._chance.uniform(0.1, 0.4))
            process.kill()
            await process.communicate()
            self._killed = True
            self.counts["killed while starting"] += 1
        begin = time.perf_counter()
        self._process = await self._spawn()
        assert self._process.stdout is not None
        ready = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS_MAX)
        assert b"ready on " in ready, f"the broker did not start: {ready!r}"
        self._port = int(ready.partition(b"ready on ")[2].split(b",")[0].rpartition(b":")[2])
        self.start_seconds_max = max(self.start_seconds_max, time.perf_counter() - begin)

    async def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        await self._process.communicate()
        self._killed = how is signal.SIGKILL
        self.counts["killed" if self._killed else "stopped"] += 1

    async def _declare(self) -> None:
        client = await self._connect()
        for name in QUEUES:
            await client.request(
                commands.Queue.Declare(queue=name, durable=True), commands.Queue.DeclareOk
            )
        for name in FAN_OUT:
            await client.request(
                commands.Queue.Bind(queue=name, exchange="amq.fanout"), commands.Queue.BindOk
            )
        client.drop()

    async def _connect(self) -> Client:
        return await Client.connect(self._port, lambda *_: None, lambda _: None)

    # Load.

    async def _load(self) -> None:
        """Clients at work, and the end of the broker among them."""
        workers = [
            asyncio.ensure_future(work)
            for work in (
                self._publish("amq.fanout", "", FAN_OUT),
                self._publish("", "direct", ("direct",)),
                self._transact(),
                *(self._consume(self._queues[name]) for name in FAN_OUT),
            )
        ]
        await asyncio.sleep(self._chance.uniform(0.02, 0.5))
        await self._end(signal.SIGKILL if self._chance.random() < 0.9 else signal.SIGTERM)
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if outcome is not None and not isinstance(outcome, Lost):
                raise outcome

    def _body(self, publisher: str) -> Body:
        self._published[publisher] += 1
        padding = self._chance.randrange(2000) if self._chance.random() < 0.3 else 10
        head = f"{publisher} {self._published[publisher]} "
        return head.encode() + bytes(padding)

    async def _publish(self, exchange: str, routing_key: str, names: tuple[str, ...]) -> None:
        """Publish as fast as confirms come."""

        def confirmed(body: Body) -> None:
            self.counts["confirmed"] += 1
            for name in names:
                self._queues[name].confirmed.add(body)

        client = await Client.connect(self._port, lambda *_: None, confirmed)
        while True:
            for _ in range(self._chance.randrange(1, 40)):
                client.publish(exchange, routing_key, self._body(names[0]))
            await client.confirmed(self._chance.randrange(WINDOW))
            await asyncio.sleep(0)

    async def _transact(self) -> None:
        """Transactions of a few messages, some of them rolled back."""
        client = await Client.connect(self._port, lambda *_: None, lambda _: None, confirms=False)
        await client.request(commands.Tx.Select(), commands.Tx.SelectOk)
        record = self._queues["transactions"]
        while True:
            bodies = [self._body("transactions") for _ in range(TRANSACTION)]
            for body in bodies:
                client.publish("", "transactions", body)
            client.unconfirmed.clear()
            if self._chance.random() < 0.8:
                await client.request(commands.Tx.Commit(), commands.Tx.CommitOk)
                self.counts["committed"] += 1
                record.confirmed.update(bodies)
            else:
                await client.request(commands.Tx.Rollback(), commands.Tx.RollbackOk)
                record.settled.update(bodies)

    async def _consume(self, record: QueueRecord) -> None:
        """Acknowledge most of what comes; a marker now and then tells that the acks are safe."""
        marked: dict[Body, list[Body]] = {}
        acked: list[Body] = []
        markers = self._queues["markers"]

        def delivered(tag: int, redelivered: bool, body: Body) -> None:
            self._check_delivery(record, redelivered, body)
            if self._chance.random() < 0.8:
                record.acked.add(body)
                acked.append(body)
                client.ack(tag)
            if self._chance.random() < 0.05:
                marker = self._body(f"markers-of-{record.name}")
                marked[marker] = acked.copy()
                acked.clear()
                client.publish("", "markers", marker)

        def confirmed(marker: Body) -> None:
            markers.confirmed.add(marker)
            bodies = marked.pop(marker)
            record.settled.update(bodies)
            self.counts["settled for sure"] += len(bodies)

        client = await Client.connect(self._port, delivered, confirmed)
        await client.request(
            commands.Basic.Qos(prefetch_count=self._chance.choice((1, 50, 500))),
            commands.Basic.QosOk,
        )
        await client.request(commands.Basic.Consume(queue=record.name), commands.Basic.ConsumeOk)
        await client.lost.wait()

    async def _glance(self) -> None:
        """A life in which messages are delivered and nothing else happens."""
        for name in FAN_OUT:
            record = self._queues[name]

            def delivered(
                tag: int, redelivered: bool, body: Body, record: QueueRecord = record
            ) -> None:
                self._check_delivery(record, redelivered, body)

            client = await Client.connect(self._port, delivered, lambda _: None)
            consumer = commands.Basic.Consume(queue=record.name, consumer_tag="glance")
            await client.request(consumer, commands.Basic.ConsumeOk)
            await client.request(commands.Basic.Cancel("glance"), commands.Basic.CancelOk)
            client.drop()
        await self._end(signal.SIGKILL)
        self.counts["killed after deliveries alone"] += 1

    def _check_delivery(self, record: QueueRecord, redelivered: bool, body: Body) -> None:
        self.counts["delivered"] += 1
        if body in record.settled:
            self._violated("came back", record, [body])
        if body in record.delivered and not redelivered:
            self._violated("was delivered before and is not marked", record, [body])
        record.delivered.add(body)

    def _violated(self, what: str, record: QueueRecord, bodies: Iterable[Body]) -> None:
        names = sorted(f"{publisher_of(body)} {number_of(body)}" for body in bodies)
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        self.violations.append(f"round {self._round}, queue {record.name}: {shown} {what}")

    # Inspection.

    async def _inspect(self) -> None:
        """Take everything out of every queue, compare, and settle most of it for sure."""
        present = {name: await self._inspect_queue(record) for name, record in self._queues.items()}
        first, second = (self._queues[name] for name in FAN_OUT)
        for one, other in ((first, second), (second, first)):
            missing = present[one.name] - present[other.name] - other.acked
            if missing:
                self._violated("went to the other queue only", other, missing)
        transactions = self._queues["transactions"]
        there = present["transactions"] | transactions.acked
        whole = Counter((number_of(body) - 1) // TRANSACTION for body in there)
        torn = [
            body for body in there if whole[(number_of(body) - 1) // TRANSACTION] != TRANSACTION
        ]
        if torn:
            self._violated("came without the rest of the transaction", transactions, torn)

    async def _inspect_queue(self, record: QueueRecord) -> set[Body]:
        """Look at one queue; returns what was in it."""
        found: list[tuple[int, bool, Body]] = []
        complete = asyncio.Event()
        waiting = 1 << 60

        def delivered(tag: int, redelivered: bool, body: Body) -> None:
            found.append((tag, redelivered, body))
            if len(found) >= waiting:
                complete.set()

        client = await Client.connect(self._port, delivered, lambda _: None)
        declared = await client.request(
            commands.Queue.Declare(queue=record.name, passive=True), commands.Queue.DeclareOk
        )
        waiting = declared.message_count or 0
        if waiting:
            consumer = commands.Basic.Consume(queue=record.name, consumer_tag="inspection")
            await client.request(consumer, commands.Basic.ConsumeOk)
            try:
                await asyncio.wait_for(complete.wait(), START_SECONDS_MAX)
            except TimeoutError:
                self.violations.append(f"only {len(found)} of {waiting} in {record.name} came")
            await client.request(commands.Basic.Cancel("inspection"), commands.Basic.CancelOk)
        bodies = self._check_queue(record, found)
        left: set[Body] = set()
        for tag, _, body in found:
            if self._chance.random() < 0.9:
                record.acked.add(body)
                client.ack(tag)
            else:
                left.add(body)
        client.publish("", "markers", self._body("markers-of-inspection"))
        await client.confirmed()
        record.settled |= bodies - left
        record.confirmed -= record.settled
        client.drop()
        return bodies

    def _check_queue(self, record: QueueRecord, found: list[tuple[int, bool, Body]]) -> set[Body]:
        bodies = {body for _, _, body in found}
        if len(bodies) < len(found):
            twice = Counter(body for _, _, body in found)
            self._violated("is there twice", record, [b for b, count in twice.items() if count > 1])
        lost = record.confirmed - bodies - record.acked
        if lost:
            self._violated("was confirmed and is lost", record, lost)
        last: dict[str, int] = {}
        for _, redelivered, body in found:
            publisher, number = publisher_of(body), number_of(body)
            if number < last.get(publisher, 0):
                self._violated("is out of order", record, [body])
            last[publisher] = number
            if self._killed:
                record.in_doubt.add(body)
            known = body in record.delivered or body in record.in_doubt
            self._check_delivery(record, redelivered, body)
            if redelivered and not known and record.name not in FAN_OUT:
                self._violated("was never delivered and is marked", record, [body])
        return bodies

    # The end.

    def report(self) -> str:
        """What happened, line by line."""
        counts = [f"{count} {what}" for what, count in sorted(self.counts.items())]
        return "\n".join(
            [
                f"{self._round} rounds: {', '.join(counts)}",
                f"slowest start {self.start_seconds_max:.2f} s",
                *self.violations,
                f"{len(self.violations)} violations",
            ]
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a broker under load, again and again.")
    parser.add_argument("--rounds", type=int, default=20, help="how often it is killed")
    parser.add_argument("--seed", type=int, default=None, help="of the choices of the clients")
    parser.add_argument("--directory", type=Path, help="for the data; a temporary one if not given")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary)
        loop = KillLoop(directory, random.Random(arguments.seed))
        asyncio.run(loop.run(arguments.rounds))
    sys.stdout.write(loop.report() + "\n")
    return 1 if loop.violations else 0


if __name__ == "__main__":
    sys.exit(main())
