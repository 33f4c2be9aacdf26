"""How connections and channels end, whoever begins it."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from pamqp.commands import Basic, Channel, Connection, Queue
from running import ExternalBroker, RunningBroker, running_broker
from wire import WireClient
from wire_methods import (
    CHANNEL_CLOSE_OK,
    CONNECTION_CLOSE_OK,
    Method,
    basic_ack,
    basic_consume,
    basic_get,
    basic_publish,
    channel_close,
    channel_open,
    confirm_select,
    connection_close,
    content_header,
    frame,
    frames,
    queue_declare,
    queue_purge,
    update_secret,
)

needs_our_broker = pytest.mark.skipif(
    "LEVERET_TEST_PORT" in os.environ, reason="needs a broker of our own"
)

Server = RunningBroker | ExternalBroker


def another(server: Server) -> WireClient:
    """One more client with channel 1 open."""
    client = WireClient(server.host, server.port).handshake()
    client.open_channel()
    return client


# Closing a connection


def test_client_closes_the_connection(client: WireClient) -> None:
    """connection.close is answered, and the client hangs up."""
    client.send_method(0, connection_close(320, "any code and text will do"))

    client.expect(0, Connection.CloseOk)


def test_exclusive_queue_is_gone_with_close_ok(server: Server, client: WireClient) -> None:
    """What belongs to a connection is deleted before its close is answered."""
    queue = client.declare_queue()
    client.send_method(0, connection_close())
    client.expect(0, Connection.CloseOk)

    with another(server) as other:
        other.send_method(1, queue_declare(queue, passive=True))
        other.expect_channel_close(1, 404, f"no queue '{queue}' in vhost '/'", 50, 10)


def test_closing_connection_ignores_all_but_close(client: WireClient) -> None:
    """After the client's close only another close is answered."""
    client.send(
        frames(0, [connection_close()])
        + frames(1, [queue_declare("", exclusive=True), channel_close()])
        + frames(0, [update_secret("secret"), connection_close()])
    )

    client.expect(0, Connection.CloseOk)
    client.expect(0, Connection.CloseOk)


def test_crossing_connection_closes(client: WireClient) -> None:
    """A close that crosses the broker's own is answered; the answer to the broker's ends it all."""
    client.send_method(0, queue_declare(""))
    client.expect(0, Connection.Close)
    client.send(
        frames(1, [queue_declare("", exclusive=True)])
        + frames(0, [connection_close(), update_secret("secret"), connection_close()])
    )
    client.expect(0, Connection.CloseOk)
    client.expect(0, Connection.CloseOk)
    client.send_method(0, CONNECTION_CLOSE_OK)

    client.expect_eof()


@needs_our_broker
def test_stopping_broker_says_goodbye() -> None:
    """A broker that stops closes its connections with 320 and waits for their answers."""

    def wait_for_the_end(client: WireClient) -> None:
        client.expect_connection_close(
            320, "broker forced connection closure with reason 'shutdown'"
        )
        client.connection_close_ok()
        client.expect_eof()

    with ThreadPoolExecutor(1) as threads:
        with running_broker() as server:
            client = another(server)
            end = threads.submit(wait_for_the_end, client)
        end.result()
        client.disconnect()


# Closing a channel


def test_channel_number_is_free_after_close(client: WireClient) -> None:
    """A channel that was closed can be opened again under the same number, from scratch."""
    client.call(1, confirm_select())
    client.close_channel()
    client.open_channel()

    client.call(1, Method(90, 10))


def test_closing_channel_ignores_what_follows(client: WireClient) -> None:
    """What a client sends on a channel after closing it is not even looked at."""
    client.send(frames(1, [channel_close(), queue_declare("no", passive=True), basic_ack(9)]))

    client.expect(1, Channel.CloseOk)
    client.open_channel(2)


def test_close_of_a_channel_requeues_first(client: WireClient) -> None:
    """Unsettled messages are back in the queue, and consumers gone, before close-ok."""
    client.open_channel(2)
    queue = client.declare_queue()
    client.publish(1, "", queue, body=b"one")
    client.call(1, basic_consume(queue, "tag"))
    client.expect_content(1, Basic.Deliver)
    client.close_channel()

    reply = client.call(2, queue_declare(queue, passive=True))
    content = client.get(2, queue)

    assert isinstance(reply, Queue.DeclareOk)
    assert (reply.message_count, reply.consumer_count) == (1, 0)
    assert content.method.redelivered


def test_channel_error_requeues_first(client: WireClient) -> None:
    """The same holds before the broker's channel.close."""
    client.open_channel(2)
    queue = client.declare_queue()
    client.publish(1, "", queue, body=b"one")
    client.call(1, basic_consume(queue, "tag"))
    client.expect_content(1, Basic.Deliver)
    client.send_method(1, basic_ack(5))
    client.expect_channel_close(1, 406, "unknown delivery tag 5", 60, 80)

    reply = client.call(2, queue_declare(queue, passive=True))
    content = client.get(2, queue)

    assert isinstance(reply, Queue.DeclareOk)
    assert (reply.message_count, reply.consumer_count) == (1, 0)
    assert content.method.redelivered


def test_channel_error_leaves_other_channels_alone(client: WireClient) -> None:
    """Only the channel that erred is closed."""
    client.open_channel(2)
    queue = client.declare_queue(2)
    client.call(2, basic_consume(queue, "tag"))
    client.send_method(1, queue_declare("no-such-queue", passive=True))
    client.expect(1, Channel.Close)

    client.publish(2, "", queue, body=b"still here")

    assert client.expect_content(2, Basic.Deliver).body == b"still here"


def test_frames_are_ignored_until_close_ok(client: WireClient) -> None:
    """After the broker's channel.close nothing on it counts, content included, until close-ok."""
    client.open_channel(2)
    queue = client.declare_queue(2)
    client.send(
        frames(1, [basic_ack(1), queue_purge("no-such-queue"), basic_get(queue)])
        + client.encode_content(1, basic_publish("", queue), body=b"lost")
        + frames(1, [basic_publish("no-such-exchange")])
    )
    client.expect_channel_close(1, 406, "unknown delivery tag 1", 60, 80)
    client.send(frame(2, 1, content_header(3)) + frame(3, 1, b"abc"))
    client.channel_close_ok()
    client.open_channel()

    assert isinstance(client.call(1, basic_get(queue)), Basic.GetEmpty)


def test_crossing_channel_closes(client: WireClient) -> None:
    """Closes that cross are both answered, and then the number is free."""
    client.send(frames(1, [basic_ack(1), channel_close(), channel_close()]))
    client.expect_channel_close(1, 406, "unknown delivery tag 1", 60, 80)
    client.expect(1, Channel.CloseOk)
    client.expect(1, Channel.CloseOk)
    client.channel_close_ok()

    client.open_channel()


def test_errors_of_two_channels_do_not_mix(client: WireClient) -> None:
    """Two channels can be in trouble at once, and be opened again one by one."""
    client.open_channel(2)
    client.send(frames(1, [basic_ack(11)]))
    client.expect_channel_close(1, 406, "unknown delivery tag 11", 60, 80)
    client.send(frames(2, [basic_ack(22)]))
    client.expect_channel_close(2, 406, "unknown delivery tag 22", 60, 80)
    client.send(frames(2, [CHANNEL_CLOSE_OK, channel_open()]))
    client.expect(2, Channel.OpenOk)
    client.send(frames(1, [CHANNEL_CLOSE_OK, channel_open()]))

    client.expect(1, Channel.OpenOk)
