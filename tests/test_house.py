"""The house keeps its rules: imports go one way, files stay short, documentation points at things that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "synthesis": {"eval", "rise_train", "torch", "transformers", "trl", "peft", "accelerate"},
    "eval": {"rise_train"},
    "rise_train": set(),
}
SOURCES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way_and_files_stay_short(path: Path):
    package = path.relative_to(ROOT).parts[0]
    assert not imported(path) & FORBIDDEN[package]
    assert len(path.read_text().splitlines()) <= 500


def test_every_link_of_the_documentation_leads_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)", page.read_text())
        if not re.match(r"[a-z]+:", link)
    ]
    assert len(links) >= 10
    missing = [(page.name, link) for page, link in links if not (page.parent / link).exists()]
    assert not missing
