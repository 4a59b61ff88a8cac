"""Write the asynchronous client from the client, into api/client/asynchronous or the folder that is named.

Classes named ``…Calls``, the client itself and functions that take a connection or a response are rewritten, to the
letter but for what has to be awaited; everything else is imported from where it is.
"""

import ast
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "api" / "client"
PACKAGE = "api.client.asynchronous"
AWAITED = frozenset({"json", "request", "save", "close"})  # methods of a connection
ITERATORS = {"pages": "pages", "iter_bytes": "aiter_bytes", "iter_lines": "aiter_lines", "iter_sse": "aiter_sse"}
BLOCKING = frozenset({"api.client.files", "api.client.packing"})  # modules whose functions read or write files
FILES = frozenset(
    {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "iterdir", "stat", "unlink"}
)
RENAMED = {"Client": "AsyncClient", "Connection": "AsyncConnection", "Source": "AnySource"}
MOVED = {"AsyncConnection": f"{PACKAGE}.connection", "AnySource": f"{PACKAGE}.sending"}
SPECIAL = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
Definition = ast.ClassDef | ast.FunctionDef


class Untranslatable(Exception):
    """The client does something that has no twin here; the message says where."""


def renamed(name: str) -> str:
    """The name of the twin."""
    return RENAMED.get(name) or (f"Async{name}" if name.endswith("Calls") else name)


def is_translated(node: ast.AST) -> bool:
    """Whether a definition at the top of a module gets a twin."""
    if isinstance(node, ast.ClassDef):
        return node.name == "Client" or node.name.endswith("Calls")
    if not isinstance(node, ast.FunctionDef):
        return False
    types = {ast.unparse(argument.annotation) for argument in node.args.args if argument.annotation is not None}
    return not types.isdisjoint({"Connection", "httpx.Response"})


def is_iterator(function: ast.FunctionDef) -> bool:
    """Whether a function returns an iterator."""
    return function.returns is not None and ast.unparse(function.returns).startswith("Iterator[")


@dataclass(frozen=True)
class Sources:
    """The modules with twins, and what the functions in them return."""

    trees: dict[str, ast.Module]  # by the name of the module
    iterators: frozenset[str]  # names of functions and methods that return iterators
    coroutines: frozenset[str]  # names of methods that do not

    @classmethod
    def read(cls, folder: Path) -> "Sources":
        """The modules of a folder."""
        files = [file for file in sorted(folder.glob("*.py")) if file.stem != "connection"]  # its twin is by hand
        trees = {file.stem: ast.parse(file.read_bytes()) for file in files}
        trees = {name: tree for name, tree in trees.items() if any(map(is_translated, tree.body))}
        top = [node for tree in trees.values() for node in tree.body if is_translated(node)]
        methods = [one for node in top for one in getattr(node, "body", ()) if isinstance(one, ast.FunctionDef)]
        functions = [node for node in top if isinstance(node, ast.FunctionDef)]
        return cls(
            trees,
            frozenset(one.name for one in [*methods, *functions] if is_iterator(one)),
            frozenset(one.name for one in methods if not is_iterator(one) and one.name != "__init__"),
        )


@dataclass
class Twin:
    """One module on its way to its twin."""

    name: str
    text: bytes
    sources: Sources
    edits: list[tuple[int, int, str]] = field(default_factory=list)  # (start, end, replacement), in bytes
    _line_starts: list[int] = field(default_factory=list)
    _blocking: set[str] = field(default_factory=set)  # functions to be called in a thread

    def source(self) -> str:
        """The twin's text, not yet formatted."""
        self._line_starts = [0]
        for line in self.text.splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))
        tree = self.sources.trees[self.name]
        kept = [node for node in tree.body if isinstance(node, Definition) and is_translated(node)]
        self._blocking = self._imported_from(BLOCKING)
        for node in kept:
            self._translate(node)
        body = "\n\n\n".join(self._edited(node) for node in kept)
        words = {one.id for node in kept for one in ast.walk(node) if isinstance(one, ast.Name)}
        own = sorted(words & (self._defined(tree) - {node.name for node in kept}))
        written = "written by `make types`; change that module instead"
        head = [f'"""The asynchronous twin of `api.client.{self.name}`: {written}."""\n']
        head += ["import asyncio", "from collections.abc import AsyncGenerator"]
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        head += [line for node in imports for line in self._redirected(node)]
        head += [f"from api.client.{self.name} import {name}" for name in own]
        return "\n".join(head) + "\n\n\n" + body + "\n"

    def _imported_from(self, modules: frozenset[str]) -> set[str]:
        """The functions that the module imports from some modules."""
        imports = [node for node in self.sources.trees[self.name].body if isinstance(node, ast.ImportFrom)]
        return {one.name for node in imports if node.module in modules for one in node.names if one.name.islower()}

    @staticmethod
    def _defined(tree: ast.Module) -> set[str]:
        """The names that a module defines itself."""
        names = {node.name for node in tree.body if isinstance(node, Definition)}
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names |= {one.id for target in targets if target for one in ast.walk(target) if isinstance(one, ast.Name)}
        return names

    def _redirected(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        """The lines that import the same, or its twins."""
        if isinstance(node, ast.Import) or not (node.module or "").startswith("api.client"):
            return [ast.unparse(node)]
        lines = []
        for one in node.names:
            twin = renamed(one.name)
            module = node.module or ""
            if twin != one.name or (module == "api.client" and one.name in self.sources.trees):
                module = MOVED.get(twin, module.replace("api.client", PACKAGE, 1))
            lines.append(f"from {module} import {twin}")
        return lines

    def _translate(self, top: ast.AST) -> None:
        parents = {child: node for node in ast.walk(top) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(top):
            match node:
                case ast.ClassDef():
                    self._rename_at(node, "class ", node.name, renamed(node.name))
                case ast.FunctionDef():
                    self._function(node)
                case ast.Name(id=name) if renamed(name) != name:
                    self._put(self._start(node), self._end(node), renamed(name))
                case ast.Constant(value=str(word)):
                    self._word(node, word, is_annotation=isinstance(parents[node], ast.FunctionDef))
                case ast.Subscript(value=ast.Name(id="Iterator")):
                    self._put(self._start(node.value), self._end(node.value), "AsyncGenerator")
                    self._put(self._end(node) - 1, self._end(node) - 1, ", None")
                case ast.With(items=items) if any(
                    self._is_of_connection(one.context_expr, {"stream"}) for one in items
                ):
                    self._put(self._start(node), self._start(node), "async ")
                case ast.Call():
                    self._call(node, parents[node])

    def _word(self, node: ast.Constant, word: str, *, is_annotation: bool) -> None:
        """Rename what a quoted annotation or a docstring names."""
        old = self.text[self._start(node) : self._end(node)].decode()
        new = old.replace(word, renamed(word)) if is_annotation else old.replace("``with``", "``async with``")
        if new != old:
            self._put(self._start(node), self._end(node), new)

    def _function(self, node: ast.FunctionDef) -> None:
        yields = any(isinstance(one, ast.Yield) for one in ast.walk(node))
        if any(isinstance(one, ast.YieldFrom) for one in ast.walk(node)):
            raise Untranslatable(f"{self.name}.py:{node.lineno}: write a loop instead of `yield from`")
        if node.name in SPECIAL:
            self._rename_at(node, "def ", node.name, SPECIAL[node.name])
        if node.name != "__init__" and (yields or not is_iterator(node)):
            self._put(self._start(node), self._start(node), "async ")

    def _call(self, node: ast.Call, parent: ast.AST) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else None
        ours = owner is None or owner == "self" or owner in self.sources.trees
        if called in ITERATORS or (ours and called in self.sources.iterators):
            self._iterated(node, parent, called)
        elif called in FILES:
            raise Untranslatable(f"{self.name}.py:{node.lineno}: {called} blocks: call a function of api.client.files")
        elif ast.unparse(node.func) == "time.sleep":
            self._put(self._start(node.func), self._end(node.func), "asyncio.sleep")
            self._await(node, parent)
        elif isinstance(node.func, ast.Name) and called in self._blocking:
            self._put(self._start(node), self._start(node), "asyncio.to_thread(")
            self._put(self._end(node.func), self._end(node.func) + 1, ", " if node.args or node.keywords else "")
            self._await(node, parent)
        elif self._is_of_connection(node, AWAITED) or (owner == "self" and called in self.sources.coroutines):
            self._await(node, parent)

    def _iterated(self, node: ast.Call, parent: ast.AST, called: str) -> None:
        """Read an asynchronous iterator, which only a loop or the caller can do."""
        if called in ITERATORS and isinstance(node.func, ast.Attribute):
            end = self._end(node.func)
            self._put(end - len(called), end, ITERATORS[called])
        if isinstance(parent, ast.For) and parent.iter is node:
            self._put(self._start(parent), self._start(parent), "async ")
        elif isinstance(parent, ast.comprehension) and parent.iter is node:
            place = self.text.rindex(b"for", 0, self._start(parent.target))
            self._put(place, place, "async ")
        elif not isinstance(parent, ast.Return):
            raise Untranslatable(f"{self.name}.py:{node.lineno}: read {called} in a loop, or return it")

    def _await(self, node: ast.Call, parent: ast.AST) -> None:
        """Await a call, in brackets where its result is used at once."""
        at_once = isinstance(parent, ast.Attribute | ast.Subscript) and parent.value is node
        self.edits.insert(0, (self._start(node), self._start(node), "(await " if at_once else "await "))
        if at_once:
            self._put(self._end(node), self._end(node), ")")

    @staticmethod
    def _is_of_connection(node: ast.expr, methods: frozenset[str] | set[str]) -> bool:
        """Whether this calls one of the methods of a connection."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in methods:
            return False
        return ast.unparse(node.func.value) in {"connection", "self._connection"}

    def _rename_at(self, node: Definition, keyword: str, old: str, new: str) -> None:
        place = self.text.index(f"{keyword}{old}".encode(), self._start(node)) + len(keyword)
        self._put(place, place + len(old), new)

    def _put(self, start: int, end: int, replacement: str) -> None:
        self.edits.append((start, end, replacement))

    def _start(self, node: ast.stmt | ast.expr) -> int:
        return self._line_starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.stmt | ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._line_starts[node.end_lineno - 1] + node.end_col_offset

    def _edited(self, node: Definition) -> str:
        """The text of a definition with what was put into it."""
        start, end = self._start(node), self._end(node)
        end += len(self.text[end:].split(b"\n", 1)[0])  # a comment behind it
        text = self.text[start:end]
        # From the end, so that places stay; of those at one place the first put stands first.
        inside = sorted(
            (edit[:2], number) for number, edit in enumerate(self.edits) if start <= edit[0] and edit[1] <= end
        )
        for _, number in reversed(inside):
            first, last, replacement = self.edits[number]
            text = text[: first - start] + replacement.encode() + text[last - start :]
        return text.decode()


def formatted(text: str, name: str) -> str:
    """A module as ruff writes it, without the imports that it does not need."""
    ruff = [sys.executable, "-m", "ruff"]
    file = CLIENT / "asynchronous" / f"{name}.py"
    place = ["--config", str(ROOT / "pyproject.toml"), "--stdin-filename", str(file), "-"]
    for command in (["check", "--no-cache", "--quiet", "--fix", "--select", "F401,I001"], ["format", "--no-cache"]):
        done = subprocess.run([*ruff, *command, *place], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Untranslatable(f"{name}: {done.stderr or done.stdout}")
        text = done.stdout
    return text


def written() -> dict[str, str]:
    """The modules of the asynchronous client, by their names."""
    sources = Sources.read(CLIENT)
    twins = [Twin(name, (CLIENT / f"{name}.py").read_bytes(), sources) for name in sources.trees]
    return {twin.name: formatted(twin.source(), twin.name) for twin in twins}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CLIENT / "asynchronous"
    for name, text in written().items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
