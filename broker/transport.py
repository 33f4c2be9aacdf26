"""Sockets: one asyncio protocol per connection, and the listeners.

A protocol feeds its session, and when the turn of the loop asks for it writes what the session has,
in one call, and adapts to what the session says of itself: whether to read, when to wake it,
whether it is finished. All decisions are the session's.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final, cast

from broker.amqp.connection import Connection
from broker.amqp.peer import Peer, Wire
from broker.core.clock import Clock

#: Pieces of at least this many octets are handed to the socket as they are; joining smaller ones
#: into one buffer costs less than the system call's per-buffer work.
_LARGE_BYTES: Final = 64 * 1024


class ListenError(OSError):
    """A listener could not be opened; the text says which and why."""


class Transport(asyncio.Protocol, Wire):
    """The socket of one connection.

    Arguments:
        make_session: makes the session when the client is there.
        on_lost: called when the socket is gone and the session knows it.
        clock: the session's clock, which its deadline is measured by.
        write_buffer_high_bytes: the session's own mark; the socket's are set around it.
    """

    def __init__(
        self,
        make_session: "Callable[[Transport, Peer], Connection]",
        on_lost: "Callable[[Transport], None]",
        clock: Clock,
        write_buffer_high_bytes: int,
    ) -> None:
        self._make_session = make_session
        self._on_lost = on_lost
        self._clock = clock
        self._write_buffer_high_bytes = write_buffer_high_bytes
        self._socket: asyncio.Transport
        self._session: Connection
        self._loop = asyncio.get_running_loop()
        self._reading = True
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        #: the deadline the timer is set for
        self._timer_ms = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their base class.
        self._socket = cast(asyncio.Transport, transport)
        self._socket.set_write_buffer_limits(
            high=self._write_buffer_high_bytes // 2, low=self._write_buffer_high_bytes // 4
        )
        tcp = transport.get_extra_info("socket")
        if tcp is not None and tcp.family in (socket.AF_INET, socket.AF_INET6):
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername") or ("", 0)
        here = transport.get_extra_info("sockname") or ("", 0)
        self._session = self._make_session(
            self,
            Peer(
                name=f"{_address(peer)} -> {_address(here)}",
                host=peer[0],
                port=peer[1],
                is_loopback=_is_loopback(peer[0]),
            ),
        )
        self._heed()

    def data_received(self, data: bytes) -> None:
        session = self._session
        session.receive_data(data)
        if not session.reading:
            self._heed()

    def eof_received(self) -> bool:
        """The client will send no more; RabbitMQ half-closes nothing."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._session.lost()
        self._on_lost(self)

    def resume_writing(self) -> None:
        self._session.flushed(0, self._socket.get_write_buffer_size())

    def pause_writing(self) -> None:
        """What the socket has not taken is part of what `flush` reports; nothing more to do."""

    def flush(self) -> None:
        """Write the session's output, then close or go on as the session says."""
        if self._lost:
            return
        session = self._session
        pieces = session.output.take()
        if pieces:
            size = self._write(pieces)
            session.flushed(size, self._socket.get_write_buffer_size())
        if session.finished:
            self._close()
        else:
            self._heed()

    def _write(self, pieces: list[bytes | memoryview]) -> int:
        """Write `pieces` in as few calls as pays; returns their octets."""
        if not any(len(piece) >= _LARGE_BYTES for piece in pieces):
            data = b"".join(pieces)
            self._socket.write(data)
            return len(data)
        size = 0
        batch: list[bytes | memoryview] = []
        buffers: list[bytes | memoryview] = []
        for piece in pieces:
            size += len(piece)
            if len(piece) < _LARGE_BYTES:
                batch.append(piece)
                continue
            buffers += (b"".join(batch), piece)
            batch = []
        buffers.append(b"".join(batch))
        self._socket.writelines(buffers)
        return size

    def _heed(self) -> None:
        session = self._session
        if session.reading != self._reading:
            self._reading = session.reading
            if self._reading:
                self._socket.resume_reading()
            else:
                self._socket.pause_reading()
        if session.deadline_ms != self._timer_ms:
            self._set_timer(session.deadline_ms)

    def _set_timer(self, deadline_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ms = deadline_ms
        if deadline_ms:
            wait_ms = max(0, deadline_ms - self._clock.now_ms())
            self._timer = self._loop.call_later(wait_ms / 1000, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_ms = 0
        if self._clock.now_ms() >= self._session.deadline_ms:
            self._session.expire()
        self._heed()

    def _close(self) -> None:
        """Close the socket; a client that does not read what is left must not hold it open."""
        if self._socket.is_closing():
            return
        if self._socket.get_write_buffer_size():
            self._loop.call_later(_LINGER_SECONDS, self.abort)
        self._socket.close()

    def abort(self) -> None:
        """Drop the socket with whatever is unwritten."""
        if not self._lost:
            self._socket.abort()


#: How long a closed socket may take to pass on what was written to it.
_LINGER_SECONDS: Final = 5.0


def _address(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    """Whether a peer address is this machine: 127.0.0.0/8, ::1, or the former mapped into IPv6."""
    host = host.partition("%")[0].removeprefix("::ffff:")
    return host == "::1" or host.startswith("127.") or not host


async def listen(
    make_protocol: Callable[[], Transport], host: str, port: int, backlog: int, optional: bool
) -> asyncio.Server | None:
    """Open a listener.

    Arguments:
        optional: an address that this machine does not have gives None instead of an error.

    Raises ListenError with a sentence for the operator.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(make_protocol, host, port, backlog=backlog)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if optional and number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, socket.EAI_FAMILY):
            return None
        raise ListenError(f"cannot listen on {_address((host, port))}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return "the port is in use"
    if number == errno.EACCES:
        return "permission denied"
    if number == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return str(error)
