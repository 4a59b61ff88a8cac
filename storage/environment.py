"""Warnings about probable mistakes in a process's environment that do not prevent its start, and what training lacks.

Each is a sentence.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from storage.settings import Settings, is_service_link

MOUNTS = Path("/proc/mounts")
PREFIX = "ACCRETE_"
SUPERVISED = "ACCRETE_SERVICE"  # set in every process of an embedded service: `api.process.reaper.MARK`
OTHERS = frozenset({SUPERVISED, "ACCRETE_URL", "ACCRETE_API_KEY"})  # read, but not as settings of the service
# Variables that Kubernetes sets for a Service named accrete or accrete-…, and Docker for a linked container.
_SERVICE_LINK = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
# File systems on which the locks and shared memory that SQLite needs are missing or unreliable
# (sqlite.org/howtocorrupt.html, 2).
_NETWORKS = re.compile(r"(nfs\d?|cifs|smb\w*|afs|ceph|glusterfs|lustre|beegfs|gpfs|9p|fuse(\..+)?|davfs\d?)$")
# Imported by training and publishing; what the extra `worker` of pyproject.toml installs.
TRAINING_PACKAGES = ("torch", "torchvision", "safetensors", "onnx", "onnxscript")

log = logging.getLogger(__name__)


def environment_warnings(
    settings: Settings, *, environment: Mapping[str, str] = os.environ, mounts: Path = MOUNTS
) -> Iterator[str]:
    """Warnings for the person who starts the service."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OTHERS
    for variable, value in environment.items():
        name = variable.upper()
        if not name.startswith(PREFIX):
            continue
        if is_service_link(value):
            if name in known:
                yield f"{variable} is the address of a service, set by Kubernetes or Docker, and is ignored"
        elif name not in known and not _SERVICE_LINK.search(name):
            close = get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], n=1)
            yield f"{variable} is no setting and is ignored" + (f": did you mean {PREFIX}{close[0]}?" if close else "")
    if settings.database_url is None and (kind := network_file_system(settings.home, mounts)) is not None:
        yield (
            f"{settings.home.resolve()} is on a network file system ({kind}), where SQLite's locks may fail and the "
            "database be damaged: choose a local folder with ACCRETE_HOME, or PostgreSQL with ACCRETE_DATABASE_URL"
        )


def log_environment_warnings(settings: Settings) -> None:
    """Log the warnings, unless the supervisor of this process has reported them already."""
    if SUPERVISED not in os.environ:
        for warning in environment_warnings(settings):
            log.warning("%s", warning)


def training_lacks() -> str | None:
    """Why this installation cannot train, and the remedy; None if it can. Imports none of the packages."""
    missing = [name for name in TRAINING_PACKAGES if find_spec(name) is None]
    if not missing:
        return None
    named = ", ".join(missing)
    return f"training needs accrete[worker], and lacks {named}: pip install '.[worker]' in Accrete's checkout"


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the network file system that a path is on; None if it is on another one, or that is unknown."""
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:  # not Linux
        return None
    place = path.resolve()
    found, depth = None, -1
    for _, mounted, kind, *_ in (line.split(b" ") for line in lines):
        folder = Path(os.fsdecode(re.sub(rb"\\(\d{3})", lambda sign: bytes([int(sign[1], 8)]), mounted)))
        if place.is_relative_to(folder) and len(folder.parts) >= depth:  # the later of two mounts at one place is seen
            found, depth = os.fsdecode(kind), len(folder.parts)
    return found if found is not None and _NETWORKS.match(found) else None
