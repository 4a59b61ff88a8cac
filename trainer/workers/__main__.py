"""`python -m trainer.workers`: a Celery worker that does not depend on the working directory and the environment.

The `celery` command would import another `trainer` from the working directory, if there is one. It would also read
`BROKER_URL`, `APP` and other common variables from the environment.
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
