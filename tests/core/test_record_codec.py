"""Records as bytes and back."""

import pytest
from core_support import a_message
from generated_tables import entries
from hypothesis import given
from hypothesis import strategies as st

from broker.core.message import Message
from broker.core.record_codec import (
    COMMITTED,
    PUBLISHED,
    SETTLED,
    VERSION,
    UnreadableRecord,
    decode,
    encode,
    encode_published,
)
from broker.core.records import (
    Bound,
    Committed,
    Counters,
    Delivered,
    ExchangeDeclared,
    ExchangeDeleted,
    Published,
    PublishedTogether,
    Purged,
    QueueDeclared,
    QueueDeleted,
    Record,
    Settled,
    Started,
    Stopped,
    Unbound,
)
from broker.core.table import Table

#: Names as they come in: any bytes of a client, decoded with surrogateescape.
names = st.binary(max_size=60).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
ids = st.integers(0, 2**64 - 1)
several_ids = st.lists(ids, max_size=8)
tables = entries.map(Table.encode)
flags = st.booleans()
keys = st.binary(max_size=255)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A message that was accepted."""
    message = a_message(
        draw(st.binary(max_size=300)),
        persistent=True,
        exchange=draw(st.text(max_size=40)),
        routing_key=draw(st.text(max_size=40)),
    )
    message.message_id = draw(ids)
    message.published_ms = draw(ids)
    return message


published = st.builds(Published, messages(), several_ids)
others = st.one_of(
    st.builds(Settled, ids, several_ids),
    st.builds(Delivered, ids, several_ids),
    st.builds(QueueDeclared, names, ids, names, flags, tables),
    st.builds(QueueDeleted, names, ids, names),
    st.builds(ExchangeDeclared, names, names, names, flags, flags, tables),
    st.builds(ExchangeDeleted, names, names),
    st.builds(Bound, names, names, names, flags, keys, tables),
    st.builds(Unbound, names, names, names, flags, keys, tables),
    st.builds(Counters, ids, ids),
    st.builds(Started),
    st.builds(Stopped),
)
records = st.one_of(published, others)


def contents(record: Record) -> dict[str, object]:
    """Every attribute of `record`, to compare."""
    values: dict[str, object] = {}
    for kind in type(record).__mro__:
        for name in getattr(kind, "__slots__", ()):
            value = getattr(record, name)
            if isinstance(value, Message):
                value = [getattr(value, each) for each in Message.__slots__]
            values[name] = tuple(value) if isinstance(value, list) else value
    return values


@given(records)
def test_every_record_comes_back(record: Record) -> None:
    """What is encoded is decoded to the same kind with the same contents."""
    kind, payload = encode(record)
    decoded = decode(kind, VERSION, payload)

    assert type(decoded) is type(record)
    assert contents(decoded) == contents(record)


def test_every_kind_of_record_is_tried() -> None:
    """The test above leaves out only what is encoded as something else, or by the storage."""
    tried = {Published, Settled, Delivered, QueueDeclared, QueueDeleted, ExchangeDeclared}
    tried |= {ExchangeDeleted, Bound, Unbound, Counters, Started, Stopped}
    leaves = set[type[Record]]()
    waiting: list[type[Record]] = [Record]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not kind.__subclasses__() or kind is Settled:
            leaves.add(kind)

    assert leaves - tried == {Purged, PublishedTogether, Committed}


@given(ids, several_ids)
def test_a_purge_is_a_settlement(queue_id: int, message_ids: list[int]) -> None:
    """What is special about a purge concerns the present and is not kept."""
    assert encode(Purged(queue_id, message_ids)) == encode(Settled(queue_id, message_ids))


def test_a_body_of_no_octets_comes_back_without_a_frame() -> None:
    """An empty body has no frame, and gets none by being stored."""
    record = Published(a_message(b"", persistent=True), [1])
    decoded = decode(PUBLISHED, VERSION, encode_published(record))

    assert isinstance(decoded, Published)
    assert decoded.message.body_frame == b""
    assert decoded.message.body_size == 0


@given(records, st.integers(2, 255))
def test_a_version_of_the_future_is_unreadable(record: Record, version: int) -> None:
    """A record that a newer broker wrote is refused, not misread."""
    kind, payload = encode(record)

    with pytest.raises(UnreadableRecord, match=f"version {version}"):
        decode(kind, version, payload)


@pytest.mark.parametrize("kind", [0, COMMITTED, 14, 127])
def test_an_unknown_kind_is_unreadable(kind: int) -> None:
    """A kind that this version does not know is refused; a transaction is the storage's."""
    with pytest.raises(UnreadableRecord, match=f"unknown record kind {kind}"):
        decode(kind, VERSION, b"")


@given(records, st.data())
def test_a_shorter_record_is_unreadable(record: Record, data: st.DataObject) -> None:
    """A record that ends early raises UnreadableRecord and nothing else."""
    kind, payload = encode(record)
    if payload:
        length = data.draw(st.integers(0, len(payload) - 1))
        with pytest.raises(UnreadableRecord):
            decode(kind, VERSION, payload[:length])


@given(records, st.binary(min_size=1, max_size=9))
def test_a_longer_record_is_unreadable(record: Record, rest: bytes) -> None:
    """Octets behind a record's last field mean that it was written by other rules."""
    kind, payload = encode(record)

    with pytest.raises(UnreadableRecord):
        decode(kind, VERSION, payload + rest)


@given(st.integers(0, 13), st.binary(max_size=80))
def test_arbitrary_octets_are_read_or_refused(kind: int, payload: bytes) -> None:
    """Whatever the octets are, the only error is UnreadableRecord."""
    try:
        decode(kind, VERSION, payload)
    except UnreadableRecord:
        return


def test_a_malformed_table_is_unreadable() -> None:
    """The arguments of a definition are checked like those of a client."""
    kind, payload = encode(ExchangeDeclared("/", "x", "direct", False, False, Table.EMPTY))
    broken = payload[:-4] + (3).to_bytes(4, "big") + b"\x01a?"

    with pytest.raises(UnreadableRecord, match="does not add up"):
        decode(kind, VERSION, broken)


def test_the_layout_of_a_settlement() -> None:
    """Queue id, number of messages, their ids: the layout of the documentation, byte by byte."""
    kind, payload = encode(Settled(3, [5, 256]))

    assert kind == SETTLED
    assert payload.hex(" ", 4) == ("00000000 00000003 00000002 00000000 00000005 00000000 00000100")
