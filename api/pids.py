"""Whether a process still runs, by its id."""

import os


def is_alive(pid: int) -> bool:
    """Whether a process of this id runs, this user's or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
