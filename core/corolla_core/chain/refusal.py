"""Why an endpoint refused a raw transaction, from the words that Geth, Anvil, Erigon and Ganache use."""

from __future__ import annotations

from enum import Enum


class Refusal(Enum):
    """`ALREADY_KNOWN` is no refusal. All others but `UNCLEAR` say that this transaction did not enter the pool."""

    ALREADY_KNOWN = "already known"
    NONCE_TOO_LOW = "its nonce is used"
    NONCE_TAKEN = "a transaction with its nonce is waiting and pays as much"
    FEE_TOO_LOW = "pays too little"
    NO_FUNDS = "the account cannot pay for gas"
    INVALID = "can never be mined"
    UNCLEAR = "unclear"


_WORDS = (
    (Refusal.ALREADY_KNOWN, ("already known", "known transaction", "already imported", "alreadyexists")),
    (Refusal.NONCE_TAKEN, ("replacement transaction underpriced", "could not replace")),
    (Refusal.NONCE_TOO_LOW, ("nonce too low", "correct nonce", "nonce is too low", "oldnonce")),
    (Refusal.FEE_TOO_LOW, ("underpriced", "less than block base fee", "less than the block's basefee", "fee too low")),
    (Refusal.NO_FUNDS, ("insufficient funds", "enough funds", "insufficient balance")),
    (
        Refusal.INVALID,
        (
            "intrinsic gas",
            "block gas limit",
            "exceeds gas limit",
            "initcode",
            "oversized",
            "invalid sender",
            "chain id",
        ),
    ),
)


def classify(message: str) -> Refusal:
    """The kind of a refusal; UNCLEAR, and so to be treated as perhaps sent, when we do not know the words."""
    lower = message.lower()
    for kind, phrases in _WORDS:
        if any(phrase in lower for phrase in phrases):
            return kind
    return Refusal.UNCLEAR
