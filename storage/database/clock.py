"""The database's clock: times that several machines compare come from it, not from the machines' own clocks."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from storage.database.columns import Moment


class moment(FunctionElement[datetime]):  # noqa: N801 – a function in SQL
    """The database's time when the statement runs, plus an offset; not the time when the transaction began."""

    inherit_cache = True
    type = Moment()

    def __init__(self, seconds: float = 0.0) -> None:
        """``seconds`` is the offset from now; negative values lie in the past."""
        super().__init__(bindparam("seconds", seconds, type_=Float(), unique=True))


@compiles(moment, "postgresql")
def _in_postgresql(element: moment, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"clock_timestamp() + make_interval(secs => {seconds})"


@compiles(moment, "sqlite")
def _in_sqlite(element: moment, compiler: SQLCompiler, **options: Any) -> str:
    """Use SQLAlchemy's text format for times (six decimals of a second), because SQLite compares times as text."""
    seconds = compiler.process(element.clauses, **options)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {seconds})) || '000')"
