"""`python -m storage.migrations`: bring the configured database to the present tables."""

import sys

from storage import safetext
from storage.environment import log_environment_warnings
from storage.logs import configure
from storage.migrations import upgrade
from storage.settings import SettingsInvalid, read_settings


def main() -> None:
    """Log warnings about the environment, then migrate."""
    try:
        settings = read_settings()
    except SettingsInvalid as error:
        sys.exit(f"error: {safetext.message(str(error))}")
    configure(settings)
    log_environment_warnings(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)


if __name__ == "__main__":
    main()
