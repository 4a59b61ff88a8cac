"""Accrete for programs: the client of a service, and `load_version` for a version that was downloaded.

    import accrete

    with accrete.Client("http://127.0.0.1:8000") as client:
        print(client.predict("digits", [Path("image.png")]))

`AsyncClient` has the same calls for programs with an event loop. Each name is imported when it is first used:
`load_version` imports torch, the clients do not. A program may have its own packages named `api`, `trainer`, `losses`
or `storage`, although Accrete's packages have these names.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import version as _version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.client.asynchronous.client import AsyncClient
    from api.client.asynchronous.sending import BatchStream
    from api.client.client import Client, IncrementFailed, succeeded
    from api.client.connection import (
        ClientError,
        Conflict,
        Forbidden,
        Invalid,
        NotFound,
        PreconditionFailed,
        Problem,
        RateLimited,
        TooLarge,
        Unauthenticated,
        Unavailable,
        Unreachable,
    )
    from api.client.events import Event
    from trainer.networks.versions import LoadedVersion, load_version

__all__ = [
    "AsyncClient",
    "BatchStream",
    "Client",
    "ClientError",
    "Conflict",
    "Event",
    "Forbidden",
    "IncrementFailed",
    "Invalid",
    "LoadedVersion",
    "NotFound",
    "PreconditionFailed",
    "Problem",
    "RateLimited",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "load_version",
    "succeeded",
]
__version__ = _version("accrete")

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = frozenset({"api", "losses", "storage", "trainer"})
_ELSEWHERE = {
    "AsyncClient": "api.client.asynchronous.client",
    "BatchStream": "api.client.asynchronous.sending",
    "Client": "api.client.client",
    "IncrementFailed": "api.client.client",
    "succeeded": "api.client.client",
    "Event": "api.client.events",
    "LoadedVersion": "trainer.networks.versions",
    "load_version": "trainer.networks.versions",
}
_set_aside: dict[str, ModuleType] = {}  # our modules, if the program has packages of the same names


def __getattr__(name: str) -> Any:
    """Import a name of ``__all__`` at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_imported(_ELSEWHERE.get(name, "api.client.connection")), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _imported(name: str) -> ModuleType:
    """Import a module of ours.

    If the program has packages of the same names, our modules do not stay in `sys.modules`.
    """
    theirs = {key: module for key, module in _modules().items() if not _is_ours(module)}
    if not theirs and not any(map(_is_taken, _PACKAGES)):
        return import_module(name)
    for key in theirs:
        del sys.modules[key]
    sys.modules.update(_set_aside)
    sys.path.insert(0, str(_ROOT))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(_ROOT))
        _set_aside.update(_modules())
        for key in _set_aside:
            sys.modules.pop(key, None)
        sys.modules.update(theirs)


def _modules() -> dict[str, ModuleType]:
    """The modules that are imported under the names of our packages, ours or the program's."""
    return {key: module for key, module in list(sys.modules.items()) if key.partition(".")[0] in _PACKAGES}


def _is_ours(module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(_ROOT)


def _is_taken(package: str) -> bool:
    """Whether an import of this name would find a package or module of the program, not ours."""
    found = PathFinder.find_spec(package)
    if found is None:
        return False
    return found.origin is None or not Path(found.origin).resolve().is_relative_to(_ROOT)  # None: a namespace package
