"""`python -m storage.migrations`: bring the configured database to the present tables."""

from storage.environment import log_environment_warnings
from storage.logs import configure
from storage.migrations import upgrade
from storage.settings import settings_of_process


def main() -> None:
    """Log warnings about the environment, then migrate."""
    settings = settings_of_process()
    configure(settings)
    log_environment_warnings(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)


if __name__ == "__main__":
    main()
