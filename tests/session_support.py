"""Sessions without sockets: a node, a clock turned by hand, and clients that are function calls.

`World` is a broker without its loop: it runs the turns that `broker.broker.Broker` runs, when the
test says so. `Session` is a client of it: it speaks the bytes of `wire.WireClient` straight into a
`Connection` and reads back what the connection gave its wire. Whatever happens has happened when
the call returns, so `expect_nothing` can be asserted too.
"""

from typing import Any, Final

from wire import Frame, WireClient
from wire_methods import Method, frame

from broker.amqp.connection import Connection
from broker.amqp.limits import Limits
from broker.amqp.peer import Announcement, Peer, Wire
from broker.auth import Authenticator, Users
from broker.core.clock import ManualClock
from broker.core.ids import Ids
from broker.core.node import Node
from broker.core.queue import Queue
from broker.core.store import Store
from broker.core.turn import Budget, Turn
from broker.core.vhost import VirtualHost
from broker.store.memory import MemoryStore

#: More turns, or timers, than any test needs: a node that wants more will never be quiet.
TURNS_MAX: Final = 10_000

PEER: Final = Peer("127.0.0.1:50000 -> 127.0.0.1:5672", "127.0.0.1", 50000, is_loopback=True)

ANNOUNCEMENT: Final = Announcement(
    product="RabbitMQ",
    version="3.13.7",
    platform="tests",
    cluster_name="rabbit@test",
    copyright="",
    information="",
)


class CountingBytes:
    """A source of bytes for `Ids` that gives no two alike and the same in every run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(size, "big")


class FakeWire(Wire):
    """Takes what a session sends; while it is `stalled`, as a socket whose peer does not read."""

    def __init__(self) -> None:
        self.session: Connection
        #: what the peer has been given
        self.received = bytearray()
        #: what it has not, because the wire is stalled
        self.backlog = bytearray()
        self.stalled = False
        #: the session is finished and all of its output is out
        self.closed = False
        #: how often it was told to flush, and what each flush took
        self.flushes: list[bytes] = []

    def flush(self) -> None:
        octets = b"".join(self.session.output.take())
        self.flushes.append(octets)
        self.backlog += octets
        if not self.stalled:
            self._pass_on()
        if octets:
            self.session.flushed(len(octets), len(self.backlog))
        self._close_if_finished()

    def drain(self) -> None:
        """The peer reads all that waits, and goes on reading."""
        self.stalled = False
        self._pass_on()
        self.session.flushed(0, 0)
        self._close_if_finished()

    def _pass_on(self) -> None:
        self.received += self.backlog
        self.backlog.clear()

    def _close_if_finished(self) -> None:
        if self.session.finished and not self.backlog:
            self.closed = True


class World:
    """A node and its clients in one thread, with nothing happening by itself.

    Arguments:
        store: a `MemoryStore` unless given.
        authenticator: knows guest with password guest unless given.
        budget: what one turn may deliver, in messages and octets.
        limits: those of `Limits` that differ from the defaults.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        authenticator: Authenticator | None = None,
        budget: tuple[int, int] = (1000, 4 << 20),
        **limits: int,
    ) -> None:
        self.clock = ManualClock()
        self.store = store if store is not None else MemoryStore()
        self.store.on_durable = self._store_advanced
        self.turn = Turn(self._wake)
        self.awake = False
        self.turns = 0
        self.budget = budget
        self.limits = Limits(**limits)
        ids = Ids(CountingBytes())
        self.node = Node("rabbit@test", self.clock, ids, self.store, self.turn)
        self.vhost: VirtualHost = self.node.add_vhost("/")
        if authenticator is None:
            authenticator = users = Users(ids, ())
            users.add("guest", b"guest", ("administrator",))
        self.authenticator = authenticator
        self.sessions: list[Session] = []

    def _wake(self) -> None:
        self.awake = True

    def _store_advanced(self) -> None:
        self.turn.store_advanced()

    def accept(self, peer: Peer = PEER) -> "Session":
        """A client that has said nothing yet."""
        session = Session(self, peer)
        self.sessions.append(session)
        return session

    def connect(self, *channels: int, **agreed: Any) -> "Session":
        """A client that has opened its connection, and these channels.

        Arguments:
            agreed: what `WireClient.handshake` takes.
        """
        session = self.accept()
        session.handshake(**agreed)
        for channel in channels:
            session.open_channel(channel)
        return session

    def queue(self, name: str) -> Queue:
        """A queue by name."""
        return self.vhost.queues[name]

    def run_turn(self) -> None:
        """What the broker does when the loop comes round, be there anything to do or not."""
        self.awake = False
        self.turns += 1
        turn = self.turn
        turn.begin()
        for _ in range(len(turn.inputs)):
            turn.inputs.popleft().resume_input()
        turn.dispatch(Budget(*self.budget))
        if turn.remains:
            turn.drop_remains(1000)
        turn.record_settled()
        outputs, turn.outputs = turn.outputs, []
        for session in outputs:
            session.end_turn()

    def run_turns(self) -> int:
        """Run turns until nothing asks for one; returns how many it took."""
        count = 0
        while self.awake:
            self.run_turn()
            count += 1
            assert count < TURNS_MAX, "the node is never quiet"
        return count

    def advance(self, milliseconds: int) -> None:
        """Let time pass, with every timer firing when it is due."""
        end_ms = self.clock.now_ms() + milliseconds
        for _ in range(TURNS_MAX):
            self.run_turns()
            deadlines = [session.connection.deadline_ms for session in self.sessions]
            due_ms = min((each for each in deadlines if each), default=end_ms + 1)
            if due_ms > end_ms:
                self.clock.advance(end_ms - self.clock.now_ms())
                return
            self.clock.advance(max(0, due_ms - self.clock.now_ms()))
            self.expire()
        raise AssertionError("a deadline comes back at once, for ever")

    def expire(self) -> None:
        """Fire the timers that are due now, as late as they may be."""
        for session in self.sessions:
            deadline_ms = session.connection.deadline_ms
            if deadline_ms and self.clock.now_ms() >= deadline_ms:
                session.connection.expire()
        self.run_turns()


class Session(WireClient):
    """A client of a `World`: `WireClient` with function calls for a socket."""

    def __init__(self, world: World, peer: Peer = PEER) -> None:
        # Not that of WireClient, which would connect.
        self.timeout = 1.0
        self.channel_max = 0
        self.frame_max = 0
        self.heartbeat = 0
        self._buffer = b""
        self.world = world
        self.wire = FakeWire()
        self.connection = Connection(
            world.node, self.wire, peer, world.limits, world.authenticator, ANNOUNCEMENT
        )
        self.wire.session = self.connection
        #: run turns after everything that is sent, as a loop with nothing else to do would
        self.runs_turns = True

    def send(self, octets: bytes) -> None:
        """Hand bytes to the connection, as one read of its socket."""
        self.connection.receive_data(octets)
        if self.runs_turns:
            self.world.run_turns()

    def send_methods(self, channel: int, *methods: Method) -> None:
        """Several method frames in one read."""
        self.send(b"".join(frame(1, channel, method.payload) for method in methods))

    def hang_up(self) -> None:
        """The socket is gone."""
        self.connection.lost()
        self.world.run_turns()

    def disconnect(self) -> None:
        self.hang_up()

    def _receive(self, deadline: float) -> bytes:
        received = bytes(self.wire.received)
        self.wire.received.clear()
        if not received and not self.wire.closed:
            raise AssertionError("nothing was sent")
        return received

    @property
    def unread(self) -> bytes:
        """What was sent and not read by the test."""
        return self._buffer + bytes(self.wire.received)

    def ended(self) -> bool:
        """Whether the connection was closed by the broker."""
        return self.wire.closed

    def is_read(self) -> bool:
        """Whether the connection wants its wire to read."""
        return self.connection.reading

    def expect_nothing(self) -> None:
        """Assert that nothing was sent."""
        assert not self.unread, f"not nothing: {self.read_any_frame()}"

    def expect_end(self) -> None:
        """Assert that the connection was closed without another frame."""
        self.expect_nothing()
        assert self.ended(), "the connection is still open"

    def read_frames(self) -> list[Frame]:
        """Every frame that was sent and not read."""
        frames = []
        while self.unread:
            frames.append(self.read_any_frame())
        return frames

    def drop_unread(self) -> None:
        """Read without looking."""
        self._buffer = b""
        self.wire.received.clear()
