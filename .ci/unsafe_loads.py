"""The loading rule that no linter has: a file of weights is never unpickled.

`torch.load` may stand in trainer/networks alone, called with the literal `weights_only=True`, and nobody asks NumPy for
`allow_pickle`. The modules that are banned altogether (pickle, dill, joblib, …) stand in pyproject.toml. Usage:
`python .ci/unsafe_loads.py [FOLDER]` prints every finding as path:line: reason, and exits with 1 if there is one.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PERMITTED_FOLDER = ("trainer", "networks")
SOURCES = (".ci", "api", "benchmarks", "losses", "storage", "tests", "trainer")


def _is_literal(node: ast.expr, *, expected: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is expected


def _is_weights_only(call: ast.Call) -> bool:
    return any(k.arg == "weights_only" and _is_literal(k.value, expected=True) for k in call.keywords)


def _torch_names(tree: ast.AST) -> set[str]:
    """Names that a module gives to torch itself: `import torch`, `import torch.nn`, `import torch as t`."""
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    plain = {"torch" for alias in imported if alias.asname is None and alias.name.split(".")[0] == "torch"}
    return plain | {alias.asname for alias in imported if alias.asname is not None and alias.name == "torch"}


def findings(source: str, *, permitted: bool) -> Iterator[tuple[int, str]]:
    """Yield line and reason of each load that may unpickle; `permitted` says that the file is in trainer/networks."""
    tree = ast.parse(source)
    torch_names = _torch_names(tree)
    weights_only = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_weights_only(node)}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="torch", names=names) if any(alias.name == "load" for alias in names):
                yield node.lineno, "write torch.load, so that one can see what is loaded"
            case ast.keyword(arg="allow_pickle", value=value) if not _is_literal(value, expected=False):
                yield node.lineno, "allow_pickle unpickles: use safetensors or a plain array"
            case ast.Attribute(attr="load", value=ast.Name(id=name)) if name in torch_names and not permitted:
                yield node.lineno, "torch.load belongs in trainer/networks; elsewhere use safetensors"
            case ast.Attribute(attr="load", value=ast.Name(id=name)) if (
                name in torch_names and node not in weights_only
            ):
                yield node.lineno, "torch.load without weights_only=True unpickles"


def main(root: Path) -> int:
    """Print the findings below `root`; returns the exit status."""
    clean = True
    for path in sorted(file for folder in SOURCES for file in (root / folder).rglob("*.py")):
        relative = path.relative_to(root)
        permitted = relative.parts[:2] == PERMITTED_FOLDER
        for line, reason in findings(path.read_text(encoding="utf-8"), permitted=permitted):
            print(f"{relative}:{line}: {reason}")
            clean = False
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2])))
