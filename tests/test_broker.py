"""The broker as a whole: how it starts, what it says of itself, and how it stops."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp.commands import Channel, Connection, Queue
from wire import ConnectionEnded, WireClient
from wire_methods import basic_qos, queue_declare

from broker import Broker, Config
from broker.broker import SystemClock
from broker.core.clock import ManualClock
from broker.store.memory import HeldStore
from broker.transport import ListenError

#: How long a test waits for what should happen at once, in seconds.
PATIENCE = 8


def config(**settings: Any) -> Config:
    """Settings for a broker in memory on a port of its own."""
    return Config(**{"host": ("127.0.0.1",), "port": 0, **settings})


@asynccontextmanager
async def client_of(broker: Broker) -> AsyncIterator[WireClient]:
    """A client with channel 1 open; what it does is done in a thread, as it blocks."""

    def connect() -> WireClient:
        client = WireClient("127.0.0.1", broker.port).handshake()
        client.open_channel()
        return client

    client = await asyncio.to_thread(connect)
    try:
        yield client
    finally:
        client.disconnect()


# Starting


async def test_broker_serves_while_its_block_runs() -> None:
    """`async with` starts a broker that clients can use, and stops it."""
    async with Broker(config()) as broker:
        async with client_of(broker) as client:
            name = await asyncio.to_thread(client.declare_queue)
        port = broker.port

    assert name.startswith("amq.gen-")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_port_0_lets_the_system_pick() -> None:
    """The port that was picked is what `port`, `addresses` and `url` say."""
    async with Broker(config()) as broker:
        assert broker.port > 0
        assert broker.addresses == [("127.0.0.1", broker.port)]
        assert broker.url == f"amqp://guest:guest@127.0.0.1:{broker.port}/"


@pytest.mark.parametrize(
    ("settings", "before", "after"),
    [
        ({"default_user": "a@b", "default_password": "p:/?"}, "a%40b:p%3A/%3F@", "/"),
        ({"default_vhost": "a/b c"}, "guest:guest@", "/a%2Fb%20c"),
    ],
    ids=["credentials", "vhost"],
)
async def test_url_is_quoted(settings: dict[str, str], before: str, after: str) -> None:
    """Names with special characters survive in the URL."""
    async with Broker(config(**settings)) as broker:
        url = broker.url

    assert url == f"amqp://{before}127.0.0.1:{broker.port}{after}"


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
async def test_url_of_an_ipv6_address() -> None:
    """An IPv6 address stands in brackets."""
    try:
        async with Broker(config(host=("::1",))) as broker:
            assert broker.url == f"amqp://guest:guest@[::1]:{broker.port}/"
    except ListenError:
        pytest.skip("this machine has no ::1")


async def test_addresses_share_a_port() -> None:
    """With several addresses and port 0 all listen on the one that was picked for the first."""
    async with Broker(config(host=("127.0.0.1", "127.0.0.2"))) as broker:
        assert broker.addresses == [("127.0.0.1", broker.port), ("127.0.0.2", broker.port)]


class Listeners:
    """Stands in for a machine without IPv6: remembers what was asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._create_server = loop.create_server
        self.hosts: list[str] = []

    async def __call__(self, protocol: Any, host: str, port: int, **named: Any) -> asyncio.Server:
        self.hosts.append(host)
        if ":" in host:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return await self._create_server(protocol, host, port, **named)


async def test_default_host_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of the default that the machine does not have is left out."""
    loop = asyncio.get_running_loop()
    listeners = Listeners(loop)
    monkeypatch.setattr(loop, "create_server", listeners)

    async with Broker(Config(port=0)) as broker:
        addresses = broker.addresses

    assert listeners.hosts == ["127.0.0.1", "::1"]
    assert [host for host, _ in addresses] == ["127.0.0.1"]


async def test_host_that_was_asked_for_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the operator names an address, its absence is an error, and nothing stays open."""
    loop = asyncio.get_running_loop()
    listeners = Listeners(loop)
    monkeypatch.setattr(loop, "create_server", listeners)
    broker = Broker(config(host=("127.0.0.1", "::2")))

    with pytest.raises(ListenError, match=r"\[::2\]:\d+: this machine does not have that address"):
        await broker.start()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", broker.port)


async def test_port_in_use() -> None:
    """A second broker on the same port says so."""
    async with Broker(config()) as first:
        with pytest.raises(ListenError, match="the port is in use"):
            await Broker(config(port=first.port)).start()


async def test_brokers_in_one_loop_share_nothing() -> None:
    """Several brokers live side by side, each with its own port and queues."""
    async with Broker(config()) as one, Broker(config()) as two, Broker(config()) as three:
        assert len({one.port, two.port, three.port}) == 3
        async with client_of(one) as first, client_of(two) as second:
            await asyncio.to_thread(first.call, 1, queue_declare("q"))
            await asyncio.to_thread(second.send_method, 1, queue_declare("q", passive=True))
            close = await asyncio.to_thread(second.expect, 1, Channel.Close)

    assert close.reply_code == 404


async def test_broker_says_who_it_is() -> None:
    """Product, version and cluster name are settings; the platform tells the truth."""
    settings = {"product": "Hare", "product_version": "1.2.3", "cluster_name": "rabbit@den"}
    async with Broker(config(**settings)) as broker:
        with await asyncio.to_thread(WireClient, "127.0.0.1", broker.port) as client:
            client.send_protocol_header()
            start = await asyncio.to_thread(client.expect, 0, Connection.Start)

    properties = start.server_properties
    assert properties is not None
    assert (properties["product"], properties["version"]) == ("Hare", "1.2.3")
    assert properties["cluster_name"] == "rabbit@den"
    assert "Leveret" in str(properties["platform"])


async def test_default_user_and_vhost_are_settings() -> None:
    """A new broker has the one user and the one vhost it was told to have."""
    settings = {"default_user": "me", "default_password": "my own", "default_vhost": "mine"}
    async with Broker(config(**settings)) as broker:

        def log_in(response: bytes, vhost: str) -> str:
            with WireClient("127.0.0.1", broker.port) as client:
                client.send_protocol_header()
                client.expect(0, Connection.Start)
                client.start_ok(response=response)
                if client.read_frame().payload[:4] == Connection.Close.index.to_bytes(4, "big"):
                    return "refused"
                client.tune_ok(10, 131072, 0)
                client.send_method(0, Connection.Open(virtual_host=vhost))
                opened = client.read_frame().payload[:4]
                return "in" if opened == Connection.OpenOk.index.to_bytes(4, "big") else "out"

        assert await asyncio.to_thread(log_in, b"\0me\0my own", "mine") == "in"
        assert await asyncio.to_thread(log_in, b"\0me\0my own", "/") == "out"
        assert await asyncio.to_thread(log_in, b"\0guest\0guest", "mine") == "refused"


# Clock and store


def test_system_clock_is_the_time_and_does_not_go_back() -> None:
    """Milliseconds since the epoch."""
    clock = SystemClock()
    times = [clock.now_ms() for _ in range(100)]

    assert times == sorted(times)
    assert times[0] > 1_700_000_000_000


async def test_promises_wait_for_the_store_handed_in() -> None:
    """A durable declare is answered when the store says that it is safe."""
    store = HeldStore()
    async with Broker(config(), store=store) as broker:
        async with client_of(broker) as client:
            client.send_method(1, queue_declare("q", durable=True))
            await asyncio.to_thread(client.open_channel, 2)
            reply = asyncio.create_task(asyncio.to_thread(client.expect, 1, Queue.DeclareOk))

            store.sync()

            assert (await reply).queue == "q"


async def test_deadlines_follow_the_clock_handed_in() -> None:
    """With a clock that stands still no handshake takes too long."""
    clock = ManualClock()
    async with Broker(config(handshake_timeout_ms=1), clock=clock) as broker:
        with await asyncio.to_thread(WireClient, "127.0.0.1", broker.port) as client:
            await asyncio.to_thread(client.handshake)


# Alarms


async def test_alarms_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An alarm that is set already, or was not, is no news."""
    caplog.set_level(logging.INFO, "broker")
    async with Broker(config(cluster_name="rabbit@den")) as broker:
        caplog.clear()
        broker.set_alarm("disk", False)
        broker.set_alarm("memory", True)
        broker.set_alarm("memory", True)
        broker.set_alarm("memory", False)
        messages = caplog.messages

    assert messages == [
        "memory resource limit alarm set on node rabbit@den",
        "memory resource limit alarm cleared on node rabbit@den",
    ]


@pytest.mark.parametrize("resource", ["", "cpu", "Memory"])
async def test_unknown_alarm(resource: str) -> None:
    """Only memory and disk can run low; the error says so."""
    async with Broker(config()) as broker:
        for active in (True, False):
            with pytest.raises(ValueError, match="expected one of memory, disk"):
                broker.set_alarm(resource, active)


# Stopping


async def test_stop_waits_for_clients_to_answer() -> None:
    """A client that answers connection.close ends the wait."""

    def answer(client: WireClient) -> None:
        client.expect_connection_close(
            320, "broker forced connection closure with reason 'shutdown'"
        )
        client.connection_close_ok()
        client.expect_eof()

    broker = Broker(config(shutdown_timeout_ms=60_000))
    await broker.start()
    async with client_of(broker) as client:
        answered = asyncio.create_task(asyncio.to_thread(answer, client))
        async with asyncio.timeout(PATIENCE):
            await broker.stop()
            await answered


async def test_stop_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """A silent client has `shutdown_timeout_ms`, and is dropped then."""
    caplog.set_level(logging.WARNING, logger="broker")
    broker = Broker(config(shutdown_timeout_ms=20))
    await broker.start()
    async with client_of(broker) as client:
        async with asyncio.timeout(PATIENCE):
            await broker.stop()
        await asyncio.to_thread(client.expect, 0, Connection.Close)
        await asyncio.to_thread(client.expect_eof)

    assert "1 connections did not close in time" in caplog.messages


async def test_stop_does_not_wait_at_all() -> None:
    """With a timeout of nothing clients are dropped at once."""
    broker = Broker(config(shutdown_timeout_ms=0))
    await broker.start()
    async with client_of(broker) as client:
        async with asyncio.timeout(PATIENCE):
            await broker.stop()
        await asyncio.to_thread(read_to_the_end, client)


def read_to_the_end(client: WireClient) -> None:
    """Read whatever there is until the broker has closed the socket."""
    try:
        while True:
            client.read_frame()
    except ConnectionEnded:
        pass


async def test_stop_drops_who_is_not_logged_in() -> None:
    """A client in the middle of its handshake gets no frame and no time."""
    broker = Broker(config(shutdown_timeout_ms=60_000))
    await broker.start()
    with await asyncio.to_thread(WireClient, "127.0.0.1", broker.port) as client:
        client.send_protocol_header()
        await asyncio.to_thread(client.expect, 0, Connection.Start)
        async with asyncio.timeout(PATIENCE):
            await broker.stop()

        await asyncio.to_thread(client.expect_eof)


async def test_stop_without_clients() -> None:
    """There is nothing to wait for."""
    broker = Broker(config(shutdown_timeout_ms=60_000))
    await broker.start()

    async with asyncio.timeout(PATIENCE):
        await broker.stop()


async def test_stop_takes_no_new_clients() -> None:
    """While the last clients are waited for, nobody else is let in."""
    broker = Broker(config(shutdown_timeout_ms=60_000))
    await broker.start()
    async with client_of(broker) as client:
        stop = asyncio.create_task(broker.stop())
        await asyncio.to_thread(client.expect, 0, Connection.Close)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", broker.port)

        client.connection_close_ok()
        async with asyncio.timeout(PATIENCE):
            await stop


async def test_abort_drops_everybody() -> None:
    """No frame and no waiting."""
    async with Broker(config()) as broker:
        async with client_of(broker) as client:
            broker.abort()
            await asyncio.to_thread(client.expect_eof)


async def test_client_that_vanishes_is_forgotten() -> None:
    """A connection that is gone leaves nothing behind, and the next one is served."""
    async with Broker(config()) as broker:
        async with client_of(broker) as client:
            name = await asyncio.to_thread(client.declare_queue)
        async with client_of(broker) as client:
            await asyncio.to_thread(client.call, 1, basic_qos(prefetch_count=1))
            for _ in range(1000):
                await asyncio.sleep(0)

            assert name not in broker._node.vhosts["/"].queues
            assert len(broker._transports) == 1
