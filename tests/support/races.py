"""Simulate a concurrent change between two statements."""

from collections.abc import Callable
from typing import Any

from django.db import connection


def meanwhile(table: str, verb: str, act: Callable[[], Any]) -> Any:
    """An execute wrapper that calls `act` before the first `verb` statement on the table."""
    pending, quoted = [act], connection.ops.quote_name(table)

    def hook(execute: Any, sql: str, *args: Any) -> Any:
        if pending and sql.startswith(verb) and quoted in sql:
            pending.pop()()
        return execute(sql, *args)

    return connection.execute_wrapper(hook)
