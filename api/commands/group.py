"""The group of all commands: it prints on any terminal, and reports errors of the system in one line."""

import codecs
import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from api.commands.console import failure

_PLAIN = {"─": "-", "–": "-", "×": "x", "✓": "+", "✗": "-", "…": "..."}  # what commands print, in ASCII


class Commands(TyperGroup):
    """Ends with exit code 1 and one line on standard error when a command raises an OSError."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line."""
        print_anything()
        return super().main(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # not every version of typer exits with 130
            raise typer.Exit(130) from None
        except BrokenPipeError:  # as in `accrete models | head`: typer handles it
            raise
        except OSError as error:
            place = f"{error.filename}: " if error.filename is not None else ""
            raise failure(f"{place}{error.strerror or error}") from error


def print_anything() -> None:
    """Let standard output replace characters that its encoding lacks, by a similar ASCII sign or an escape."""
    codecs.register_error("accrete", _plain)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="accrete")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or ascii(sign)[1:-1] for sign in signs), error.end
