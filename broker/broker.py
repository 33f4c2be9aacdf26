"""The broker: puts the parts together, runs the turns of the loop, and stops in good order.

One `Broker` is one node. Several may live in one process and one loop, each with its own port, as
they share nothing: that is how tests use it.
"""

import asyncio
import gc
import logging
import os
import platform
import secrets
import socket
import time
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from broker._version import __version__
from broker.amqp.connection import Connection
from broker.amqp.limits import Limits
from broker.amqp.peer import Announcement, Peer
from broker.auth import Users
from broker.config import Config
from broker.core.clock import Clock
from broker.core.ids import Ids
from broker.core.message import Message
from broker.core.node import Node
from broker.core.packed import Row
from broker.core.paging import Memory
from broker.core.queue import Queue
from broker.core.records import Delivered, Stopped
from broker.core.store import Store
from broker.core.turn import Budget, Turn
from broker.core.vhost import VirtualHost
from broker.store.engine import FileLogEngine
from broker.store.errors import StoreError
from broker.store.log import LogStore
from broker.store.memory import MemoryStore
from broker.transport import ListenError, Transport, listen

LOGGER: Final = logging.getLogger("broker")

#: Messages of purged and deleted queues released in one turn.
_REMAINS_PER_TURN: Final = 5000

#: Contents let go of in one turn when memory is over its budget.
_LET_GO_PER_TURN: Final = 5000

#: The part of the machine's memory that contents of waiting messages may take by default.
_MEMORY_SHARE: Final = 8
#: The same where nobody says how much memory there is.
_MEMORY_BUDGET_BYTES_UNKNOWN: Final = 512 << 20

#: How often a long recovery says how far it is.
_PROGRESS_SECONDS: Final = 1.0
#: How long to wait before a failed read is tried again.
_FETCH_AGAIN_SECONDS: Final = 1.0

_SHUTDOWN_REASON: Final = "broker forced connection closure with reason 'shutdown'"


class SystemClock(Clock):
    """The wall time at start plus the monotonic time since: deadlines must not jump."""

    __slots__ = ("_start_ms",)

    def __init__(self) -> None:
        self._start_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        return self._start_ms + time.monotonic_ns() // 1_000_000


class Broker:
    """An AMQP broker in the running loop.

    Arguments:
        config: the settings; the defaults are those of `leveret serve`.
        clock, store: for tests that hold time or the disk in their hands.

    Used as `async with Broker(Config(port=0)) as broker:`, or by `start` and `stop`.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        clock: Clock | None = None,
        store: Store | None = None,
    ) -> None:
        self.config = config if config is not None else Config()
        self._clock = clock if clock is not None else SystemClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[asyncio.Server] = []
        self._transports: dict[Transport, Connection] = {}
        self._empty = asyncio.Event()
        #: addresses that clients can connect to, as (host, port)
        self.addresses: list[tuple[str, int]] = []
        self._ids = Ids(secrets.token_bytes)
        self._turn = Turn(self._wake)
        self._store = store if store is not None else self._open_store()
        self._store.on_commit = self._turn.record_settled
        self._store.on_durable = self._store_advanced
        self._memory = Memory(self._memory_budget_bytes())
        #: contents being read
        self._fetches: set[asyncio.Task[None]] = set()
        #: done with a sentence when the broker cannot go on; there from `start` on
        self.failed: asyncio.Future[str]
        self._node = Node(
            self.config.cluster_name or f"rabbit@{socket.gethostname().partition('.')[0]}",
            self._clock,
            self._ids,
            self._store,
            self._turn,
            self._memory,
        )
        self._users = Users(self._ids, self.config.loopback_users)
        self._users.add(
            self.config.default_user, self.config.default_password.encode(), ("administrator",)
        )
        self._node.add_vhost(self.config.default_vhost)
        self._limits = Limits(
            frame_max_bytes=self.config.frame_max_bytes,
            frame_max_initial_bytes=self.config.frame_max_initial_bytes,
            channel_max=self.config.channel_max,
            heartbeat_seconds=self.config.heartbeat_seconds,
            handshake_timeout_ms=self.config.handshake_timeout_ms,
            silent_close_pause_ms=self.config.silent_close_pause_ms,
            message_bytes_max=self.config.message_bytes_max,
            header_depth_max=self.config.header_depth_max,
            header_fields_max=self.config.header_fields_max,
            write_buffer_high_bytes=self.config.write_buffer_high_bytes,
            write_buffer_bytes_max=self.config.write_buffer_bytes_max,
            write_stall_ms=self.config.write_stall_ms,
            blocked_input_bytes_max=self.config.blocked_input_bytes_max,
            input_work_per_turn=self.config.input_work_per_turn,
            replies_waiting_max=self.config.replies_waiting_max,
            consumers_per_channel_max=self.config.consumers_per_channel_max,
            connections_max=self.config.connections_max,
        )
        self._announcement = Announcement(
            product=self.config.product,
            version=self.config.product_version,
            platform=f"Python {platform.python_version()}, Leveret {__version__}",
            cluster_name=self._node.name,
            copyright="Copyright the Leveret authors.",
            information="Licensed under the Apache License 2.0.",
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # Life.

    async def start(self) -> None:
        """Open the store, bring back what it has, then open the listeners.

        Raises `broker.transport.ListenError` or `broker.store.errors.StoreError`, each with a
        sentence for the operator.
        """
        self._loop = asyncio.get_running_loop()
        self.failed = self._loop.create_future()
        await self._store.start()
        try:
            # Millions of objects are made and none of them is garbage: collecting would only look.
            collecting = gc.isenabled()
            gc.disable()
            try:
                await self._recover()
            finally:
                if collecting:
                    gc.enable()
            await self._listen()
        except BaseException:
            self._close_listeners()
            await self._store.close()
            raise

    def _open_store(self) -> Store:
        if self.config.data_dir is None:
            return MemoryStore()
        engine = FileLogEngine(
            self.config.data_dir, segment_bytes=self.config.segment_bytes, warn=LOGGER.warning
        )
        return LogStore(engine, self._fail, self._disk_full)

    def _memory_budget_bytes(self) -> int:
        """The setting, or a share of this machine's memory; 0 where nothing can be let go."""
        if isinstance(self._store, MemoryStore):
            return 0
        if self.config.memory_budget_bytes:
            return self.config.memory_budget_bytes
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MEMORY_SHARE
        except (AttributeError, ValueError, OSError):
            return _MEMORY_BUDGET_BYTES_UNKNOWN

    def _disk_full(self, full: bool) -> None:
        self.set_alarm("disk", full)

    def _fail(self, sentence: str) -> None:
        """The history cannot be kept: stop at once rather than promise what may not hold."""
        LOGGER.critical("%s", sentence)
        if not self.failed.done():
            self.failed.set_result(sentence)
        self.abort()

    async def _recover(self) -> None:
        """Bring back what the store has, in the order of the things that need each other."""
        assert self._loop is not None, "called by start"
        recovering = self._loop.run_in_executor(None, self._store.recover)
        while not (await asyncio.wait((recovering,), timeout=_PROGRESS_SECONDS))[0]:
            LOGGER.info("recovering the log: %d %%", 100 * self._store.recovered_share())
        state = recovering.result()
        self._ids.message_id = state.last_message_id
        self._ids.queue_id = state.last_queue_id
        for exchange in state.exchanges.values():
            self._vhost(exchange.vhost).restore_exchange(exchange)
        queues = {
            queue_id: self._vhost(declared.vhost).restore_queue(declared)
            for queue_id, declared in state.queues.items()
        }
        for bound in state.bindings.values():
            self._vhost(bound.vhost).restore_binding(bound)
        shared: dict[int, list[Message]] = {}
        for message_id in sorted(state.shared):
            record = state.shared[message_id]
            for queue_id in record.queue_ids:
                shared.setdefault(queue_id, []).append(record.message)
        for queue_id, queue in queues.items():
            queue.restore(
                state.columns.pop(queue_id, None),
                shared.pop(queue_id, []),
                None if not state.stopped else state.delivered.get(queue_id, frozenset()),
            )

    def _vhost(self, name: str) -> VirtualHost:
        """The vhost called `name`, which may have been another default when it was recorded."""
        return self._node.vhosts.get(name) or self._node.add_vhost(name)

    def _record_stop(self) -> None:
        """Say which waiting messages were delivered before, so that the next start knows."""
        for vhost in self._node.vhosts.values():
            for queue in vhost.queues.values():
                if queue.durable:
                    message_ids = queue.ready.redelivered_ids()
                    if message_ids:
                        self._store.append(Delivered(queue.queue_id, message_ids))
        self._store.append(Stopped())

    async def _listen(self) -> None:
        config = self.config
        optional = config.is_default("host")
        port = config.port
        for host in config.host:
            try:
                listener = await listen(
                    self._make_transport, host, port, config.listen_backlog, optional
                )
            except ListenError:
                # The port the system picked for one default address may be taken on another.
                if not (optional and self._listeners and not config.port):
                    raise
                continue
            if listener is None:
                continue
            self._listeners.append(listener)
            for each in listener.sockets:
                address = each.getsockname()
                self.addresses.append((address[0], address[1]))
                # With port 0 the system picks one, and all addresses share it.
                port = address[1]
        if not self._listeners:
            raise ListenError(f"this machine has none of the addresses {', '.join(config.host)}")

    async def stop(self) -> None:
        """Stop in good order: no new clients, connection.close to those there are, then the store.

        Clients have `shutdown_timeout_ms` to answer.
        """
        self._close_listeners()
        for session in list(self._transports.values()):
            session.close(_SHUTDOWN_REASON)
        self._empty.clear()
        if self._transports:
            try:
                async with asyncio.timeout(self.config.shutdown_timeout_ms / 1000):
                    await self._empty.wait()
            except TimeoutError:
                LOGGER.warning("%d connections did not close in time", len(self._transports))
        self.abort()
        for left in list(self._node.sessions):
            left.lost()
        for fetch in list(self._fetches):
            fetch.cancel()
        self._turn.record_settled()
        if not self.failed.done():
            self._record_stop()
        await self._store.close()

    def abort(self) -> None:
        """Drop every client at once."""
        self._close_listeners()
        for transport in list(self._transports):
            transport.abort()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    # What users ask.

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.addresses[0][1]

    @property
    def url(self) -> str:
        """Where and as whom a client may connect."""
        host, port = self.addresses[0]
        if ":" in host:
            host = f"[{host}]"
        user, password = quote(self.config.default_user), quote(self.config.default_password)
        vhost = self.config.default_vhost
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{user}:{password}@{host}:{port}/{path}"

    def set_alarm(self, resource: str, active: bool) -> None:
        """Say that "memory" or "disk" runs low, or does no more; publishers are blocked meanwhile.

        Raises ValueError for any other resource.
        """
        if self._node.set_alarm(resource, active):
            LOGGER.warning(
                "%s resource limit alarm %s on node %s",
                resource,
                "set" if active else "cleared",
                self._node.name,
            )

    # Sessions.

    def _make_transport(self) -> Transport:
        return Transport(
            self._make_session,
            self._transport_lost,
            self._clock,
            self._limits.write_buffer_high_bytes,
        )

    def _make_session(self, transport: Transport, peer: Peer) -> Connection:
        session = Connection(
            self._node, transport, peer, self._limits, self._users, self._announcement
        )
        self._transports[transport] = session
        return session

    def _transport_lost(self, transport: Transport) -> None:
        self._transports.pop(transport, None)
        if not self._transports:
            self._empty.set()

    # The turn.

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._run_turn)

    def _run_turn(self) -> None:
        """Do what the input since the last turn made necessary, each kind of work once."""
        turn = self._turn
        turn.begin()
        for _ in range(len(turn.inputs)):
            turn.inputs.popleft().resume_input()
        turn.dispatch(
            Budget(self.config.dispatch_messages_per_turn, self.config.dispatch_bytes_per_turn)
        )
        if turn.remains:
            turn.drop_remains(_REMAINS_PER_TURN)
        if self._memory.is_exceeded and self._memory.relieve(self._store.durable, _LET_GO_PER_TURN):
            turn.note()
        if turn.fetches:
            fetches, turn.fetches = turn.fetches, []
            for queue in fetches:
                fetch = asyncio.ensure_future(self._fetch(queue, queue.begin_fetch()))
                self._fetches.add(fetch)
                fetch.add_done_callback(self._fetches.discard)
        turn.record_settled()
        outputs, turn.outputs = turn.outputs, []
        for session in outputs:
            try:
                session.end_turn()
            except Exception:
                # A fault in one session must not keep the others from being served.
                LOGGER.exception("internal error while writing to a client; it is dropped")
                session.lost()

    async def _fetch(self, queue: Queue, rows: list[Row]) -> None:
        """Read the contents that `queue` wants; a failure is logged and tried again."""
        messages = [row.message for row in rows if not row.message.header_frame]
        while True:
            try:
                await self._store.fetch(messages)
                break
            except (StoreError, OSError) as error:
                LOGGER.error("reading from the log failed, and is tried again: %s", error)
                await asyncio.sleep(_FETCH_AGAIN_SECONDS)
        queue.end_fetch(rows)

    def _store_advanced(self) -> None:
        self._turn.store_advanced()
