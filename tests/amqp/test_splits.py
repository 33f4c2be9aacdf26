"""However the octets of a conversation are cut, the answer is the same; however they are damaged,
there is one.

The conversation is chosen so that nothing in it depends on where a turn ends, as confirms do, which
are one frame for all that a turn brought.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Connection
from session_support import Session, World
from wire import PLAIN_GUEST, PROTOCOL_HEADER
from wire_methods import (
    TX_COMMIT,
    TX_SELECT,
    Method,
    access_request,
    basic_ack,
    basic_cancel,
    basic_consume,
    basic_get,
    basic_nack,
    basic_publish,
    basic_qos,
    basic_recover,
    channel_close,
    channel_flow,
    channel_open,
    confirm_select,
    connection_close,
    connection_open,
    connection_start_ok,
    connection_tune_ok,
    content_header,
    exchange_bind,
    exchange_declare,
    frame,
    frames,
    properties,
    queue_bind,
    queue_declare,
    queue_delete,
    queue_purge,
    queue_unbind,
    table,
    update_secret,
)

FRAME_MAX = 4096

HANDSHAKE = PROTOCOL_HEADER + frames(
    0,
    [
        connection_start_ok("PLAIN", PLAIN_GUEST, capabilities=("connection.blocked",)),
        connection_tune_ok(10, FRAME_MAX, 0),
        connection_open("/"),
    ],
)


def publish(channel: int, method: Method, body: bytes, *parts: int, **named: object) -> bytes:
    """A message, its body in frames of these sizes and one for the rest."""
    octets = frames(channel, [method])
    octets += frame(2, channel, content_header(len(body), properties(**named)))
    for size in parts:
        octets += frame(3, channel, body[:size])
        body = body[size:]
    return octets + (frame(3, channel, body) if body else b"")


HEADERS = table(("CC", "A", (("S", "q2"),)), ("deep", "F", (("list", "A", (("I", 1),)),)))

CONVERSATION = b"".join(
    [
        HANDSHAKE,
        frames(1, [channel_open(), queue_declare("q"), basic_qos(prefetch_count=100)]),
        frames(1, [queue_declare("q2", arguments=table(("x-any", "S", "thing")))]),
        frames(1, [exchange_declare("x", "topic"), queue_bind("q", "x", "a.*")]),
        frames(2, [channel_open(), basic_consume("q", "tag")]),
        publish(1, basic_publish("", "q"), b"small"),
        publish(1, basic_publish("", "q"), b""),
        publish(1, basic_publish("", "q"), b"again"),
        frame(8, 0, b""),
        publish(1, basic_publish("x", "a.b"), b"x" * 300, 100, 0, 100, content_type="text"),
        publish(1, basic_publish("", "q"), b"keyed", headers=HEADERS, priority=3),
        publish(1, basic_publish("", "none", mandatory=True), b"returned", message_id="1"),
        frames(2, [basic_ack(1), basic_ack(3, multiple=True), basic_nack(4)]),
        frames(1, [basic_get("q2", no_ack=True), basic_get("q2")]),
        frames(1, [queue_purge("q2"), queue_unbind("q", "x", "a.*"), channel_flow(True)]),
        frames(1, [queue_declare("missing", passive=True), basic_get("q2")]),
        publish(1, basic_publish("", "q"), b"ignored"),
        frames(2, [basic_cancel("tag"), basic_ack(0, multiple=True), queue_delete("q2")]),
        frames(0, [update_secret("secret"), connection_close()]),
    ]
)


def answer(pieces: list[bytes], *, turns: bool) -> bytes:
    """What a broker sends to a client that sends these pieces.

    Arguments:
        turns: run turns after each, and not only at the end.
    """
    client = World().accept()
    client.runs_turns = turns
    for piece in pieces:
        client.send(piece)
    client.world.run_turns()
    return client.unread


WHOLE = answer([CONVERSATION], turns=False)


def test_conversation_is_what_it_should_be() -> None:
    """It says all it has to say and ends as it should, so that the tests here test something."""
    client = World().accept()
    client.send(CONVERSATION)
    client.expect(0, Connection.Start)

    received = client.read_frames()

    assert len(received) > 30
    assert [each.payload for each in received if each.type == 3 and each.channel == 2] == [
        b"small", b"again", b"x" * 300, b"keyed"
    ]  # fmt: skip
    assert received[-1].payload == Connection.CloseOk.index.to_bytes(4, "big")
    assert not client.world.queue("q").ready_count


@pytest.mark.parametrize("turns", [False, True], ids=["one-turn", "turns-between"])
def test_every_single_cut(turns: bool) -> None:
    """Cut in two anywhere, the conversation has the same answer, octet for octet."""
    for cut in range(len(CONVERSATION) + 1):
        assert answer([CONVERSATION[:cut], CONVERSATION[cut:]], turns=turns) == WHOLE, cut


@pytest.mark.parametrize("turns", [False, True], ids=["one-turn", "turns-between"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 64, 1000])
def test_equal_pieces(size: int, turns: bool) -> None:
    """So has it octet by octet, and in pieces of any size."""
    pieces = [CONVERSATION[at : at + size] for at in range(0, len(CONVERSATION), size)]

    assert answer(pieces, turns=turns) == WHOLE


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=30).map(sorted), st.booleans())
def test_random_cuts(cuts: list[int], turns: bool) -> None:
    """And so it has in pieces of random sizes, empty ones among them."""
    starts = [0, *cuts]
    ends = [*cuts, len(CONVERSATION)]
    pieces = [CONVERSATION[start:end] for start, end in zip(starts, ends, strict=True)]

    assert answer(pieces, turns=turns) == WHOLE


# Damage

#: Every kind of method, so that damage finds them all; errors follow each other on channels 3 on.
EVERYTHING = b"".join(
    [
        CONVERSATION[: -len(frames(0, [connection_close()]))],
        frames(3, [channel_open(), confirm_select(), access_request("/")]),
        frames(3, [exchange_bind("x", "amq.fanout", "k"), basic_recover(requeue=True)]),
        frames(4, [channel_open(), TX_SELECT, queue_declare("q3", durable=True)]),
        publish(4, basic_publish("amq.headers", ""), b"tx", headers=HEADERS, delivery_mode=2),
        frames(4, [TX_COMMIT, basic_consume("q3"), channel_close()]),
        publish(3, basic_publish("", "q3"), b"confirmed", expiration="60000", user_id="guest"),
        frames(3, [basic_consume("amq.rabbitmq.reply-to", no_ack=True)]),
        publish(3, basic_publish("", "q3"), b"question", reply_to="amq.rabbitmq.reply-to"),
    ]
)

MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["change", "insert", "delete", "repeat", "swap"]),
        st.integers(0, len(EVERYTHING) - 1),
        st.integers(1, 40),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=6,
)


def damaged(mutations: list[tuple[str, int, int, bytes]]) -> bytes:
    """The conversation with something done to it."""
    octets = EVERYTHING
    for kind, at, size, new in mutations:
        at %= len(octets)
        before, here, after = octets[:at], octets[at : at + size], octets[at + size :]
        if kind == "change":
            octets = before + new + octets[at + len(new) :]
        elif kind == "insert":
            octets = before + new + here + after
        elif kind == "delete":
            octets = before + after or b"\0"
        elif kind == "repeat":
            octets = before + here + here + after
        else:
            octets = before + after[:size] + here + after[size:]
    return octets


def check_answer(client: Session) -> None:
    """What came is whole frames, none of them an admission of a fault; or it is a silent end."""
    unread = client.unread
    if unread.endswith(PROTOCOL_HEADER):
        assert client.ended()
        client.drop_unread()
    for received in client.read_frames():
        close = received.payload[:4] == Connection.Close.index.to_bytes(4, "big")
        if received.type == 1 and received.channel == 0 and close:
            assert received.payload[4:6] != (541).to_bytes(2, "big"), "a fault of the broker"
    client.world.advance(100_000)
    client.hang_up()
    assert not client.world.node.sessions
    assert client.world.node.open_connections == 0
    for queue in client.world.vhost.queues.values():
        assert queue.unacked_count == 0
        assert queue.ready_count == len(queue.ready)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MUTATIONS, st.integers(1, 2000))
def test_damaged_conversation(mutations: list[tuple[str, int, int, bytes]], size: int) -> None:
    """No damage raises, hangs, or gets more than frames or silence for an answer."""
    client = World(frame_max_bytes=FRAME_MAX).accept()
    octets = damaged(mutations)

    for start in range(0, len(octets), size):
        client.send(octets[start : start + size])

    check_answer(client)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_rubbish_after_the_handshake(octets: bytes) -> None:
    """Octets that mean nothing do no harm to a running connection's broker."""
    client = World().accept()
    client.send(HANDSHAKE)

    client.send(octets)

    check_answer(client)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 1, 1, 2, 3, 8]),
            st.integers(0, 3),
            st.one_of(
                st.binary(max_size=30),
                st.tuples(
                    st.sampled_from([10, 20, 30, 40, 50, 60, 85, 90]),
                    st.sampled_from([10, 11, 20, 21, 30, 31, 40, 41, 50, 60, 70, 80, 90, 100, 120]),
                    st.binary(max_size=30),
                ).map(lambda each: Method(*each).payload),
                st.integers(0, 40).map(content_header),
            ),
        ),
        max_size=20,
    )
)
def test_well_formed_frames_of_no_meaning(each: list[tuple[int, int, bytes]]) -> None:
    """Frames of any kind and method, on any channel, in any order, are answered or ignored."""
    client = World().accept()
    client.send(HANDSHAKE + frames(1, [channel_open(), queue_declare("q")]))

    client.send(b"".join(frame(*parts) for parts in each))

    check_answer(client)


def test_damage_finds_publishes_of_every_kind() -> None:
    """The conversation that is damaged is sound before."""
    client = World(frame_max_bytes=FRAME_MAX).accept()
    client.send(EVERYTHING)

    frames_ = client.read_frames()

    methods = {each.payload[:4] for each in frames_ if each.type == 1}
    assert Connection.Close.index.to_bytes(4, "big") not in methods
    assert Basic.Ack.index.to_bytes(4, "big") in methods
    assert client.world.queue("q3").ready_count == 2
