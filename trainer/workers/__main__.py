"""`python -m trainer.workers`: a Celery worker, whatever the working directory and environment.

The `celery` command would look for `trainer` in the working directory first, where somebody may keep another one, and
take `BROKER_URL`, `APP` and other common names from the environment.
"""

import argparse
import sys

from trainer.workers.app import app

THREADS = 2  # one for the increment that is trained, one for the canary (`trainer.workers.app`)


def main() -> int:
    """Work until SIGTERM; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trainer.workers", description="Settings are ACCRETE_….")
    parser.add_argument("--hostname", required=True, help="name of the worker, unique among all: NAME@HOST")
    worker = app.Worker(
        hostname=parser.parse_args().hostname,
        pool_cls="threads",
        concurrency=THREADS,
        without_gossip=True,
        without_mingle=True,
        loglevel="INFO",
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
