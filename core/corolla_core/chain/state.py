"""What the chain's events add up to: a fold, `state = apply(state, event)`, with nothing else in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar, assert_never

from corolla_core.chain import events as on_chain
from corolla_core.chain.justice import JusticeState, judged
from corolla_core.protocol.ids import Address, Hash32, TrancheId

#: The time until which a tombstoned node is jailed: the largest uint64.
FOR_GOOD = 2**64 - 1

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class TrancheState:
    payer: Address
    signer: Address
    root: Hash32
    total: int
    redeemed: int
    expiry: int
    closes_at: int
    reclaimed: bool


@dataclass(frozen=True, slots=True)
class NodeState:
    owner: Address
    peer_id: bytes
    stake: int
    unbonding: int = 0
    unbonding_at: int = 0
    jailed_until: int = 0

    @property
    def tombstoned(self) -> bool:
        """Whether it is out for good."""
        return self.jailed_until == FOR_GOOD


@dataclass(frozen=True, slots=True)
class ModelState:
    name: str
    owner: Address
    roots: tuple[Hash32, ...]
    deprecated: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class NetworkState:
    """Balances in base units, by account. `claimed` is by (tranche, payee)."""

    free: Mapping[Address, int] = field(default_factory=dict)
    payees: Mapping[Address, int] = field(default_factory=dict)
    tranches: Mapping[TrancheId, TrancheState] = field(default_factory=dict)
    claimed: Mapping[tuple[TrancheId, Address], int] = field(default_factory=dict)
    fees: int = 0
    nodes: Mapping[Address, NodeState] = field(default_factory=dict)
    models: Mapping[Hash32, ModelState] = field(default_factory=dict)
    justice: JusticeState = field(default_factory=JusticeState)

    @property
    def locked(self) -> int:
        """What open tranches still hold."""
        return sum(t.total - t.redeemed for t in self.tranches.values() if not t.reclaimed)

    @property
    def escrowed(self) -> int:
        """What the escrow owes to everybody; its token balance is never less."""
        return sum(self.free.values()) + sum(self.payees.values()) + self.locked + self.fees


def fold(events: Iterable[on_chain.Event], state: NetworkState | None = None) -> NetworkState:
    result = state or NetworkState()
    for event in events:
        result = apply(result, event)
    return result


def apply(state: NetworkState, event: on_chain.Event) -> NetworkState:
    """The state after an event. Events that bear on nothing kept here change nothing."""
    match event:
        case (
            on_chain.NodeRegistered()
            | on_chain.PeerIdUpdated()
            | on_chain.StakeAdded()
            | on_chain.UnstakeBegun()
            | on_chain.StakeWithdrawn()
            | on_chain.StakeLocked()
            | on_chain.NodeJailed()
            | on_chain.NodeUnjailed()
            | on_chain.NodeSlashed()
        ):
            before = state.nodes.get(event.node)
            after = _node(before, event)
            return state if after is None else replace(state, nodes=_with(state.nodes, event.node, after))
        case on_chain.ModelPublished() | on_chain.ModelDeprecated() | on_chain.ModelTransferred():
            model = _model(state.models.get(event.model_id), event)
            return state if model is None else replace(state, models=_with(state.models, event.model_id, model))
        case (
            on_chain.FaultPunished()
            | on_chain.ClientRefunded()
            | on_chain.OpeningChallenged()
            | on_chain.OpeningAnswered()
            | on_chain.OpeningExpired()
            | on_chain.DisputeOpened()
            | on_chain.JuryCalled()
            | on_chain.JurorDrawn()
            | on_chain.JuryDrawn()
            | on_chain.VoteRevealed()
            | on_chain.DisputeConcluded()
            | on_chain.DisputeCredited()
            | on_chain.JurorSettled()
            | on_chain.ScoreSettled()
        ):
            return replace(state, justice=judged(state.justice, event))
        case _:
            return _escrow(state, event)


def _escrow(state: NetworkState, event: on_chain.EscrowEvent) -> NetworkState:
    match event:
        case on_chain.Deposited(account=account, amount=amount):
            return replace(state, free=_add(state.free, account, amount))
        case on_chain.FreeWithdrawn(account=account, amount=amount):
            return replace(state, free=_add(state.free, account, -amount))
        case on_chain.TrancheOpened(tranche_id=tranche, payer=payer):
            opened = TrancheState(
                payer, event.signer, event.root, event.total, 0, event.expiry, event.closes_at, reclaimed=False
            )
            free = _add(state.free, payer, -event.total)
            return replace(state, free=free, tranches=_with(state.tranches, tranche, opened))
        case on_chain.VoucherRedeemed(tranche_id=tranche, payee=payee, amount=amount, fee=fee):
            before = state.tranches[tranche]
            return replace(
                state,
                tranches=_with(state.tranches, tranche, replace(before, redeemed=before.redeemed + amount)),
                claimed=_with(state.claimed, (tranche, payee), event.cumulative),
                payees=_add(state.payees, payee, amount - fee),
                fees=state.fees + fee,
            )
        case on_chain.PayeeWithdrawn(payee=payee, amount=amount):
            return replace(state, payees=_add(state.payees, payee, -amount))
        case on_chain.TrancheReclaimed(tranche_id=tranche, payer=payer, amount=amount):
            closed = replace(state.tranches[tranche], reclaimed=True)
            tranches = _with(state.tranches, tranche, closed)
            return replace(state, tranches=tranches, free=_add(state.free, payer, amount))
        case on_chain.FeesBurned(amount=amount):
            return replace(state, fees=state.fees - amount)
        case on_chain.SignerAuthorized() | on_chain.SignerThawed() | on_chain.SignerRevoked():
            return state
        case _:
            assert_never(event)


def _node(node: NodeState | None, event: on_chain.RegistryEvent) -> NodeState | None:
    if isinstance(event, on_chain.NodeRegistered):
        return NodeState(event.owner, event.peer_id, event.stake)
    if node is None:  # an index that starts later than the node registered
        return None
    match event:
        case on_chain.PeerIdUpdated(peer_id=peer_id):
            return replace(node, peer_id=peer_id)
        case on_chain.StakeAdded(amount=amount):
            return replace(node, stake=node.stake + amount)
        case on_chain.UnstakeBegun(amount=amount, withdrawable_at=at):
            return replace(node, stake=node.stake - amount, unbonding=node.unbonding + amount, unbonding_at=at)
        case on_chain.StakeWithdrawn(amount=amount):
            left = node.unbonding - amount
            return replace(node, unbonding=left, unbonding_at=node.unbonding_at if left else 0)
        case on_chain.NodeSlashed(amount=amount):
            from_stake = min(amount, node.stake)
            left = node.unbonding - (amount - from_stake)
            at = node.unbonding_at if left else 0
            return replace(node, stake=node.stake - from_stake, unbonding=left, unbonding_at=at)
        case on_chain.NodeJailed(until=until):
            return replace(node, jailed_until=until)
        case on_chain.NodeUnjailed():
            return replace(node, jailed_until=0)
        case on_chain.StakeLocked():
            return node
        case _:
            assert_never(event)


def _model(model: ModelState | None, event: on_chain.ModelEvent) -> ModelState | None:
    if isinstance(event, on_chain.ModelPublished):
        roots = model.roots if model is not None else ()
        hidden = model.deprecated if model is not None else frozenset()
        return ModelState(event.name, event.owner, (*roots, event.manifest_root), hidden)
    if model is None:
        return None
    match event:
        case on_chain.ModelDeprecated(version=version):
            return replace(model, deprecated=model.deprecated | {version})
        case on_chain.ModelTransferred(to=to):
            return replace(model, owner=to)
        case _:
            assert_never(event)


def _with(mapping: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    return {**mapping, key: value}


def _add(balances: Mapping[Address, int], account: Address, amount: int) -> dict[Address, int]:
    """Balances with one changed; an account at zero is left out, so that equal states compare equal."""
    changed = {**balances, account: balances.get(account, 0) + amount}
    if changed[account] == 0:
        del changed[account]
    return changed
