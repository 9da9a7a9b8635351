"""docs/cli.md, configuration.md and metrics.md are what the code says now; links and commands in all docs hold."""

import re
import tomllib
from pathlib import Path

import pytest

from daemons.cli import COMMANDS
from daemons.config import parse
from daemons.documentation import pages

ROOT = Path(__file__).parents[2]
PROSE = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES = pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_fresh(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name], "run `make docs`"


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_docs_exist(path: Path) -> None:
    known = {entry.name for entry in COMMANDS}
    text = path.read_text()
    named = set(re.findall(r"`muster ([a-z][a-z-]+)[^`\n]*`", text)) | set(
        re.findall(r"^\$ muster ([a-z-]+)", text, re.M)
    )
    assert named <= known, f"{path.name}: no such command: {sorted(named - known)}"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_configurations_in_the_docs_are_valid(path: Path) -> None:
    for block in re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL):
        if "[[" not in block:  # rules and scenarios have tests of their own
            assert tomllib.loads(block)
            parse(block, path.name)
