"""The database's own clock: what several machines compare must not depend on how well each of them keeps time."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from storage.database.tables import Moment


class moment(FunctionElement[datetime]):  # noqa: N801 – a function in SQL
    """The moment at which the database looks, so many seconds later; in a long transaction it is not its beginning."""

    inherit_cache = True
    type = Moment()

    def __init__(self, seconds: float = 0.0) -> None:
        """``seconds`` from now, before if negative."""
        super().__init__(bindparam("seconds", seconds, type_=Float(), unique=True))


@compiles(moment, "postgresql")
def _in_postgresql(element: moment, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"clock_timestamp() + make_interval(secs => {seconds})"


@compiles(moment, "sqlite")
def _in_sqlite(element: moment, compiler: SQLCompiler, **options: Any) -> str:
    """Written as SQLAlchemy writes moments, with six digits after the point, since texts are what is compared."""
    seconds = compiler.process(element.clauses, **options)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {seconds})) || '000')"
