"""The house keeps its rules: imports go one way and never in a circle, folders and files stay small, and documentation
points at things that exist."""

import ast
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "synthesis": {"eval", "rise_train", "torch", "transformers", "trl", "peft", "accelerate"},
    "eval": {"rise_train"},
    "rise_train": set(),
}
SOURCES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))
MOST_FILES = 15
OF_ONE_KIND = {"synthesis/authors/offline/phrasebooks", "synthesis/authors/llm/prompts", "eval/replies/templates"}
"""Folders of instances of one kind, which may be as many as there are servers, prompts or families of models."""

Graph = dict[str, set[str]]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path, root: Path) -> str:
    """A file's folder; a file at the root of its package is a room of its own."""
    folder = path.relative_to(root).parent
    return module_of(path, root) if len(folder.parts) == 1 else ".".join(folder.parts)


def import_graph(paths: Iterable[Path], root: Path) -> Graph:
    """Which module imports which, wherever the import stands: at the top, in a function, under TYPE_CHECKING."""
    modules = {module_of(path, root): path for path in paths}
    graph: Graph = {}
    for module, path in modules.items():
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: an import names the whole way, for people and for this test"
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        graph[module] = (wanted & set(modules)) - {module}
    return graph


def between_rooms(graph: Graph, rooms: dict[str, str]) -> Graph:
    found: Graph = {room: set() for room in rooms.values()}
    for module, others in graph.items():
        found[rooms[module]] |= {rooms[other] for other in others} - {rooms[module]}
    return found


def circle(graph: Graph) -> str:
    """A circle as `a -> b -> a`, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


GRAPH = import_graph(SOURCES, ROOT)
ROOMS = {module_of(path, ROOT): room_of(path, ROOT) for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way_and_files_stay_short(path: Path):
    package = path.relative_to(ROOT).parts[0]
    assert not imported(path) & FORBIDDEN[package]
    assert len(path.read_text().splitlines()) <= 500


def test_a_folder_holds_what_one_look_takes_in():
    folders = {path.relative_to(ROOT).as_posix(): path for package in FORBIDDEN for path in _folders(ROOT / package)}
    assert set(folders) >= OF_ONE_KIND
    sizes = {name: sum(found.is_file() for found in path.iterdir()) for name, path in folders.items()}
    assert not {name: size for name, size in sizes.items() if size > MOST_FILES and name not in OF_ONE_KIND}


def _folders(package: Path) -> list[Path]:
    return [path for path in (package, *package.rglob("*")) if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_rooms_import_in_one_direction(package: str):
    rooms = between_rooms(GRAPH, ROOMS)
    assert not circle({room: others for room, others in rooms.items() if room.split(".")[0] == package})


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_file_stands_in_a_circle(package: str):
    assert not circle({module: others for module, others in GRAPH.items() if module.split(".")[0] == package})


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path: Path):
    rooms = {
        "house/first/a.py": "def lazy():\n    from house.second.b import thing\n",
        "house/second/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.root\n",
        "house/second/c.py": "",
        "house/root.py": "",
    }
    for name, text in rooms.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def circles() -> tuple[str, str]:
        paths = sorted(tmp_path.rglob("*.py"))
        graph = import_graph(paths, tmp_path)
        names = {module_of(path, tmp_path): room_of(path, tmp_path) for path in paths}
        return circle(graph), circle(between_rooms(graph, names))

    assert circles() == ("", "")
    (tmp_path / "house/root.py").write_text("from house.second import c\n")
    files, between = circles()
    assert files == ""
    assert set(between.split(" -> ")) == {"house.root", "house.second"}
    (tmp_path / "house/root.py").write_text("from house.first.a import lazy\n")
    files, between = circles()
    assert set(files.split(" -> ")) == {"house.root", "house.first.a", "house.second.b"}
    assert set(between.split(" -> ")) == {"house.root", "house.first", "house.second"}


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


def test_readme_and_architecture_name_every_room():
    rooms = {path.parent.relative_to(ROOT) for path in SOURCES if len(path.relative_to(ROOT).parts) == 3}
    assert len(rooms) > 20
    readme, pages = (ROOT / "README.md").read_text(), (ROOT / "docs" / "architecture.md").read_text()
    assert not [room for room in rooms if f"\n      {room.name}/ " not in readme]
    assert not [room for room in rooms if f"| `{room.name}/` |" not in pages]
