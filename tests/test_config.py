"""Settings: declared once, checked with a clear sentence, read from TOML."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from broker.amqp.limits import Limits
from broker.config import Config, ConfigError, describe, settings

DOCUMENTATION = Path(__file__).parent.parent / "docs" / "configuration.md"


def written(directory: Path, text: str) -> Path:
    """A configuration file holding `text`."""
    path = directory / "leveret.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_setting_has_help_and_a_default_that_is_valid() -> None:
    """A setting is usable and explained by its declaration alone."""
    for declared in settings().values():
        assert declared.help.endswith("."), declared.name
        assert "|" not in declared.help, f"{declared.name} would break the documentation's table"
        declared.check(declared.default)


def test_a_config_cannot_be_changed() -> None:
    """Whoever holds a config may rely on it."""
    for name in settings():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(Config(), name, getattr(Config(), name))


def test_a_config_can_be_copied_with_changes() -> None:
    """A changed copy is checked like a new config."""
    assert dataclasses.replace(Config(port=1), port=2) == Config(port=2)
    with pytest.raises(ConfigError):
        dataclasses.replace(Config(), port=-1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"port": 65536}, "port must be at most 65535, not 65536"),
        ({"port": -1}, "port must be at least 0, not -1"),
        ({"port": "5672"}, "port must be a whole number, not a string ('5672')"),
        ({"port": True}, "port must be a whole number, not true or false (true)"),
        ({"port": None}, "port must be a whole number, not NoneType (None)"),
        ({"log_level": "loud"}, "log_level must be one of debug, info, warning, error, not 'loud'"),
        ({"host": "localhost"}, "host must be a list of strings, not a string ('localhost')"),
        ({"host": (1,)}, "host must be a list of strings, not a list ((1,))"),
        ({"host": ()}, "host must name at least one address"),
        ({"product": 7}, "product must be a string, not a whole number (7)"),
        ({"product": ["x" * 80]}, "product must be a string, not a list"),
        (
            {"write_buffer_high_bytes": 5, "write_buffer_bytes_max": 4},
            "write_buffer_high_bytes (5) must not be above write_buffer_bytes_max (4)",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    """The sentence names the setting, what it must be and what it was."""
    with pytest.raises(ConfigError) as refusal:
        Config(**wrong)
    assert str(refusal.value) == sentence


def test_is_default_tells_whether_a_setting_was_changed() -> None:
    """A default can be told from a choice."""
    assert Config().is_default("host")
    assert not Config(host=("127.0.0.1",)).is_default("host")


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    """Settings of the file are taken, the others keep their defaults."""
    path = written(tmp_path, 'port = 0\nhost = ["0.0.0.0"]\ndata_dir = "/var/lib/leveret"\n')
    expected = Config(port=0, host=("0.0.0.0",), data_dir="/var/lib/leveret")
    assert Config.load(path) == expected
    assert Config.load(str(path)) == expected


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    """A file that names nothing changes nothing."""
    assert Config.load(written(tmp_path, "# nothing\n")) == Config()


def test_a_file_can_ask_for_no_data_directory(tmp_path: Path) -> None:
    """`:memory:` is how a file says that nothing is kept."""
    assert Config.load(written(tmp_path, 'data_dir = ":memory:"\n')).data_dir is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 1\n", "unknown setting 'prot'; did you mean 'port'?"),
        ("zzzz = 1\n", "unknown setting 'zzzz'"),
        ("[log]\nlevel = 'info'\n", "unknown setting 'log'"),
        ('port = "5672"\n', "port must be a whole number, not a string ('5672')"),
        ("port = 5672.0\n", "port must be a whole number, not a number (5672.0)"),
        ("port = [5672]\n", "port must be a whole number, not a list ([5672])"),
        ("[port]\nnumber = 5672\n", "port must be a whole number, not a table ({'number': 5672})"),
        ("host = 'localhost'\n", "host must be a list of strings, not a string ('localhost')"),
        ("port = 70000\n", "port must be at most 65535, not 70000"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    """The sentence names the file, the key, what was expected and what was there."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refusal:
        Config.load(path)
    assert str(refusal.value) == f"{path}: {sentence}"


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    """The sentence names the file and the place."""
    path = written(tmp_path, "port 5672\n")
    with pytest.raises(ConfigError, match=r"is not a TOML file: .*line 1"):
        Config.load(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a mistake in the file, not a crash."""
    path = tmp_path / "leveret.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not a TOML file"):
        Config.load(path)


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The sentence says which file and why."""
    path = tmp_path / "nothing.toml"
    with pytest.raises(ConfigError) as refusal:
        Config.load(path)
    assert str(refusal.value) == f"cannot read {path}: No such file or directory"


def test_the_limits_of_a_session_are_settings() -> None:
    """What is handed to sessions has the names and defaults of the settings."""
    for limit in dataclasses.fields(Limits):
        assert limit.default == settings()[limit.name].default, limit.name


def test_the_documentation_is_read_from_the_declarations() -> None:
    """docs/configuration.md holds exactly the table made from the declarations."""
    assert describe() in DOCUMENTATION.read_text(encoding="utf-8"), (
        "docs/configuration.md is out of date: put the output of "
        "python -c 'from broker.config import describe; print(describe())' there"
    )
