"""A channel: publishes come in, deliveries go out, acknowledgements settle them.

This file is the hot path of the broker and the state it needs; what a client does once in a while
(declaring, binding, consuming, transactions) is in the modules of methods beside it, as functions
of a channel. All of it runs to the end when called: nothing here waits.

A content arrives as a method, a header and bodies. While it is incomplete the channel holds it in
`content` and accepts nothing else; a publish is judged only when it is whole, in RabbitMQ's order
of checks, so that the frames behind a refused publish are not mistaken for something new.
"""

from struct import Struct
from typing import TYPE_CHECKING, Final

from pamqp import base, commands

from broker.amqp import methods
from broker.amqp.content import Content, Publish
from broker.amqp.frames import METHOD_HEAD, OVERHEAD, content_frames
from broker.amqp.input import REPLIES
from broker.amqp.promises import Begins, Confirms, Replies
from broker.core.arguments import parse_expiration
from broker.core.consumer import Consumer, Sink
from broker.core.message import (
    ACTED_ON,
    PERSISTENT,
    PROPERTIES_AT,
    MalformedHeader,
    Message,
    Properties,
    peek_properties,
)
from broker.core.properties import (
    extra_routing_keys,
    headers_table,
    with_reply_to,
    without_header,
)
from broker.core.queue import Entry
from broker.core.reply import REPLY_TO
from broker.core.table import TableError
from broker.core.transaction import Settlement, Transaction
from broker.errors import NotImplemented_, PreconditionFailed, SyntaxError_

if TYPE_CHECKING:
    from broker.amqp.connection import Connection

#: delivery tag, redelivered: the part of basic.deliver that is new each time
_TAG: Final = Struct(">QB")

_DELIVER: Final = commands.Basic.Deliver.index
_ACK: Final = commands.Basic.Ack.index
_METHOD_OCTETS: Final = 4
_REPLY_TO: Final = REPLY_TO.encode()

#: Octets of a delivery's frames that are neither header nor body, roughly: for the write buffer.
DELIVERY_OVERHEAD: Final = 128

#: A header of flags 0x1000 has the delivery mode and nothing else.
_MODE_ONLY: Final = 0x1000


class Channel(Sink):
    """One channel of a connection."""

    __slots__ = (
        "_body_octets_max",
        "_body_open",
        "_header_open",
        "_output",
        "answered",
        "closing",
        "committing",
        "confirms",
        "connection",
        "consumers",
        "content",
        "direct",
        "global_prefetch",
        "last_delivery_tag",
        "last_queue",
        "limited",
        "limited_from_tag",
        "lowest_unacked",
        "noted_promises",
        "number",
        "parked",
        "prefetch_count",
        "replies",
        "reply_consumer",
        "transaction",
        "unacked",
        "vhost",
    )

    def __init__(self, connection: "Connection", number: int) -> None:
        super().__init__()
        self.connection = connection
        self.number = number
        self.vhost = connection.vhost
        self._output = connection.output
        self.saturated = connection.output.saturated
        self.accepting = not connection.output.congested
        #: channel.close was sent; until close-ok comes everything else is ignored
        self.closing = False
        #: a close of the client was answered, so that the number is free
        self.answered = False
        #: a publish met an alarm: frames are held back
        self.parked = False
        self.content: Content | None = None
        #: open, and nothing stands between it and its next method
        self.direct = True
        self.consumers: dict[str, Consumer] = {}
        #: the waiting end for direct replies
        self.reply_consumer: Consumer | None = None
        #: name of the queue last declared here, which an empty queue name stands for
        self.last_queue = ""
        #: limit of each consumer that starts from now on; 0 for none
        self.prefetch_count = 0
        #: limit shared by all consumers of the channel; 0 for none
        self.global_prefetch = 0
        #: deliveries that count against it, and the tag from which basic.get does not
        self.limited = 0
        self.limited_from_tag = 0
        self.last_delivery_tag = 0
        #: deliveries to be settled, by tag; no tag below `lowest_unacked` is in it
        self.unacked: dict[int, Entry] = {}
        self.lowest_unacked = 1
        self.confirms: Confirms | None = None
        self.transaction: Transaction | None = None
        #: tx.commit waits for its position
        self.committing = False
        self.replies = Replies()
        #: in the connection's list of channels with promises
        self.noted_promises = False
        octets = number.to_bytes(2, "big")
        self._header_open = b"\xce\x02" + octets
        self._body_open = b"\x03" + octets
        self._body_octets_max = connection.frame_octets_max - OVERHEAD

    # Publishes come in.

    def begin_content(self, publish: Publish) -> None:
        """A basic.publish arrived; its content follows."""
        self.content = Content(publish)
        self.direct = False

    def end_content(self) -> None:
        """The content is whole, or refused."""
        self.content = None
        self.direct = True

    def park(self) -> None:
        """Hold back whatever comes from now on."""
        self.direct = False
        self.parked = True

    def unpark(self) -> None:
        """Accept frames again."""
        self.parked = False
        self.direct = self.content is None

    def publish(
        self,
        publish: Publish,
        header_frame: bytes,
        flags: int,
        body_frame: bytes,
        body_size: int,
    ) -> None:
        """Take a whole message.

        Arguments:
            header_frame, body_frame: in frame form.
            flags: the property flags of the header.

        Raises what RabbitMQ answers to a publish it refuses.
        """
        if publish.immediate:
            raise NotImplemented_("immediate=true")
        connection = self.connection
        bytes_max = connection.limits.message_bytes_max
        if body_size > bytes_max:
            raise PreconditionFailed(
                f"message size {body_size} is larger than configured max size {bytes_max}"
            )
        route = publish.route
        vhost = self.vhost
        if route.generation == vhost.generation:
            targets = route.targets
        else:
            targets = vhost.resolve(route)
        if not flags and len(header_frame) == PROPERTIES_AT + 1:
            message = Message(route.address, header_frame, body_frame, body_size, False)
        elif flags == _MODE_ONLY and len(header_frame) == PROPERTIES_AT + 2:
            message = Message(
                route.address,
                header_frame,
                body_frame,
                body_size,
                header_frame[PROPERTIES_AT] == PERSISTENT,
            )
        else:
            found = self._peek(header_frame, flags)
            message = Message(
                route.address,
                header_frame,
                body_frame,
                body_size,
                found.delivery_mode == PERSISTENT,
                found.priority,
            )
            if flags & ACTED_ON:
                extra_keys = self._heed_properties(message, found)
                if extra_keys:
                    targets = vhost.route_message(
                        route, extra_keys, header_frame[found.headers_start : found.headers_end]
                    )
                elif targets is None:
                    targets = vhost.route_message(
                        route, [], header_frame[found.headers_start : found.headers_end]
                    )
        if targets is None:
            targets = vhost.route_message(route, [], b"")
        connection.work += len(targets) or 1
        if self.transaction is not None:
            self.transaction.publish(message, targets)
            if not targets and publish.mandatory:
                self.transaction.unroutable.append(message)
            return
        if targets:
            position = vhost.publish(message, targets)
        else:
            position = 0
            if publish.mandatory:
                self.send_return(message)
        confirms = self.confirms
        if confirms is not None:
            if confirms.add(position, connection.store.durable):
                if not self.noted_promises:
                    connection.note_promises(self)
            else:
                connection.await_store()

    def _peek(self, header_frame: bytes, flags: int) -> Properties:
        limits = self.connection.limits
        try:
            return peek_properties(
                header_frame, flags, limits.header_depth_max, limits.header_fields_max
            )
        except (MalformedHeader, TableError, IndexError):
            raise SyntaxError_("malformed properties in content header") from None

    def _heed_properties(self, message: Message, found: Properties) -> list[bytes]:
        """Do what the properties of `message` ask for; returns its extra routing keys."""
        if found.reply_to is not None and found.reply_to == _REPLY_TO:
            if self.reply_consumer is None:
                raise PreconditionFailed("fast reply consumer does not exist")
            message.header_frame = with_reply_to(
                message.header_frame, found, self.reply_consumer.queue.name
            )
        if found.expiration is not None:
            message.time_to_live_ms = parse_expiration(found.expiration)
        extra_keys: list[bytes] = []
        header_frame = message.header_frame
        if header_frame.find(b"CC", found.headers_start, found.headers_end) >= 0:
            headers = headers_table(header_frame, found)
            extra_keys = extra_routing_keys(headers, "CC")
            blind_keys = extra_routing_keys(headers, "BCC")
            if headers.get("BCC") is not None:
                message.header_frame = without_header(header_frame, found, "BCC")
            extra_keys += blind_keys
        user = self.connection.user
        if found.user_id is not None and "impersonator" not in user.tags:
            user_id = found.user_id.decode("utf-8", "replace")
            if user_id != user.name:
                raise PreconditionFailed(
                    f"user_id property set to '{user_id}' but authenticated user was '{user.name}'"
                )
        return extra_keys

    def send_return(self, message: Message) -> None:
        """basic.return for a mandatory message that no queue took."""
        text = b"NO_ROUTE"
        payload = (
            METHOD_HEAD.pack(
                1,
                self.number,
                4 + 3 + len(text) + len(message.address),
                commands.Basic.Return.index,
            )
            + (312).to_bytes(2, "big")
            + bytes((len(text),))
            + text
            + message.address
            + b"\xce"
        )
        self._send_content(payload, message)

    def send_got(self, entry: Entry, tag: int, ready_count: int) -> bytes:
        """The frames of basic.get-ok."""
        message = entry.message
        method = (
            METHOD_HEAD.pack(
                1, self.number, 4 + 9 + len(message.address) + 4, commands.Basic.GetOk.index
            )
            + _TAG.pack(tag, entry.redelivered)
            + message.address
            + ready_count.to_bytes(4, "big")
            + b"\xce"
        )
        frames = content_frames(
            self.number, message.header_frame, message.body_frame, self._body_octets_max
        )
        return b"".join((method, *frames))

    def _send_content(self, method: bytes, message: Message) -> None:
        output = self._output
        output.pieces.append(method)
        output.pieces += content_frames(
            self.number, message.header_frame, message.body_frame, self._body_octets_max
        )
        output.count(len(method) + len(message.header_frame) + message.body_size)
        if output.size_bytes > output.limit_bytes:
            self.connection.congest()

    # Deliveries go out.

    def deliver(self, consumer: Consumer, message: Message, entry: Entry | None) -> None:
        self.last_delivery_tag = tag = self.last_delivery_tag + 1
        redelivered = False
        if entry is not None:
            redelivered = entry.redelivered
            if not consumer.no_ack:
                self.unacked[tag] = entry
                if self.global_prefetch:
                    self.limited += 1
                    if self.limited >= self.global_prefetch:
                        self.accepting = False
        address = message.address
        head = consumer.deliver_heads.get(len(address))
        if head is None:
            head = self._deliver_head(consumer, len(address))
        output = self._output
        size = message.body_size
        if not size:
            output.pieces += (
                head,
                _TAG.pack(tag, redelivered),
                address,
                self._header_open,
                message.header_frame,
            )
        elif size <= self._body_octets_max:
            output.pieces += (
                head,
                _TAG.pack(tag, redelivered),
                address,
                self._header_open,
                message.header_frame,
                self._body_open,
                message.body_frame,
            )
        else:
            output.pieces += (head, _TAG.pack(tag, redelivered), address, b"\xce")
            output.pieces += content_frames(
                self.number, message.header_frame, message.body_frame, self._body_octets_max
            )
        output.size_bytes = total = (
            output.size_bytes + size + len(message.header_frame) + DELIVERY_OVERHEAD
        )
        if not output.noted:
            output.note()
        if total > output.limit_bytes:
            self.connection.congest()

    def _deliver_head(self, consumer: Consumer, address_length: int) -> bytes:
        """What begins each basic.deliver to `consumer` with an address of that length."""
        tag = consumer.tag.encode("utf-8", "surrogateescape")
        size = _METHOD_OCTETS + 1 + len(tag) + _TAG.size + address_length
        head = METHOD_HEAD.pack(1, self.number, size, _DELIVER) + bytes((len(tag),)) + tag
        consumer.deliver_heads[address_length] = head
        return head

    def is_able(self) -> bool:
        limit = self.global_prefetch
        return not self._output.congested and (not limit or self.limited < limit)

    def cancelled(self, consumer: Consumer) -> None:
        self.refused.pop(consumer, None)
        if self.consumers.pop(consumer.tag, None) is not None:
            self.connection.tell_cancelled(self, consumer.tag)

    # Deliveries are settled.

    def settle(self, tag: int, multiple: bool, settlement: Settlement) -> None:
        """basic.ack, basic.nack and basic.reject.

        Raises PreconditionFailed for a tag that is not outstanding; then nothing was settled.
        """
        if multiple:
            self._settle_up_to(tag, settlement)
            return
        entry = self.unacked.pop(tag, None)
        if entry is None:
            raise PreconditionFailed(f"unknown delivery tag {tag}")
        if self.transaction is not None:
            self.transaction.settle(tag, entry, settlement)
            return
        if self.global_prefetch:
            self.unlimit(tag, entry)
        if settlement is Settlement.ACK:
            entry.queue.ack(entry)
        elif settlement is Settlement.REJECT:
            entry.queue.reject(entry)
        else:
            entry.queue.requeue(entry)

    def _settle_up_to(self, tag: int, settlement: Settlement) -> None:
        unacked = self.unacked
        if not tag:
            tag = self.last_delivery_tag
        elif tag not in unacked:
            raise PreconditionFailed(f"unknown delivery tag {tag}")
        # Tags are consecutive: each number is visited once in a channel's life, unless one old
        # tag is held while many are settled singly; then the keys are fewer than the numbers.
        if tag - self.lowest_unacked < 2 * len(unacked):
            tags = [number for number in range(self.lowest_unacked, tag + 1) if number in unacked]
        else:
            tags = sorted([number for number in unacked if number <= tag])
        self.lowest_unacked = tag + 1
        self.connection.work += len(tags) // 8
        for number in tags:
            self.settle(number, False, settlement)

    def limit_together(self, prefetch_count: int) -> None:
        """Limit what all consumers of the channel hold; whatever is outstanding now counts."""
        self.global_prefetch = prefetch_count
        # What is settled in a transaction is outstanding until it commits.
        transaction = self.transaction
        self.limited = len(self.unacked) + (0 if transaction is None else len(transaction.tags))
        self.limited_from_tag = self.last_delivery_tag

    def unlimit(self, tag: int, entry: Entry) -> None:
        """`entry` no longer counts against the channel-wide limit."""
        if entry.consumer is not None or tag <= self.limited_from_tag:
            self.limited -= 1
            if not self.accepting and self.limited < self.global_prefetch:
                self.reconsider(self.connection.turn)

    def give_back(self, transaction: Transaction) -> None:
        """Have the deliveries settled in `transaction` outstanding again, under the same tags."""
        for tag, (entry, _) in zip(transaction.tags, transaction.settlements, strict=True):
            self.unacked[tag] = entry
            self.lowest_unacked = min(self.lowest_unacked, tag)

    def requeue_all(self) -> None:
        """Give every unsettled delivery back to its queue (basic.recover, the channel's end)."""
        unacked, self.unacked = self.unacked, {}
        self.lowest_unacked = self.last_delivery_tag + 1
        for tag in sorted(unacked):
            entry = unacked[tag]
            if self.global_prefetch:
                self.unlimit(tag, entry)
            entry.queue.requeue(entry)
        self.reconsider(self.connection.turn)

    # Promises.

    def reply(self, command: type[base.Frame], position: int = 0, **arguments: object) -> None:
        """Answer a synchronous method once `position` is durable, after all earlier answers."""
        self.reply_frames(methods.encode(command, self.number, **arguments), position)

    def reply_frames(self, frames: bytes, position: int = 0, begins: Begins | None = None) -> None:
        """Send `frames` once `position` is durable and earlier replies are sent; then it begins."""
        if position <= self.connection.store.durable and not self.replies:
            self.keep_confirms()
            self.connection.send(frames)
            if begins is not None:
                begins()
            return
        self.replies.add(position, frames, begins)
        self.connection.await_store()
        if len(self.replies) >= self.connection.limits.replies_waiting_max:
            self.connection.pause(REPLIES)

    def keep_confirms(self) -> None:
        """Send the confirms that are due."""
        if self.confirms is None:
            return
        due = self.confirms.take(self.connection.store.durable)
        if due is not None:
            tag, multiple = due
            self.connection.send(
                METHOD_HEAD.pack(1, self.number, _METHOD_OCTETS + _TAG.size, _ACK)
                + _TAG.pack(tag, multiple)
                + b"\xce"
            )

    def keep_promises(self) -> None:
        """Send the confirms and replies that are due."""
        self.noted_promises = False
        if self.closing:
            return
        self.keep_confirms()
        durable = self.connection.store.durable
        while (due := self.replies.take(durable)) is not None:
            frames, begins = due
            self.connection.send(frames)
            if begins is not None:
                begins()
        if len(self.replies) <= self.connection.limits.replies_waiting_max // 2:
            self.connection.unpause(REPLIES)

    @property
    def awaits_store(self) -> bool:
        """Whether a promise waits for a position."""
        return bool(self.replies) or (self.confirms is not None and self.confirms.is_waiting)

    # The end.

    def release(self) -> None:
        """Undo what the channel holds: its consumers, then its unsettled deliveries."""
        self.content = None
        self.parked = False
        self.direct = False
        consumers, self.consumers = self.consumers, {}
        self.refused.clear()
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            self.give_back(transaction)
        for consumer in consumers.values():
            self.vhost.cancel(consumer)
        self.reply_consumer = None
        self.requeue_all()
        self.confirms = None
        self.replies = Replies()
