"""The public face of the package."""

import importlib.metadata
import importlib.resources

import broker


def test_the_public_face_is_small_and_complete() -> None:
    """Users import the broker, its settings, the errors they may meet and the version; no more."""
    promised = {"Broker", "Config", "ConfigError", "ListenError", "__version__"}
    assert set(broker.__all__) == promised


def test_every_public_name_exists() -> None:
    """Each name the package promises can be imported from it."""
    for name in broker.__all__:
        assert hasattr(broker, name), f"broker.{name} is promised and missing"


def test_the_version_is_that_of_the_distribution() -> None:
    """The package and its metadata tell the same version."""
    assert importlib.metadata.version("leveret") == broker.__version__


def test_the_package_says_that_it_is_typed() -> None:
    """Type checkers of users read the types of the package."""
    assert (importlib.resources.files(broker) / "py.typed").is_file()
