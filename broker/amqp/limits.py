"""What a session allows: the settings it needs, handed in by the broker."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """See `broker.config.Config` for the meaning of each; the names are the same."""

    frame_max_bytes: int = 131_072
    frame_max_initial_bytes: int = 8192
    channel_max: int = 2047
    heartbeat_seconds: int = 60
    handshake_timeout_ms: int = 10_000
    silent_close_pause_ms: int = 3000
    message_bytes_max: int = 134_217_728
    header_depth_max: int = 32
    header_fields_max: int = 4096
    write_buffer_high_bytes: int = 1 << 20
    write_buffer_bytes_max: int = 32 << 20
    write_stall_ms: int = 30_000
    blocked_input_bytes_max: int = 1 << 20
    input_work_per_turn: int = 2000
    replies_waiting_max: int = 10_000
    consumers_per_channel_max: int = 0
    connections_max: int = 0
