"""The rooms of the packages: no circle, few floors, nothing too long; and the pages of docs name what is there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("accrete", "api", "losses", "storage", "trainer")
FLOORS = 7
FILE_LINES = 300
FUNCTION_LINES = 60


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def packages() -> Iterator[str]:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("__init__.py"):
            yield ".".join(file.parent.relative_to(ROOT).parts)


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of more than one module that import one another, however far round (Tarjan, 1972)."""
    found: list[list[str]] = []
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for other in sorted(imports[module]):
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in path:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            start = path.index(module)
            group, path[start:] = path[start:], []
            if len(group) > 1:
                found.append(sorted(group))

    for module in imports:
        if module not in number:
            visit(module)
    return found


def rooms(graph: grimp.ImportGraph, package: str) -> dict[str, set[str]]:
    """Which of a package's modules and sub-packages imports which, each with all that is in it."""
    children = graph.find_children(package)
    members = {child: {child} | graph.find_descendants(child) for child in children}
    home = {module: child for child, inside in members.items() for module in inside}
    return {
        child: {
            home[other]
            for module in inside
            for other in graph.find_modules_directly_imported_by(module)
            if home.get(other, child) != child
        }
        for child, inside in members.items()
    }


def floors(imports: Mapping[str, set[str]]) -> int:
    """How many stand on one another, at most; of a graph without circles."""
    height: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((floor(other) for other in imports[room]), default=0)
        return height[room]

    return max((floor(room) for room in imports), default=0)


def test_what_goes_round_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == 3


def test_no_modules_import_one_another_in_a_circle(graph: grimp.ImportGraph) -> None:
    modules = graph.modules
    assert circles({module: graph.find_modules_directly_imported_by(module) & modules for module in modules}) == []


@pytest.mark.parametrize("package", sorted(packages()))
def test_a_package_is_without_circles_and_of_few_floors(graph: grimp.ImportGraph, package: str) -> None:
    inside = rooms(graph, package)
    assert circles(inside) == []
    assert floors(inside) <= FLOORS


def test_no_file_is_too_long() -> None:
    written = {ROOT / "api/client/documents.py"}  # by `make types`
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in sources() if file not in written
    }
    assert {file: lines for file, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    found = {}
    for file in sources():
        if "versions" in file.parts and "migrations" in file.parts:  # tables as they were, one after another
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    found[f"{file.relative_to(ROOT)}::{node.name}"] = lines
    assert found == {}


@pytest.mark.parametrize(
    "module",
    [
        "losses.hyperparameters",
        "losses.strategies",
        "losses.terms",
        "trainer.networks.limits",
        "trainer.networks.manifest",
        "trainer.networks.pictures",
        "trainer.recipes",
    ],
)
def test_what_the_server_imports_of_other_packages_loads_no_torch(module: str) -> None:
    heavy = ("torch", "torchvision", "safetensors")
    program = f"import sys, {module}\nprint([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)


def test_each_way_a_newcomer_walks_has_ten_rooms_at_most() -> None:
    for heading in ("## A prediction, from socket to answer", "## An increment, from POST to published version"):
        section = PAGE.split(heading, 1)[1].split("\n#", 1)[0]
        steps = re.findall(r"^\d+\. `[\w/]+\.py::\w+`", section, re.MULTILINE)
        assert 5 <= len(steps) <= 10


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_the_page_names_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert name in {node.name for node in tree.body if isinstance(node, kinds)}


PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "README.md"]


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in PAGES))
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
