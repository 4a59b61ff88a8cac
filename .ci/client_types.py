"""Write the client's types from the OpenAPI document, to the file that is named or to standard output."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from api.app import create_app  # noqa: E402
from api.openapi.typed_dicts import source  # noqa: E402
from storage.settings import Settings  # noqa: E402


def written() -> str:
    """The module `api.client.documents` as the document has it."""
    with TemporaryDirectory() as home:
        document = create_app(Settings(home=Path(home))).openapi()
    return source(document["components"]["schemas"], paths=document["paths"])


if __name__ == "__main__":
    text = written()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        print(text, end="")
