"""Money and time as named integers. Nothing here is ever a float.

`Nectar` counts base units of the NectarToken (10**-18 of one token); `Wei` counts base units of the chain's gas coin.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import NewType

from corolla_core.protocol.errors import InvalidInput

Nectar = NewType("Nectar", int)
Wei = NewType("Wei", int)
UnixTime = NewType("UnixTime", int)
"""Seconds since the epoch, as the chain counts them."""

DECIMALS = 18
ONE_NECTAR = Nectar(10**DECIMALS)
MAX_UINT128 = 2**128 - 1


def nectar_from_text(text: str) -> Nectar:
    """Base units of a decimal amount such as `"1.5"` (whole tokens).

    Raises InvalidInput if it is negative, out of range, or finer than 10**-18.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise InvalidInput(f"not an amount: {text!r}") from None
    if not amount.is_finite() or amount < 0:
        raise InvalidInput(f"not an amount: {text!r}")
    _sign, digits, exponent = amount.as_tuple()
    shift = DECIMALS + int(exponent)
    if shift < 0 and any(digits[shift:]):
        raise InvalidInput(f"finer than one base unit: {text!r}")
    if shift > 60 or len(digits) > 60:
        raise InvalidInput(f"out of range: {text!r}")
    whole = int("".join(map(str, digits)))
    value = whole * 10**shift if shift >= 0 else whole // 10**-shift
    if value > MAX_UINT128:
        raise InvalidInput(f"out of range: {text!r}")
    return Nectar(value)


def nectar_to_text(amount: int) -> str:
    """An amount of base units in whole tokens, exact, without trailing zeros: `1500000000000000000` → `"1.5"`."""
    sign, units = ("-", -amount) if amount < 0 else ("", amount)
    whole, fraction = divmod(units, ONE_NECTAR)
    tail = f"{fraction:0{DECIMALS}d}".rstrip("0")
    return f"{sign}{whole}.{tail}" if tail else f"{sign}{whole}"
