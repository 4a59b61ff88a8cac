"""The parts of a start of the API, one after another: `python -m benchmarks.parts.startstages MODEL BEGAN`.

Settings are in the environment. BEGAN is when the process was started, by time.monotonic(), which all processes share.
The last line of the output is JSON: seconds by part.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

BEGAN_HERE = time.monotonic()


def main() -> None:
    """Do and time them; imports are parts themselves."""
    name, began = sys.argv[1], float(sys.argv[2])
    moments = [("Python", began), ("import onnxruntime", BEGAN_HERE)]  # each part, and when it began

    import api.serving.execution.sessions  # which imports onnxruntime as the service does

    moments.append(("import api.app and api.__main__", time.monotonic()))

    import api.__main__  # noqa: F401
    from api.app import build_service, create_app
    from api.serving.execution import CPU, Runtime
    from api.serving.loading import TRIED
    from storage.blobs.opening import open_blobs
    from storage.database.engine import Database
    from storage.history import models, versions
    from storage.settings import settings_of_process
    from trainer.networks.manifest import EXECUTABLE, MANIFEST, read_manifest

    moments.append(("building the application", time.monotonic()))
    settings = settings_of_process()
    create_app(settings)
    build_service(settings)
    moments.append(("database", time.monotonic()))
    database = Database(settings.database)
    with database.read() as connection:
        model = models.get(connection, name)
        version = versions.get(connection, model, 1)
    with tempfile.TemporaryDirectory() as folder:
        moments.append(("blobs: fetched and checked", time.monotonic()))
        blobs = open_blobs(settings.blobs)
        known = {file: version.files[file].sha256 for file in (EXECUTABLE, MANIFEST)}
        for file, digest in known.items():
            blobs.fetch(digest, Path(folder) / file)
        read_manifest(Path(folder), known=known)
        moments.append(("session", time.monotonic()))
        execution = Runtime(settings.serving_threads or len(os.sched_getaffinity(0))).open(Path(folder), CPU)
    moments.append(("first minibatches", time.monotonic()))

    import numpy as np  # imported by now

    for images in TRIED:
        shape = (images, model.channels, model.image_size, model.image_size)
        execution.probabilities([np.full(shape, 128, np.uint8)])
    moments.append(("", time.monotonic()))
    ends = [moment for _, moment in moments[1:]]
    print(json.dumps({part: end - start for (part, start), end in zip(moments, ends, strict=False)}), flush=True)
    os._exit(0)  # threads of the service were built and never started


if __name__ == "__main__":
    main()
