"""Sessions: AMQP 0-9-1 as bytes in and bytes out, without sockets, loops or clocks of its own."""
