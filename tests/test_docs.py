"""The documentation tells the truth: its code runs and its commands are those of the checks."""

import inspect
import re
from pathlib import Path

from conftest import RunningBroker

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the README in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


async def test_the_python_of_the_readme_runs(server: RunningBroker) -> None:
    """Each snippet runs as it stands, but for the port."""
    assert len(blocks("python")) == 2
    for snippet in blocks("python"):
        names: dict[str, object] = {}
        code = snippet.replace("127.0.0.1:5672", f"127.0.0.1:{server.port}")
        exec(compile(code, "README.md", "exec"), names)
        for name, value in names.items():
            if name.startswith("test_") and inspect.iscoroutinefunction(value):
                await value()


def test_the_checks_run_the_tests_as_the_readme_says() -> None:
    """The command that a newcomer copies is the command that guards every change."""
    commands = [line.strip() for block in blocks("sh") for line in block.splitlines()]
    test_commands = [line for line in commands if line.endswith("pytest")]
    assert len(test_commands) == 1
    assert test_commands[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_links_lead_somewhere() -> None:
    """Every relative link of the documentation names a file that exists."""
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
