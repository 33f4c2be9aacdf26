"""The transport: it feeds its session, writes what the session has, and does as it says."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from pamqp.commands import Connection as ConnectionMethods
from session_support import ANNOUNCEMENT, World
from wire import PLAIN_GUEST, PROTOCOL_HEADER
from wire_methods import (
    Method,
    basic_publish,
    channel_open,
    connection_close,
    connection_open,
    connection_start_ok,
    connection_tune_ok,
    content_header,
    frame,
    queue_declare,
)

from broker.amqp.connection import Connection
from broker.amqp.peer import Peer
from broker.transport import ListenError, Transport, listen

HIGH = 64 * 1024


class FakeSocket(asyncio.Transport):
    """A socket that takes what the test lets it take."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        super().__init__({"peername": (peer, 50000), "sockname": ("127.0.0.1", 5672)})
        self.written: list[bytes] = []
        #: what a peer that does not read leaves behind
        self.backlog_bytes = 0
        self.reads = True
        self.closing = False
        self.aborted = False
        self.marks: tuple[int | None, int | None] = (None, None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.written.extend(bytes(data) for data in list_of_data)

    def get_write_buffer_size(self) -> int:
        return self.backlog_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.marks = (high, low)

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted = True

    def take(self) -> bytes:
        """What was written since the last look."""
        taken, self.written = b"".join(self.written), []
        return taken


class Wired:
    """A session in a `World`, wired to a transport with a fake socket."""

    def __init__(self, *, peer: str = "127.0.0.1", **limits: Any) -> None:
        self.world = World(**limits)
        self.lost: list[Transport] = []
        self.socket = FakeSocket(peer)
        self.transport = Transport(self._make_session, self.lost.append, self.world.clock, HIGH)
        self.transport.connection_made(self.socket)

    def _make_session(self, transport: Transport, peer: Peer) -> Connection:
        self.peer = peer
        world = self.world
        self.session = Connection(
            world.node, transport, peer, world.limits, world.authenticator, ANNOUNCEMENT
        )
        return self.session

    def receive(self, octets: bytes) -> None:
        """Octets arrive, and the turn that follows runs."""
        self.transport.data_received(octets)
        self.world.run_turns()

    def call(self, channel: int, *methods: Method) -> None:
        """Methods arrive in one read."""
        self.receive(b"".join(frame(1, channel, method.payload) for method in methods))

    def log_in(self) -> None:
        """All of the handshake, and channel 1."""
        self.receive(PROTOCOL_HEADER)
        self.call(
            0,
            connection_start_ok("PLAIN", PLAIN_GUEST),
            connection_tune_ok(2047, 131072),
            connection_open("/"),
        )
        self.call(1, channel_open())
        self.socket.take()


class OffsetLoop(asyncio.SelectorEventLoop):
    """A loop whose time can be moved forward."""

    offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset

    async def move(self, seconds: float) -> None:
        """Let timers of the next `seconds` fire."""
        self.offset += seconds
        for _ in range(3):
            await asyncio.sleep(0)


def run(test: Callable[[OffsetLoop], Any]) -> None:
    """Run a coroutine function in an `OffsetLoop`."""
    loop = OffsetLoop()
    try:
        loop.run_until_complete(test(loop))
    finally:
        loop.close()


# Bytes


async def test_session_is_fed_and_its_output_written() -> None:
    """What arrives goes to the session, and its answer leaves at the end of the turn."""
    wired = Wired()
    wired.transport.data_received(PROTOCOL_HEADER)
    assert not wired.socket.written

    wired.world.run_turns()

    assert ConnectionMethods.Start.index.to_bytes(4, "big") in wired.socket.take()


async def test_small_pieces_are_one_write() -> None:
    """A turn's output of many pieces is one call."""
    wired = Wired()
    wired.log_in()

    wired.call(1, queue_declare("q"), queue_declare("r"), queue_declare("s"))

    assert len(wired.socket.written) == 1


async def test_large_pieces_are_not_copied_together() -> None:
    """A large body goes to the socket beside what surrounds it, in order and complete."""
    wired = Wired()
    wired.log_in()
    body = bytes(range(256)) * 400
    wired.call(1, queue_declare("q"))
    wired.socket.take()
    wired.receive(
        frame(1, 1, basic_publish("", "none", mandatory=True).payload)
        + frame(2, 1, content_header(len(body)))
        + frame(3, 1, body)
    )

    pieces = [piece for piece in wired.socket.written if piece]
    assert len(pieces) >= 2
    assert wired.socket.take().endswith(frame(3, 1, body))
    assert wired.session.output.sent_octets > len(body)


async def test_marks_of_the_socket_are_around_those_of_the_session() -> None:
    """The socket reports its backlog below the mark at which deliveries stop."""
    assert Wired().socket.marks == (HIGH // 2, HIGH // 4)


async def test_backlog_is_reported_to_the_session() -> None:
    """What the socket did not take counts as output, until the socket says it is out."""
    wired = Wired(write_buffer_high_bytes=HIGH)
    wired.log_in()
    wired.socket.backlog_bytes = HIGH + 1
    wired.call(1, queue_declare("q"))
    congested = wired.session.output.congested
    wired.transport.pause_writing()

    wired.socket.backlog_bytes = HIGH // 4
    wired.transport.resume_writing()

    assert congested
    assert not wired.session.output.congested


async def test_reading_pauses_and_resumes() -> None:
    """The socket is not read while the session has more than it may handle."""
    wired = Wired(input_work_per_turn=1)
    wired.log_in()
    wired.transport.data_received(
        b"".join(frame(1, 1, queue_declare(name).payload) for name in "abc")
    )
    paused = not wired.socket.reads

    wired.world.run_turns()

    assert paused
    assert wired.socket.reads
    assert list(wired.world.vhost.queues) == ["a", "b", "c"]


# Ends


async def test_finished_session_closes_the_socket() -> None:
    """The last octets are written, then the socket is closed."""
    wired = Wired()
    wired.receive(b"GET / HTTP/1.1\r\n")

    assert wired.socket.take() == PROTOCOL_HEADER
    assert wired.socket.closing
    assert not wired.socket.aborted


async def test_end_of_the_socket_is_told_once() -> None:
    """Session and owner learn that the socket is gone, and nothing is written any more."""
    wired = Wired()
    wired.log_in()
    wired.transport.data_received(frame(1, 1, queue_declare("q").payload))

    wired.transport.connection_lost(ConnectionResetError())
    wired.world.run_turns()
    wired.transport.flush()
    wired.transport.abort()

    assert wired.lost == [wired.transport]
    assert wired.session.finished
    assert not wired.socket.written
    assert not wired.socket.aborted
    assert not wired.world.node.sessions


async def test_half_closed_socket_is_closed() -> None:
    """A client that will send no more is gone: nothing is half-closed."""
    assert Wired().transport.eof_received() is False


async def test_abort() -> None:
    """The owner can drop the socket with what is unwritten."""
    wired = Wired()

    wired.transport.abort()

    assert wired.socket.aborted


# Time


def test_timer_follows_the_deadline() -> None:
    """A client that does not finish its handshake is dropped when it is due."""

    async def test(loop: OffsetLoop) -> None:
        wired = Wired(handshake_timeout_ms=10_000)
        await loop.move(9.5)
        assert not wired.socket.closing

        wired.world.clock.advance(10_000)
        await loop.move(0.6)
        wired.world.run_turns()

        assert wired.socket.closing

    run(test)


def test_timer_that_fires_early_is_set_again() -> None:
    """The session is woken by its own clock, not by the loop's."""

    async def test(loop: OffsetLoop) -> None:
        wired = Wired(handshake_timeout_ms=10_000)
        wired.world.clock.advance(5_000)
        await loop.move(10.1)
        assert not wired.session.finished

        wired.world.clock.advance(5_000)
        await loop.move(5.1)

        assert wired.session.finished

    run(test)


def test_timer_ends_with_the_socket() -> None:
    """Nothing wakes the session of a socket that is gone."""

    async def test(loop: OffsetLoop) -> None:
        wired = Wired(handshake_timeout_ms=10_000)
        wired.transport.connection_lost(None)
        wired.world.clock.advance(10_000)

        await loop.move(20)

        assert wired.lost == [wired.transport]

    run(test)


def test_socket_that_cannot_be_emptied_is_dropped() -> None:
    """A closed socket may linger with what its peer does not read, but not for ever."""

    async def test(loop: OffsetLoop) -> None:
        wired = Wired()
        wired.socket.backlog_bytes = 100
        wired.receive(b"GET / HTTP/1.1\r\n")
        assert wired.socket.closing
        await loop.move(4.9)
        assert not wired.socket.aborted

        await loop.move(0.2)

        assert wired.socket.aborted

    run(test)


def test_session_that_waits_for_its_client_to_go() -> None:
    """After close-ok a client that stays is dropped when the session says so."""

    async def test(loop: OffsetLoop) -> None:
        wired = Wired()
        wired.log_in()
        wired.call(0, connection_close())
        wired.world.clock.advance(30_000)
        await loop.move(30.1)
        wired.world.run_turns()

        assert wired.socket.closing

    run(test)


# Who is there


@pytest.mark.parametrize(
    ("host", "is_loopback", "shown"),
    [
        ("127.0.0.1", True, "127.0.0.1:50000"),
        ("127.1.2.3", True, "127.1.2.3:50000"),
        ("::1", True, "[::1]:50000"),
        ("::ffff:127.0.0.1", True, "[::ffff:127.0.0.1]:50000"),
        ("::ffff:192.0.2.1", False, "[::ffff:192.0.2.1]:50000"),
        ("192.0.2.1", False, "192.0.2.1:50000"),
        ("12.7.0.1", False, "12.7.0.1:50000"),
        ("fe80::1%eth0", False, "[fe80::1%eth0]:50000"),
        ("::127.0.0.1", False, "[::127.0.0.1]:50000"),
    ],
)
async def test_peer(host: str, is_loopback: bool, shown: str) -> None:
    """The peer's address is what the log shows, and tells whether it is on this machine."""
    peer = Wired(peer=host).peer

    assert peer == Peer(f"{shown} -> 127.0.0.1:5672", host, 50000, is_loopback)


# Listeners


def make_nothing() -> Transport:
    """A listener in these tests is never connected to."""
    raise AssertionError("nobody connects")


async def test_listener_on_a_free_port() -> None:
    """Port 0 lets the system pick one."""
    listener = await listen(make_nothing, "127.0.0.1", 0, 10, optional=False)

    assert listener is not None
    assert listener.sockets[0].getsockname()[1] > 0
    listener.close()


async def test_port_in_use() -> None:
    """The operator is told which address is taken, also where it might be left out."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(ListenError, match=rf"on 127\.0\.0\.1:{port}: the port is in use"):
            await listen(make_nothing, "127.0.0.1", port, 10, optional=True)


async def test_address_of_another_machine() -> None:
    """An address this machine does not have is an error, unless it may be left out."""
    with pytest.raises(ListenError, match="this machine does not have that address"):
        await listen(make_nothing, "192.0.2.1", 0, 10, optional=False)

    assert await listen(make_nothing, "192.0.2.1", 0, 10, optional=True) is None


@pytest.mark.parametrize("optional", [False, True])
async def test_permission_denied(optional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that needs rights the process lacks is named as such."""
    loop = asyncio.get_running_loop()
    refusal = OSError(errno.EACCES, "no")

    async def create_server(*arguments: object, **named: object) -> asyncio.Server:
        raise refusal

    monkeypatch.setattr(loop, "create_server", create_server)

    with pytest.raises(ListenError, match=r"cannot listen on 127\.0\.0\.1:1: permission denied"):
        await listen(make_nothing, "127.0.0.1", 1, 10, optional=optional)


async def test_name_that_is_no_host() -> None:
    """A name that nobody can resolve is reported with what the resolver says."""
    with pytest.raises(ListenError, match="cannot listen on no such host:0"):
        await listen(make_nothing, "no such host", 0, 10, optional=False)


async def test_host_name_that_cannot_be_encoded() -> None:
    """A name that is not even a name is an error like any other."""
    with pytest.raises(ListenError, match="cannot listen on"):
        await listen(make_nothing, "a" * 64 + ".example", 0, 10, optional=False)
