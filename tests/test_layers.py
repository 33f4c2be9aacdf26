"""Imports go downward only, and the deterministic rooms stay deterministic."""

from pathlib import Path

from importlinter.cli import lint_imports

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def test_no_module_imports_what_stands_above_it() -> None:
    """The import contracts of pyproject.toml hold."""
    exit_code = lint_imports(config_filename=str(PYPROJECT), no_cache=True)
    assert exit_code == 0, "an import contract is broken; the report is above"
