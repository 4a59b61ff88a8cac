"""`python -m storage.migrations`: bring the configured database to the present tables."""

from storage.migrations import upgrade
from storage.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)
