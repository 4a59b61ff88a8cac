"""The process of one run: `python -m trainer.experiments.runs.process`, started by `trainer.experiments.runs.children`.

Its order is a line of JSON on standard input. The end of standard input means that the parent has ended, and ends the
process. Its messages go to standard output, one JSON object a line.
"""

import json
import os
import sys
import threading
from typing import Any

from pydantic import TypeAdapter

from storage.errors import AccreteError
from trainer.evaluation.evaluate import BelowChance
from trainer.experiments.data import tasks
from trainer.experiments.runs.folder import RunElsewhere
from trainer.experiments.runs.run import Order, perform
from trainer.reporting import LossNotFinite

REFUSED, ELSEWHERE = 3, 4  # exit statuses: it can never succeed and said why; another process works on the run
_PARENT_GONE = 77

ORDER = TypeAdapter(Order)


def main() -> int:
    """Perform the run that standard input asks for; the exit status."""
    order = ORDER.validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    line = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # any other output must not mix with the messages

    def say(message: dict[str, Any]) -> None:
        line.write(json.dumps(message) + "\n")

    try:
        perform(order, tasks.load(order.tasks), say)
    except RunElsewhere:
        return ELSEWHERE
    except (AccreteError, LossNotFinite, BelowChance) as error:
        say({"kind": "refusal", "reason": str(error)})
        return REFUSED
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(_PARENT_GONE)


if __name__ == "__main__":
    sys.exit(main())
