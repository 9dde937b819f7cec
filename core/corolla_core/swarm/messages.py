"""Every message two peers can exchange, as msgspec structs: decoding checks types and bounds in C, or fails.

Amounts are 16 big-endian bytes (msgpack has no uint128). A message whose `tensor` is set is followed in its frame by
exactly the raw bytes of that tensor. The life of a session:

    client                      node 0                      node 1
      │ Open ───────────────────▶ │                            │
      │ Open ─────────────────────┼──────────────────────────▶ │
      │ ◀──────────────── Opened  │   (each node answers)      │
      │ Pay ────────────────────▶ │   (to each node, ahead of the work)
      │ Step ───────────────────▶ │ Step ────────────────────▶ │
      │ ◀──────────────────────────────────────────── Result   │   (once per step)
      │ ◀─────────────── Receipt  │ Receipt ─────────────────▶ │   (each node, once per chunk)
      │ Close ──────────────────▶ │

A node that dies is replaced by `Open` on a standby, then `Rewire` on the node before it (which replays the rows it
kept), then the unfinished `Step` again under its old number: nodes that did it already answer from kept rows.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from corolla_core.protocol.ids import SessionId
from corolla_core.protocol.possession import MOST_CHUNKS
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.reordering import Reordering

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Account = Annotated[bytes, Meta(min_length=20, max_length=20)]
Session = Annotated[bytes, Meta(min_length=16, max_length=16)]
Amount = Annotated[bytes, Meta(min_length=16, max_length=16)]
Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Big = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=64)]
Host = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=500)]

#: in one answer: what fits a frame's header
MAX_RECEIPTS = 96
#: `batch` × `chunk_tokens`: so many numbers of sequences fit an Opening's header
MAX_CHUNK_ROWS = 16_384


def amount(value: int) -> bytes:
    """A uint128 as it travels."""
    return value.to_bytes(16, "big")


class Part(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A piece of a message."""


class Tensor(Part, frozen=True):
    """dtype is a torch dtype name (`float32`, `bfloat16`, `float16`, `int8`); the bytes are row-major, little endian.

    What is `hidden` in a shape below is `WireDtype.width(hidden)`: with int8, a row's scales follow its codes."""

    dtype: Name
    shape: Annotated[list[Annotated[int, Meta(ge=1, le=2**31)]], Meta(min_length=1, max_length=4)]


class Endpoint(Part, frozen=True):
    """Where and who a peer is. `cert_hash` pins its TLS certificate; `peer_id` reaches it over libp2p instead."""

    account: Account
    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    cert_hash: Hash
    peer_id: Annotated[str, Meta(max_length=128)]


class Branch(Part, frozen=True):
    """A Merkle-sum branch: `(hash, sum)` siblings from the leaf up."""

    index: Count
    siblings: Annotated[list[tuple[Hash, Amount]], Meta(max_length=32)]


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=lambda name: name.lower()):
    """Base of everything that travels. The wire name is the class name in lower case."""


class Open(Message, frozen=True):
    """Client to node: reserve a KV cache for `batch` rows of at most `max_tokens` positions over blocks [start, end).

    `upstream` is the account whose Steps to accept besides the client's own; `downstream` is where outputs go, None
    meaning back to the client. `price` is what the client accepts to pay per token and block. `traceparent`, where the
    client traces this session, is a W3C Trace Context header to continue from; what is none is ignored.
    """

    session: Session
    model_root: Hash
    start: Count
    end: Count
    batch: Annotated[int, Meta(ge=1, le=1024)]
    max_tokens: Annotated[int, Meta(ge=1, le=2**24)]
    wire_dtype: Name
    chunk_tokens: Annotated[int, Meta(ge=1, le=4096)]
    price: Amount
    tranche_id: Hash
    cap: Amount
    branch: Branch
    client_nonce: Hash
    upstream: Account | None = None
    downstream: Endpoint | None = None
    traceparent: Annotated[str, Meta(max_length=55)] | None = None


class Opened(Message, frozen=True):
    """Node to client: the session stands. `paid` is the highest cumulative voucher the node holds on this tranche,
    `charged` the work it has charged to it, over all sessions."""

    session: Session
    weight_root: Hash
    numeric_class: Name
    paid: Amount
    charged: Amount


class Step(Message, frozen=True):
    """Hidden states `[batch, tokens, hidden]` for positions `[pos, pos + tokens)`; client to node and node to node.

    `step` counts up from 1 in a session; a number seen before is answered from kept rows, not computed or charged.
    `reorder` picks cache rows (beam search) before computing; `crop` drops cached positions from `pos` on.
    Outputs below `forward_from` are kept but not forwarded (a replay). `keep` is how many trailing positions the
    client wants back from the last node (0: only an empty Result as acknowledgement).
    """

    session: Session
    step: Big
    pos: Count
    tensor: Tensor
    keep: Count
    forward_from: Count = 0
    crop: bool = False
    reorder: Annotated[list[Count], Meta(max_length=1024)] | None = None


class Result(Message, frozen=True):
    """Last node to client: the last `keep` positions of a step's output; `tensor` is None where none were wanted."""

    session: Session
    step: Big
    pos: Count
    tensor: Tensor | None


class Rewire(Message, frozen=True):
    """Client to node: send outputs to `downstream` from now on (None: to the client), first replaying to it the
    kept output rows `[0, replay_to)`. `upstream`, where given, is the account whose Steps to accept from now on: the
    node after a replaced one gets a Rewire with the downstream it has, `replay_to` 0 and its new upstream."""

    session: Session
    downstream: Endpoint | None
    replay_to: Count
    upstream: Account | None = None


class Rewired(Message, frozen=True):
    session: Session


class Pay(Message, frozen=True):
    """Client to node: a cumulative voucher (its payee is the node it is sent to)."""

    tranche_id: Hash
    cumulative: Amount
    receipt_head: Hash
    signature: Signature


class Paid(Message, frozen=True):
    tranche_id: Hash
    cumulative: Amount


class Receipt(Message, frozen=True):
    """Node to client, and to the next node: one signed receipt. What is no receipt does not parse; whose signature it
    is has yet to be looked at."""

    signed: SignedReceipt

    @property
    def session(self) -> SessionId:
        return self.signed.receipt.session_id


class AskOpening(Message, frozen=True):
    """Anyone to node: show the rows under the receipt with this hash. `positions` empty: all of them."""

    receipt: Hash
    positions: Annotated[list[Count], Meta(max_length=64)] = []
    inputs: bool = True
    outputs: bool = True


class Opening(Message, frozen=True):
    """Node's answer to AskOpening: `[sides, positions, batch, hidden]` rows as they travelled, inputs before outputs.

    `branches` has the Merkle siblings of each row in that order, from the leaf up; none where all rows are shown. Only
    then the reorderings are shown as well.
    """

    receipt: Hash
    branches: Annotated[list[Annotated[list[Hash], Meta(max_length=12)]], Meta(max_length=128)]
    tensor: Tensor
    reorderings: Annotated[list[Reordering], Meta(max_length=4096)] = []


class AskPossession(Message, frozen=True):
    """Anyone to node: show that you hold these chunks of the weights, each named by its block and its place there (see
    `protocol.possession`)."""

    model_root: Hash
    salt: Hash
    chunks: Annotated[list[tuple[Count, Count]], Meta(min_length=1, max_length=MOST_CHUNKS)]


class Possession(Message, frozen=True):
    """Node's answer to AskPossession: a digest for each chunk, in the order asked."""

    salt: Hash
    digests: Annotated[list[Hash], Meta(max_length=MOST_CHUNKS)]


class Close(Message, frozen=True):
    session: Session


class Closed(Message, frozen=True):
    session: Session


class Fault(Message, frozen=True):
    """A typed refusal: `error` is what `protocol.errors.to_wire` gives. `step` says which Step was refused."""

    error: dict[str, object]
    session: Session | None = None
    step: Big | None = None


class Ping(Message, frozen=True):
    nonce: Big


class Pong(Message, frozen=True):
    nonce: Big


class Ask(Message, frozen=True):
    """Anyone to node: how are you?"""


class Info(Message, frozen=True):
    """Node's answer to Ask."""

    model_root: Hash
    start: Count
    end: Count
    price: Amount
    sessions: Count
    queued: Count
    kv_free: Big
    kv_total: Big
    tokens_served: Big
    draining: bool


class AskReceipts(Message, frozen=True):
    """Anyone to node: the receipts it signed, sorted by (`t_out`, hash), from behind this one on."""

    t_out: Big
    after: Hash


class Receipts(Message, frozen=True):
    """Node's answer to AskReceipts or AskNamed; `more` when there are others behind these already."""

    receipts: Annotated[list[SignedReceipt], Meta(max_length=MAX_RECEIPTS)]
    more: bool


class AskNamed(Message, frozen=True):
    """Anyone to node: the receipts with these hashes, its own or those of the node before that its own name. The
    answer has those of them it holds."""

    receipts: Annotated[list[Hash], Meta(max_length=MAX_RECEIPTS)]


AnyMessage = (
    Open
    | Opened
    | Step
    | Result
    | Rewire
    | Rewired
    | Pay
    | Paid
    | Receipt
    | AskOpening
    | Opening
    | AskPossession
    | Possession
    | Close
    | Closed
    | Fault
    | Ping
    | Pong
    | Ask
    | Info
    | AskReceipts
    | Receipts
    | AskNamed
)
