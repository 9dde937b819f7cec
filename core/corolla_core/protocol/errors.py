"""The one error tree. Errors carry data, so that a caller can mend what it caught.

CorollaError
├── InvalidInput            what was given can never be accepted
│   ├── InvalidSpan
│   ├── InvalidSignature
│   ├── InvalidProof
│   ├── NonceReused(nonce)  an Open with a client_nonce this node has signed under before
│   ├── RowTooLarge(limit, offered)          rows of a session that could never be opened on chain
│   ├── ContextExceeded(limit, needed)       more positions than the model has
│   ├── InvalidProbability(name, value)      not an exact number in [0, 1]
│   ├── Undeterrable(name)                   no value of `name` makes cheating a loss
│   ├── KeyRefused          an API key that is none, or is revoked or expired
│   └── MalformedMessage    bytes or fields from a peer that do not parse
├── PaymentError            the money side of a session refuses
│   ├── VoucherTooSmall(owed, offered)
│   ├── VoucherStale(known, offered)
│   ├── VoucherOverCap(cap, offered)
│   ├── VoucherWrongPayee(expected, offered)
│   ├── VoucherForged(signer)
│   ├── TrancheExpired(expiry, now)
│   ├── TrancheUnknown(tranche_id)
│   ├── PriceTooLow(asked, offered)
│   ├── SpendingLimitExceeded(limit, needed)
│   ├── BudgetSpent(available, needed)       an API key may not spend as much as a request can cost
│   └── InsufficientFunds(available, needed)
├── ServingError            a node cannot do the step it was asked
│   ├── OutOfCapacity(needed, free)
│   ├── Overloaded(retry_after)              more requests than a gateway takes; in whole seconds it may be otherwise
│   ├── SessionUnknown(session_id)
│   ├── SessionClosed
│   ├── PositionMismatch(expected, offered)
│   ├── TensorRejected
│   ├── NotServed           the node does not hold these blocks
│   ├── OpeningUnavailable(receipt, reason)  unknown, lost, busy or too large
│   ├── PossessionUnavailable(reason)        lost or busy
│   ├── NotAdmitted         the swarm is private, and who asks is not attested
│   └── Draining
├── NetworkError
│   ├── PeerUnreachable(peer)
│   ├── PeerMisbehaved(peer)
│   ├── PeerTimeout(peer)
│   ├── LinkBroken(peer, receipt)  a node signed for other rows than it sent to the next
│   ├── NoRoute(missing)
│   ├── NoBackend           no backend of a gateway's policy takes a request
│   ├── PrivacyUnmet        a private request, and no private swarm that takes it
│   └── UpstreamRefused(status, retry_after)  an OpenAI-compatible endpoint answered with an error
├── ModelError
│   ├── WeightsCorrupt(path)
│   ├── WeightsMissing(names)
│   ├── UnsupportedModel
│   └── NotCalibrated       no thresholds to judge such a node by
├── ChainError
│   ├── ChainUnreachable
│   ├── TransactionReverted(reason)
│   ├── TransactionNotMined(tx_hash)        it may still be: the outcome is unknown
│   ├── TransactionReplaced(tx_hash, nonce)  another transaction took its nonce; it did not happen
│   ├── RpcRefused(rpc_code)                 the endpoint answered, with an error
│   └── WrongChain(expected, found)
├── StoreError(reason)      the database refuses: full, locked, unavailable, corrupt; nothing already kept is lost
└── ConfigError
    ├── KeystoreError
    └── ProcessFailed(name, status)   a program we started did not come up, or died

Every class has a stable `code` (its wire name); `to_wire`/`from_wire` carry an error across a connection without
ever naming a class a peer chose: an unknown code becomes `PeerMisbehaved`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CorollaError(Exception):
    """Base of everything Corolla raises on purpose."""

    #: names of the data a subclass carries, in constructor order
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", **data: Any) -> None:
        unknown = set(data) - set(self.fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} carries {self.fields}, not {sorted(unknown)}")
        self.message = message or type(self).__name__
        self.data = {name: data.get(name) for name in self.fields}
        super().__init__(self.message)

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that are not ordinary attributes.
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(name)

    def __str__(self) -> str:
        shown = ", ".join(f"{k}={_show(v)}" for k, v in self.data.items() if v is not None)
        return f"{self.message} ({shown})" if shown else self.message

    @property
    def code(self) -> str:
        return type(self).__name__


class InvalidInput(CorollaError):
    """What was given can never be accepted, whatever the state."""


class InvalidSpan(InvalidInput):
    fields = ("start", "end")


class InvalidSignature(InvalidInput):
    pass


class InvalidProof(InvalidInput):
    pass


class NonceReused(InvalidInput):
    """An Open with a `client_nonce` that this node accepted before: a second chain under it would be a fork."""

    fields = ("nonce",)


class RowTooLarge(InvalidInput):
    """A row of more bytes than one transaction can open on chain: a node that signed for it could not defend itself."""

    fields = ("limit", "offered")


class ContextExceeded(InvalidInput):
    """A prompt and the tokens asked for after it take more positions than the model has."""

    fields = ("limit", "needed")


class InvalidProbability(InvalidInput):
    """Not an exact number in [0, 1]: an int or a Fraction, never a float."""

    fields = ("name", "value")


class Undeterrable(InvalidInput):
    """No value of the parameter `name` makes cheating a loss, the others being what they are."""

    fields = ("name",)


class KeyRefused(InvalidInput):
    """An API key that is none, or is revoked or expired. Which of these it is, only the key's own holder is told."""


class MalformedMessage(InvalidInput):
    """Bytes or fields from a peer that do not parse."""


class PaymentError(CorollaError):
    """The money side of a session refuses. All amounts are Nectar base units (ints)."""


class VoucherTooSmall(PaymentError):
    fields = ("owed", "offered")


class VoucherStale(PaymentError):
    fields = ("known", "offered")


class VoucherOverCap(PaymentError):
    fields = ("cap", "offered")


class VoucherWrongPayee(PaymentError):
    fields = ("expected", "offered")


class VoucherForged(PaymentError):
    fields = ("signer",)


class TrancheExpired(PaymentError):
    fields = ("expiry", "now")


class TrancheUnknown(PaymentError):
    fields = ("tranche_id",)


class PriceTooLow(PaymentError):
    """The client offers less per token and block than the node asks."""

    fields = ("asked", "offered")


class SpendingLimitExceeded(PaymentError):
    fields = ("limit", "needed")


class BudgetSpent(PaymentError):
    """What is left of an API key's budget is less than the request can cost."""

    fields = ("available", "needed")


class InsufficientFunds(PaymentError):
    fields = ("available", "needed")


class ServingError(CorollaError):
    """A node cannot do the step it was asked."""


class OutOfCapacity(ServingError):
    """Not enough KV memory; `needed` and `free` are bytes."""

    fields = ("needed", "free")


class Overloaded(ServingError):
    """A gateway runs and keeps waiting all that it can. `retry_after`: whole seconds until it may be otherwise."""

    fields = ("retry_after",)


class SessionUnknown(ServingError):
    fields = ("session_id",)


class SessionClosed(ServingError):
    pass


class PositionMismatch(ServingError):
    fields = ("expected", "offered")


class TensorRejected(ServingError):
    """A tensor of the wrong shape or dtype, too large, or with NaN or infinity in it."""


class NotServed(ServingError):
    """The node does not hold these blocks of this model."""


class OpeningUnavailable(ServingError):
    """The rows under a receipt cannot be shown. `reason` is `unknown` (no receipt of this node, or older than it keeps
    rows), `lost` (the disk gave something else back), `busy` (ask again later) or `large` (ask for less at once)."""

    fields = ("receipt", "reason")


class PossessionUnavailable(ServingError):
    """A node does not show its weights. `reason` is `busy` (ask again later) or `lost` (it cannot read them)."""

    fields = ("reason",)


class NotAdmitted(ServingError):
    """The swarm is private, and who asks is not attested in it, or no longer."""


class Draining(ServingError):
    """The node is shutting down and takes no new session."""


class NetworkError(CorollaError):
    pass


class PeerUnreachable(NetworkError):
    fields = ("peer",)


class PeerMisbehaved(NetworkError):
    fields = ("peer",)


class PeerTimeout(NetworkError):
    fields = ("peer",)


class LinkBroken(NetworkError):
    """`peer` signed the receipt with the hash `receipt` for other rows than the next node got from it."""

    fields = ("peer", "receipt")


class NoRoute(NetworkError):
    """No chain of nodes covers the model; `missing` lists the uncovered block indices."""

    fields = ("missing",)


class NoBackend(NetworkError):
    """Each backend of a gateway's policy lacks the model, or may cost more or be slower than the policy allows."""


class PrivacyUnmet(NetworkError):
    """A request that must not leave the private swarm, and no private swarm that takes it."""


class UpstreamRefused(NetworkError):
    """An OpenAI-compatible endpoint answered with an error: `status` is its HTTP status, `retry_after` the whole
    seconds it asks to wait, None where it does not say."""

    fields = ("status", "retry_after")


class ModelError(CorollaError):
    pass


class WeightsCorrupt(ModelError):
    fields = ("path",)


class WeightsMissing(ModelError):
    fields = ("names",)


class UnsupportedModel(ModelError):
    pass


class NotCalibrated(ModelError):
    """There are no thresholds for this model, numeric class, wire dtype or span: nothing may be concluded."""


class ChainError(CorollaError):
    pass


class ChainUnreachable(ChainError):
    pass


class TransactionReverted(ChainError):
    fields = ("reason",)


class TransactionNotMined(ChainError):
    """Sent, or perhaps sent, but not seen mined in time. It may still be mined; sending it anew could do it twice."""

    fields = ("tx_hash",)


class TransactionReplaced(ChainError):
    fields = ("tx_hash", "nonce")


class RpcRefused(ChainError):
    fields = ("rpc_code",)


class WrongChain(ChainError):
    fields = ("expected", "found")


class StoreError(CorollaError):
    """The database refuses. `reason` is `full`, `locked`, `unavailable`, `corrupt`, `schema` or `invalid`.

    What an earlier call acknowledged is still there; what this call was given is not.
    """

    fields = ("reason",)


class ConfigError(CorollaError):
    pass


class KeystoreError(ConfigError):
    pass


class ProcessFailed(ConfigError):
    """A program we started did not come up, or died. `status` is its exit status, None while it runs."""

    fields = ("name", "status")


def _show(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _tree(root: type[CorollaError]) -> dict[str, type[CorollaError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE = _tree(CorollaError)
_MAX_TEXT = 500
_MAX_INT = 2**256


def to_wire(error: CorollaError) -> dict[str, Any]:
    """`{"code", "message", "data"}` of an error for msgpack; ints as decimal strings (they may exceed 64 bits)."""
    data = {k: _field_to_wire(v) for k, v in error.data.items() if v is not None}
    return {"code": error.code, "message": error.message[:_MAX_TEXT], "data": data}


def from_wire(raw: object) -> CorollaError:
    """The error a peer sent. Hostile input: anything that does not parse comes back as `PeerMisbehaved`."""
    if not isinstance(raw, dict):
        return PeerMisbehaved("peer sent an error that is not a map")
    code, message, data = raw.get("code"), raw.get("message"), raw.get("data", {})
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    if kind is None or not isinstance(message, str) or not isinstance(data, dict):
        return PeerMisbehaved("peer sent a malformed error")
    kept = {name: _field_from_wire(data[name]) for name in kind.fields if name in data}
    return kind(message[:_MAX_TEXT], **kept)


def _field_to_wire(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, (list, tuple)):
            return [_field_to_wire(v) for v in list(value)[:1024]]
        return value if isinstance(value, (bool, bytes)) else str(value)[:_MAX_TEXT]
    return {"int": str(value)}


def _field_from_wire(value: Any) -> Any:
    if isinstance(value, dict):
        text = value.get("int")
        if (
            isinstance(text, str)
            and len(text) <= 79
            and text.removeprefix("-").isdecimal()
            and abs(int(text)) < _MAX_INT
        ):
            return int(text)
        return None
    if isinstance(value, list):
        return [_field_from_wire(v) for v in value[:1024] if not isinstance(v, list)]
    if isinstance(value, (str, bytes)):
        return value[:_MAX_TEXT]
    return value if isinstance(value, bool) else None
