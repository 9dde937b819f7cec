"""A uint128 as a column, exact in every database."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import Dialect, Numeric, String
from sqlalchemy.types import TypeDecorator, TypeEngine

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.units import MAX_UINT128

DIGITS = len(str(MAX_UINT128))


class Amount(TypeDecorator[int]):
    """Base units: NUMERIC(39, 0) where the database has exact numbers, else 39 zero-padded digits of text.

    Both order as the integers do, so `<` works in SQL; SUM does not on text, so sums are made in Python.
    """

    impl = String(DIGITS)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Numeric(DIGITS, 0))
        return dialect.type_descriptor(String(DIGITS))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Decimal | str | None:
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= MAX_UINT128:
            raise InvalidInput(f"not a uint128: {value!r:.80}")
        return Decimal(value) if dialect.name == "postgresql" else f"{value:0{DIGITS}d}"

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)
