"""The command `leveret`.

Options of `serve` are settings of `Config`: their type, limits, default and help are read from
there. A flag wins over the configuration file, the file over the default.

Exit codes of `serve`: 0 after a graceful stop; 1 when the broker could not run; 2 for a wrong flag
or setting; 128 plus the signal's number when a second SIGINT or SIGTERM forced the stop (130 or
143).
"""

import asyncio
import dataclasses
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from broker import logs
from broker._version import __version__
from broker.broker import Broker
from broker.config import Config, ConfigError, settings
from broker.store.errors import StoreError

if TYPE_CHECKING:
    from broker.store.repair import Problem

EXIT_DAMAGED = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128

Command = Callable[..., Any]


def main() -> NoReturn:
    """Run the command line; a mistake is one sentence on stderr, never a traceback."""
    try:
        result = leveret.main(prog_name="leveret", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except ConfigError as error:
        _fail(str(error), EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_SIGNAL + signal.SIGINT)
    sys.exit(result if isinstance(result, int) else 0)


def setting_option(name: str, default: str | None = None) -> Callable[[Command], Command]:
    """A click option for the setting `name`; `default` says in words what is not a constant."""
    declared = settings()[name]
    if declared.choices:
        kind: click.ParamType[Any] = click.Choice(declared.choices)
    elif declared.plain_type is int:
        kind = click.IntRange(declared.minimum, declared.maximum)
    else:
        kind = click.STRING
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=kind,
        multiple=declared.many,
        default=declared.none if declared.default is None else declared.default,
        help=declared.help.replace("`", ""),
        show_default=default or True,
    )


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, help="Show the version and how it was built, and exit.")
@click.pass_context
def leveret(context: click.Context, version: bool) -> None:
    """Leveret, an AMQP 0-9-1 message broker."""
    if version:
        click.echo(f"leveret {__version__} ({_build()})")
        context.exit()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@leveret.command()
@setting_option("host")
@setting_option("port")
@setting_option("data_dir", "the state directory of the user")
@click.option("--config", metavar="FILE", help="TOML file with settings; flags win over it.")
@setting_option("log_level")
@setting_option("log_format")
@click.pass_context
def serve(context: click.Context, /, config: str | None, **flags: Any) -> int:
    """Run a broker until SIGINT or SIGTERM stops it; a second one stops it at once."""
    given = {
        name: settings()[name].parse(value)
        for name, value in flags.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    directory = _default_data_dir()
    loaded = Config.load(config, data_dir=directory) if config else Config(data_dir=directory)
    settled = dataclasses.replace(loaded, **given)
    logs.configure(settled.log_level, settled.log_format)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settled))


@leveret.group()
def log() -> None:
    """Look after the log in a data directory that no broker is using."""


@log.command()
@setting_option("data_dir", "the state directory of the user")
@click.pass_context
def check(context: click.Context, /, data_dir: str) -> int:
    """Read all of the log and say what is wrong with it, and what a repair would lose.

    Exit code 0 when a broker would start from it, 1 when not.
    """
    problems = _problems(_directory(context, data_dir))
    return EXIT_DAMAGED if any(problem.stops_start for problem in problems) else 0


@log.command()
@setting_option("data_dir", "the state directory of the user")
@click.option("--yes", is_flag=True, help="Do not ask before anything is lost.")
@click.pass_context
def repair(context: click.Context, /, data_dir: str, yes: bool) -> int:
    """Check the log, say what a repair would lose, ask, and make it usable again."""
    from broker.store.repair import repair as repair_log

    directory = _directory(context, data_dir)
    problems = _problems(directory)
    if not any(problem.remedy for problem in problems):
        return 0
    if not yes:
        click.confirm("Repair the log?", abort=True)
    try:
        repair_log(directory, problems)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    click.echo("The log was repaired.")
    return 0


def _directory(context: click.Context, data_dir: str) -> str:
    given = context.get_parameter_source("data_dir") is ParameterSource.COMMANDLINE
    return data_dir if given else _default_data_dir()


def _problems(directory: str) -> "list[Problem]":
    """What is wrong with the log in `directory`, after saying it."""
    from broker.store.repair import check as check_log

    try:
        problems = check_log(directory)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    for problem in problems:
        click.echo(" ".join(each for each in (problem.text, problem.remedy, problem.loss) if each))
    if not problems:
        click.echo(f"The log in {directory} is sound.")
    return problems


async def _serve(config: Config) -> int:
    """Run a broker until a signal; return the exit code."""
    broker = Broker(config)
    with _signals() as (stop, forced):
        try:
            await broker.start()
        except (OSError, StoreError) as error:
            raise click.ClickException(str(error)) from error
        click.echo(_ready_line(broker, config))
        await asyncio.wait((stop, broker.failed), return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            raise click.ClickException(broker.failed.result())
        stopping = asyncio.ensure_future(broker.stop())
        await asyncio.wait((stopping, forced), return_when=asyncio.FIRST_COMPLETED)
        if forced.done() and not stopping.done():
            stopping.cancel()
            broker.abort()
            return EXIT_SIGNAL + forced.result()
        await stopping
    return 0


@contextmanager
def _signals() -> Iterator[tuple[asyncio.Future[int], asyncio.Future[int]]]:
    """Two futures, done with the number of the first and of the second SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[int] = loop.create_future()
    second: asyncio.Future[int] = loop.create_future()

    def received(number: int) -> None:
        for future in (first, second):
            if not future.done():
                future.set_result(number)
                return

    # Not loop.add_signal_handler: it does not exist on Windows.
    def handle(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(received, number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield first, second
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _default_data_dir() -> str:
    """Where this user's data is kept on this platform when nobody says otherwise."""
    # Imported here because only a start without --data-dir needs it.
    import platformdirs

    return platformdirs.user_state_dir("leveret", appauthor=False)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _ready_line(broker: Broker, config: Config) -> str:
    addresses = ", ".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in broker.addresses
    )
    data = "in memory" if config.data_dir is None else f"in {config.data_dir}"
    return f"leveret {__version__} ({_build()}) ready on {addresses}; data {data}"


def _build() -> str:
    """Whether the core runs as it was written or was compiled to an extension module."""
    core = importlib.util.find_spec("broker.core.queue")
    interpreted = core is None or core.origin is None or core.origin.endswith(".py")
    return "pure Python" if interpreted else "compiled"


def _fail(sentence: str, code: int) -> NoReturn:
    click.echo(f"leveret: {sentence}", err=True)
    sys.exit(code)
