"""The group of all commands: it can print on any terminal, and what a person can cause ends in one line."""

import codecs
import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from api.commands.console import failure

_PLAIN = {"─": "-", "–": "-", "×": "x", "✓": "+", "✗": "-", "…": "..."}  # what we draw with, in ASCII


class Commands(TyperGroup):
    """Ends with 1 and a line on standard error where something fails that no command expected."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line."""
        print_anything()
        return super().main(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # which not every typer answers so
            raise typer.Exit(130) from None
        except BrokenPipeError:  # of `accrete models | head`: typer ends it
            raise
        except OSError as error:
            place = f"{error.filename}: " if error.filename is not None else ""
            raise failure(f"{place}{error.strerror or error}") from error


def print_anything() -> None:
    """Let standard output take what its terminal cannot show, as the nearest sign or in digits."""
    codecs.register_error("accrete", _plain)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="accrete")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or ascii(sign)[1:-1] for sign in signs), error.end
