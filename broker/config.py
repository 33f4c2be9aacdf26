"""Every setting of the broker, declared once.

A field of `Config` is the whole declaration of a setting: its name (with the unit in it), type,
default, limits and help. The configuration file, the command line, `docs/configuration.md` and the
validation are all read from these fields, so a new setting is one new field and nothing else.

`None` cannot be written in TOML or on a command line. A setting that may be `None` and must be
settable to it says with which word (`none=":memory:"`).
"""

import difflib
import tomllib
import types
import typing
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")

KIB = 1024
MIB = 1024 * KIB


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type or out of range; the text is for the user."""


def setting(
    default: Value,
    help: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
    none: str | None = None,
) -> Value:
    """Declare one setting as a dataclass field.

    `minimum` and `maximum` are inclusive, for numbers; `choices` are the allowed texts; `none` is
    the word that stands for `None` in a configuration file and on the command line.
    """
    declared: Value = field(
        default=default,
        metadata={
            "help": help,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "none": none,
        },
    )
    return declared


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one broker. Raises `ConfigError` for a value that makes no sense."""

    host: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"),
        "Addresses to listen on. An address of the default that this machine does not have is "
        "left out; one that was asked for must exist.",
    )
    port: int = setting(
        5672, "Port to listen on; 0 lets the system pick one.", minimum=0, maximum=65535
    )
    listen_backlog: int = setting(
        128, "Connections the system may hold before they are accepted.", minimum=1
    )
    data_dir: str | None = setting(
        None, "Directory for what outlives a restart; `:memory:` keeps nothing.", none=":memory:"
    )

    memory_budget_bytes: int = setting(
        0,
        "Memory for the contents of waiting messages; above it, contents far from the head of a "
        "queue are let go and read from disk again. 0: an eighth of this machine's memory.",
        minimum=0,
    )
    segment_bytes: int = setting(
        64 * MIB, "Size of one file of the log; the log is cleaned file by file.", minimum=64 * KIB
    )

    log_level: str = setting(
        "info",
        "Least severe log lines that are written.",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = setting(
        "text", "Log lines as text or as one JSON object each.", choices=("text", "json")
    )

    product: str = setting("RabbitMQ", "Product announced to clients; some choose features by it.")
    product_version: str = setting(
        "3.13.7", "Version announced to clients; some choose features by it."
    )
    cluster_name: str | None = setting(
        None, "Name announced to clients; `rabbit@` and the name of this machine if not given."
    )

    default_user: str = setting("guest", "User that a new broker starts with.")
    default_password: str = setting("guest", "Password of that user.")
    default_vhost: str = setting("/", "Virtual host that a new broker starts with.")
    loopback_users: tuple[str, ...] = setting(
        ("guest",), "Users that may log in from this machine only."
    )

    handshake_timeout_ms: int = setting(
        10_000, "A client must have opened its connection within this time.", minimum=1
    )
    silent_close_pause_ms: int = setting(
        3_000,
        "Pause before the socket of a client that cannot be told why is closed, which slows down "
        "guessing.",
        minimum=0,
    )
    heartbeat_seconds: int = setting(
        60, "Heartbeat interval proposed to clients; 0 proposes none.", minimum=0, maximum=65535
    )
    shutdown_timeout_ms: int = setting(
        10_000, "How long a graceful stop waits for clients to answer.", minimum=0
    )

    connections_max: int = setting(0, "Open connections; 0 is no limit.", minimum=0)
    channel_max: int = setting(
        2047, "Channels of one connection, proposed to clients.", minimum=1, maximum=65535
    )
    consumers_per_channel_max: int = setting(
        0, "Consumers of one channel; 0 is no limit.", minimum=0
    )
    replies_waiting_max: int = setting(
        10_000, "Replies of one channel that may wait to be durable.", minimum=1
    )

    frame_max_bytes: int = setting(
        128 * KIB,
        "Largest frame, proposed to clients.",
        minimum=4 * KIB,
        maximum=2**31 - 1,
    )
    frame_max_initial_bytes: int = setting(
        8 * KIB,
        "Largest frame before a client has logged in.",
        minimum=4 * KIB,
        maximum=2**31 - 1,
    )
    message_bytes_max: int = setting(128 * MIB, "Largest message body.", minimum=1)
    header_depth_max: int = setting(
        32, "How deep tables and lists may be nested in a header or an argument.", minimum=1
    )
    header_fields_max: int = setting(
        4096, "Fields in one table, those of nested tables and lists included.", minimum=1
    )

    write_buffer_high_bytes: int = setting(
        1 * MIB,
        "A connection with more than this to be written gets no deliveries until it has drained.",
        minimum=1,
    )
    write_buffer_bytes_max: int = setting(
        32 * MIB, "A connection with more than this to be written is not read.", minimum=1
    )
    write_stall_ms: int = setting(
        30_000,
        "A connection above `write_buffer_bytes_max` that does not drain within this time is "
        "closed.",
        minimum=1,
    )
    blocked_input_bytes_max: int = setting(
        1 * MIB,
        "Input held for one connection whose publishes wait for an alarm to clear; past it the "
        "connection is not read.",
        minimum=0,
    )

    input_work_per_turn: int = setting(
        2000,
        "Work one connection may cause in one turn of the loop, in messages times target queues.",
        minimum=1,
    )
    dispatch_messages_per_turn: int = setting(
        1000, "Messages delivered in one turn of the loop.", minimum=1
    )
    dispatch_bytes_per_turn: int = setting(
        4 * MIB, "Message bytes delivered in one turn of the loop.", minimum=1
    )

    def __post_init__(self) -> None:
        for declaration in settings().values():
            declaration.check(getattr(self, declaration.name))
        if not self.host:
            raise ConfigError("host must name at least one address")
        if self.write_buffer_high_bytes > self.write_buffer_bytes_max:
            raise ConfigError(
                f"write_buffer_high_bytes ({self.write_buffer_high_bytes}) must not be above "
                f"write_buffer_bytes_max ({self.write_buffer_bytes_max})"
            )

    def is_default(self, name: str) -> bool:
        """Whether the setting `name` has its default value."""
        return bool(getattr(self, name) == settings()[name].default)

    @classmethod
    def load(cls, path: str | Path, **defaults: Any) -> "Config":
        """Read the settings in the TOML file at `path`; the others keep their defaults.

        Arguments:
            defaults: values for settings that the file does not give, instead of the declared ones.

        Raises `ConfigError` naming the file when it cannot be read, is not TOML, or holds an
        unknown key or a value that does not fit.
        """
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:  # not UTF-8, or not TOML
            raise ConfigError(f"{path} is not a TOML file: {error}") from error
        try:
            given = {key: _find(key).parse(value) for key, value in document.items()}
            return cls(**{**defaults, **given})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting, as read from the fields of `Config`."""

    name: str
    type: Any
    default: Any
    help: str
    minimum: int | None
    maximum: int | None
    choices: tuple[str, ...]
    none: str | None

    @property
    def optional(self) -> bool:
        """Whether the value may be `None`."""
        return isinstance(self.type, types.UnionType)

    @property
    def plain_type(self) -> Any:
        """The type without `None`: one of `str`, `int`, `bool`, `float`, `tuple[str, ...]`."""
        return typing.get_args(self.type)[0] if self.optional else self.type

    @property
    def many(self) -> bool:
        """Whether the value is a list of strings."""
        return typing.get_origin(self.plain_type) is tuple

    def parse(self, value: Any) -> Any:
        """Turn a value of a configuration file or a command line into one for `Config`."""
        if self.none is not None and value == self.none:
            return None
        if self.many and isinstance(value, list):  # a TOML array
            return tuple(value)
        return value

    def check(self, value: object) -> None:
        """Raise `ConfigError` unless `value` has the right type and is within the limits."""
        if value is None and self.optional:
            return
        if not self._fits(value):
            raise ConfigError(f"{self.name} must be {self._expected()}, not {_describe(value)}")
        if self.choices and value not in self.choices:
            raise ConfigError(
                f"{self.name} must be one of {', '.join(self.choices)}, not {value!r}"
            )
        if isinstance(value, int | float):
            self._check_limits(value)

    def _fits(self, value: object) -> bool:
        if self.many:
            return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        if isinstance(value, bool):  # to Python a bool is an int, to a user it is not
            return self.plain_type is bool
        return isinstance(value, int | float if self.plain_type is float else self.plain_type)

    def _check_limits(self, value: float) -> None:
        if self.minimum is not None and value < self.minimum:
            raise ConfigError(f"{self.name} must be at least {self.minimum}, not {value}")
        if self.maximum is not None and value > self.maximum:
            raise ConfigError(f"{self.name} must be at most {self.maximum}, not {value}")

    def _expected(self) -> str:
        return "a list of strings" if self.many else TYPE_NAMES[self.plain_type]


TYPE_NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    dict: "a table",
}


@cache
def settings() -> dict[str, Setting]:
    """All settings by name, in the order they are declared."""
    hints = typing.get_type_hints(Config)
    declared = {}
    for declaration in fields(Config):
        assert declaration.default is not MISSING, f"{declaration.name} has no default"
        declared[declaration.name] = Setting(
            name=declaration.name,
            type=hints[declaration.name],
            default=declaration.default,
            **declaration.metadata,
        )
    return declared


def describe() -> str:
    """All settings as a Markdown table: the heart of `docs/configuration.md`."""
    rows = ["| Setting | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for declaration in settings().values():
        cells = (
            f"`{declaration.name}`",
            _type_text(declaration),
            _default_text(declaration),
            declaration.help,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _find(name: str) -> Setting:
    declared = settings()
    if name in declared:
        return declared[name]
    near = difflib.get_close_matches(name, declared, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"unknown setting {name!r}{hint}")


def _describe(value: object) -> str:
    """Name a wrong value by its kind, and show it when it is short."""
    kind = TYPE_NAMES.get(type(value), type(value).__name__)
    text = "true" if value is True else "false" if value is False else repr(value)
    return f"{kind} ({text})" if len(text) <= 60 else kind


def _type_text(declaration: Setting) -> str:
    if declaration.choices:
        return " or ".join(f"`{choice}`" for choice in declaration.choices)
    text = "list of strings" if declaration.many else TYPE_NAMES[declaration.plain_type]
    text = text.removeprefix("a ")
    low, high = declaration.minimum, declaration.maximum
    if low is not None and high is not None:
        return f"{text}, {low} to {high}"
    if low is not None:
        return f"{text}, at least {low}"
    if high is not None:
        return f"{text}, at most {high}"
    return text


def _default_text(declaration: Setting) -> str:
    default = declaration.default
    if default is None:
        return f"`{declaration.none}`" if declaration.none else "not set"
    if declaration.many:
        return ", ".join(f"`{item}`" for item in default) or "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"
