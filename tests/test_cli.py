"""The command `leveret`, run as a user runs it: in a process of its own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import pika.exceptions
import pytest
from pamqp import commands
from wire import WireClient

from broker import __version__
from broker.config import settings

ROOT = Path(__file__).parent.parent
MODULE = (sys.executable, "-m", "broker")
WITHOUT_UVLOOP = (
    sys.executable,
    "-c",
    "import sys; sys.modules['uvloop'] = None; from broker.cli import main; main()",
)
READY = re.compile(
    r"leveret (?P<version>\S+) \((pure Python|compiled)\) ready on "
    r"(?P<addresses>.+); data (?P<data>.+)\n"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run([*MODULE, *arguments], cwd=ROOT, capture_output=True, text=True)


class Serving:
    """A `leveret serve` that said it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.ready_line = process.stdout.readline()
        ready = READY.fullmatch(self.ready_line)
        assert ready, f"not a ready line: {self.ready_line!r}"
        self.version, self.data = ready["version"], ready["data"]
        self.addresses = ready["addresses"].split(", ")
        self.port = int(self.addresses[0].rpartition(":")[2])

    def end(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, and what else was written to stdout and stderr."""
        stdout, stderr = self.process.communicate()
        return self.process.returncode, stdout, stderr

    def connect(self) -> pika.BlockingConnection:
        """A client's connection."""
        return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.port))


@contextlib.contextmanager
def serving(
    *arguments: str,
    command: tuple[str, ...] = MODULE,
    data_dir: str | None = ":memory:",
    environment: dict[str, str] | None = None,
) -> Iterator[Serving]:
    """Run `leveret serve` on a free port until the block ends; data_dir None gives no such flag."""
    given = ["--data-dir", data_dir] if data_dir is not None else []
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", *given, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Serving(process)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is there, for paths that lead nowhere."""
    path = tmp_path / "file"
    path.touch()
    return path


def assert_refused(
    result: subprocess.CompletedProcess[str], exit_code: int, *mentioned: str
) -> None:
    """The command said one sentence on stderr, with these words in it, and nothing else."""
    assert result.returncode == exit_code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("leveret: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for words in mentioned:
        assert words in result.stderr


def test_version_says_how_it_was_built() -> None:
    """The version, and whether the core is compiled."""
    result = run("--version")
    assert re.fullmatch(
        rf"leveret {re.escape(__version__)} \((pure Python|compiled)\)\n", result.stdout
    )
    assert result.returncode == 0


def test_no_command_shows_the_help() -> None:
    """`leveret` alone tells what it can do."""
    result = run()
    assert "serve" in result.stdout
    assert result.returncode == 0


def test_help_shows_options_as_they_are_declared() -> None:
    """Help and defaults of the options are those of the settings."""
    text = " ".join(run("serve", "--help").stdout.split())
    for name in ("host", "port", "data_dir", "log_level", "log_format"):
        assert f"--{name.replace('_', '-')}" in text
        assert settings()[name].help.replace("`", "") in text
    assert "[default: 127.0.0.1, ::1]" in text
    assert "[default: 5672; 0<=x<=65535]" in text
    assert "[default: (the state directory of the user)]" in text


def test_ready_line_says_where_and_how() -> None:
    """One line on stdout: version, addresses with the port that was picked, data."""
    with serving("--host", "127.0.0.1") as server:
        assert server.version == __version__
        assert server.addresses == [f"127.0.0.1:{server.port}"]
        assert server.port > 0
        assert server.data == "in memory"
        server.connect().close()


def test_hosts_may_be_repeated() -> None:
    """Every address asked for is listened on."""
    with serving("--host", "127.0.0.1", "--host", "127.0.0.2") as server:
        assert [address.partition(":")[0] for address in server.addresses] == [
            "127.0.0.1",
            "127.0.0.2",
        ]


@pytest.mark.parametrize("command", [MODULE, WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(command: tuple[str, ...], number: signal.Signals) -> None:
    """Clients are told (320), the exit code is 0 and nothing more is written to stdout."""
    with serving(command=command) as server:
        connection = server.connect()
        server.process.send_signal(number)
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            connection.process_data_events(time_limit=None)
        assert closed.value.reply_code == 320
        exit_code, stdout, stderr = server.end()
        assert (exit_code, stdout) == (0, "")
        assert "Traceback" not in stderr


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_forces_the_stop(number: signal.Signals, exit_code: int) -> None:
    """A client that never answers the close cannot hold up who asks twice."""
    with serving() as server, WireClient("127.0.0.1", server.port) as client:
        client.handshake()
        server.process.send_signal(signal.SIGTERM)
        client.expect(0, commands.Connection.Close)
        server.process.send_signal(number)
        code, stdout, stderr = server.end()
        assert (code, stdout) == (exit_code, "")
        assert "Traceback" not in stderr


def test_a_port_in_use_is_one_sentence() -> None:
    """Who started a second broker is told which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = run("serve", "--host", "127.0.0.1", "--port", port, "--data-dir", ":memory:")
    assert_refused(result, 1, f"127.0.0.1:{port}", "in use")


def test_an_address_that_was_asked_for_must_exist() -> None:
    """An address this machine does not have is an error when it was given."""
    result = run("serve", "--host", "192.0.2.1", "--port", "0", "--data-dir", ":memory:")
    assert_refused(result, 1, "192.0.2.1")


@pytest.mark.parametrize(
    ("arguments", "mentioned"),
    [
        (("serve", "--prot", "1"), "--prot"),
        (("serve", "--port", "many"), "--port"),
        (("serve", "--port", "70000"), "--port"),
        (("serve", "--log-format", "xml"), "--log-format"),
        (("serve", "extra"), "extra"),
        (("swerve",), "swerve"),
    ],
)
def test_a_wrong_flag_is_one_sentence(arguments: tuple[str, ...], mentioned: str) -> None:
    """A mistake on the command line is named, with exit code 2."""
    assert_refused(run(*arguments), 2, mentioned)


def test_a_wrong_key_in_the_file_is_one_sentence(tmp_path: Path) -> None:
    """The file, the key and the likely meaning are named."""
    path = tmp_path / "leveret.toml"
    path.write_text("prot = 5672\n")
    result = run("serve", "--config", str(path))
    assert_refused(result, 2, str(path), "'prot'", "'port'")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """A configuration file that was asked for must exist."""
    path = tmp_path / "nothing.toml"
    assert_refused(run("serve", "--config", str(path)), 2, str(path))


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """The file gives the settings that no flag gives."""
    path = tmp_path / "leveret.toml"
    path.write_text('port = 1\nhost = ["127.0.0.2"]\ndata_dir = "/nowhere"\n')
    with serving("--config", str(path)) as server:
        assert server.addresses == [f"127.0.0.2:{server.port}"]
        assert server.port != 1
        assert server.data == "in memory"


def test_an_unwritable_data_directory_is_one_sentence(file: Path) -> None:
    """The sentence names the directory, with exit code 1."""
    result = run("serve", "--port", "0", "--data-dir", str(file / "data"))
    assert_refused(result, 1, str(file / "data"), "Not a directory")


def test_a_data_directory_outlives_the_broker(tmp_path: Path) -> None:
    """What is durable is there again after a stop, and the ready line says where it is kept."""
    path = str(tmp_path / "data")
    with serving(data_dir=path) as server:
        assert server.data == f"in {path}"
        connection = server.connect()
        connection.channel().queue_declare("kept", durable=True)
        connection.close()
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0
    with serving(data_dir=path) as server:
        declared = server.connect().channel().queue_declare("kept", passive=True)
        assert declared.method.queue == "kept"


@pytest.mark.skipif(sys.platform != "linux", reason="the variable is that of Linux")
def test_data_is_kept_with_the_state_of_the_user_by_default(tmp_path: Path) -> None:
    """Without --data-dir, data is durable in the state directory, and the ready line says where."""
    with serving(data_dir=None, environment={"XDG_STATE_HOME": str(tmp_path)}) as server:
        assert server.data == f"in {tmp_path / 'leveret'}"


def test_a_second_broker_on_a_data_directory_is_one_sentence(tmp_path: Path) -> None:
    """Two brokers would spoil each other's log."""
    with serving(data_dir=str(tmp_path)):
        result = run("serve", "--port", "0", "--data-dir", str(tmp_path))
        assert_refused(result, 1, str(tmp_path), "another broker")


def test_a_sound_log_is_called_sound(tmp_path: Path) -> None:
    """`log check` says so, with exit code 0."""
    path = str(tmp_path)
    with serving(data_dir=path) as server:
        server.process.send_signal(signal.SIGTERM)
        server.end()
    result = run("log", "check", "--data-dir", path)
    assert (result.returncode, result.stdout) == (0, f"The log in {path} is sound.\n")


def test_a_damaged_log_is_named_and_repaired(tmp_path: Path) -> None:
    """A broker refuses to start, `check` says what would be lost, and `repair` makes it start."""
    path = str(tmp_path)
    with serving(data_dir=path) as server:
        connection = server.connect()
        channel = connection.channel()
        for number in range(3):
            channel.queue_declare(f"q{number}", durable=True)
        connection.close()
        server.process.kill()
        server.end()
    (segment,) = tmp_path.glob("*.segment")
    octets = bytearray(segment.read_bytes())
    octets[octets.index(b"q0")] ^= 0xFF
    segment.write_bytes(octets)

    refused = run("serve", "--port", "0", "--data-dir", path)
    assert_refused(refused, 1, str(segment), f"leveret log repair --data-dir {path}")
    checked = run("log", "check", "--data-dir", path)
    assert checked.returncode == 1
    assert "bytes are lost" in checked.stdout
    repaired = run("log", "repair", "--data-dir", path, "--yes")
    assert repaired.returncode == 0
    assert repaired.stdout.endswith("The log was repaired.\n")
    with serving(data_dir=path) as server:
        channel = server.connect().channel()
        assert channel.queue_declare("q2", passive=True).method.queue == "q2"


def test_a_log_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """There is nothing to check in an empty directory."""
    assert_refused(run("log", "check", "--data-dir", str(tmp_path / "no")), 1, str(tmp_path / "no"))
