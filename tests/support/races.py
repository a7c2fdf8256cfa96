"""Somebody else who acts in just the wrong moment."""

from collections.abc import Callable
from typing import Any

from django.db import connection


def meanwhile(table: str, verb: str, act: Callable[[], Any]) -> Any:
    """A hook that lets somebody else `act` just before the first such statement on the table."""
    pending = [act]

    def hook(execute: Any, sql: str, *args: Any) -> Any:
        if pending and sql.startswith(verb) and f'"{table}"' in sql:
            pending.pop()()
        return execute(sql, *args)

    return connection.execute_wrapper(hook)
