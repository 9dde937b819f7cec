"""The nodes of one session, joined up: found, paid for, opened, wired, and replaced when they fall away."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import structlog

from corolla.hop import Hop
from corolla.linkage import Linkage
from corolla.links import Link, Links
from corolla.peers import Peers
from corolla.policy import Policy, Shape
from corolla.receipts import Orders, ReceiptChain, Terms, Witness
from corolla.router import Candidate, Leg, Preference, find_route, find_spares
from corolla.wallet import Purse, Wallet, Want
from corolla.wiring import Patience, Replay, Wiring
from corolla_core.config.tracing import Traced
from corolla_core.protocol.errors import (
    CorollaError,
    NetworkError,
    NoRoute,
    PeerMisbehaved,
    PeerTimeout,
    ServingError,
    TrancheUnknown,
)
from corolla_core.protocol.ids import Address, Hash32, SessionId, address_bytes
from corolla_core.protocol.receipt import SignedReceipt, WireDtype
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.messages import Branch, Close, Open, Opened, amount

_log = structlog.get_logger(__name__)

_LOOK_AGAIN = 0.5


class Pipeline:
    """`hops` is the chain as it stands, lost ones included until `repair` replaces them."""

    def __init__(
        self,
        *,
        session: SessionId,
        shape: Shape,
        chain_id: int,
        peers: Peers,
        links: Links,
        wallet: Wallet,
        weight_root: Callable[[Span], Hash32] | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
        trace: Traced | None = None,
    ) -> None:
        self.session = session
        self.shape = shape
        self.policy = policy or Policy()
        self.hops: list[Hop] = []
        self.retired: list[Hop] = []
        self.linkage = Linkage()
        self.orders = Orders()
        self._clock = clock
        self._trace = trace
        self._log = _log.bind(session=session)
        self._chain_id = chain_id
        self._peers = peers
        self._links = links
        self._wallet = wallet
        self._weight_root = weight_root
        self._wiring = Wiring(session, wallet, Patience(self.policy.answer, self.policy.step_per_token), lose=self.lose)
        self._opening: dict[Address, Hop] = {}
        self._lost_here: set[Address] = set()
        first, last = self.policy.local_blocks
        self._remote = Span(first, peers.num_blocks - last)
        self._newcomers = peers.newcomers_turn(self.policy.newcomer_share)

    @property
    def whole(self) -> bool:
        """Whether every block is served by a node that stands and has the history."""
        served = sum(len(hop.leg.span) for hop in self.hops if not hop.lost and not hop.fresh)
        return served == len(self._remote)

    def hop(self, account: Address) -> Hop | None:
        """The hop of a node that is in the chain, or being taken into it."""
        for hop in self.hops:
            if hop.account == account and not hop.lost:
                return hop
        return self._opening.get(account)

    def lose(self, hop: Hop, error: CorollaError) -> None:
        """The node is out: `repair` will replace it."""
        if not hop.lost:
            self._log.info("lost a node", peer=hop.account, span=str(hop.leg.span), error=str(error))
        self._peers.shun(hop.account, error)
        self._lost_here.add(hop.account)
        hop.fail(error)

    def lose_strangers(self) -> None:
        """Nodes that a private swarm admits no longer are out."""
        for hop in self.hops:
            if not hop.lost and not self._peers.admitted(hop.account):
                self.lose(hop, PeerMisbehaved("is not attested any more", peer=hop.account))

    def take_receipt(self, hop: Hop, signed: SignedReceipt) -> None:
        """Keep a node's receipt; a neighbour that it shows to have lied is lost. Raises PeerMisbehaved."""
        nonce = signed.receipt.client_nonce
        for old in self.retired:  # one that opened the session anew still signs for what it did before
            if old.account == hop.account and old.chain is not None and old.chain.terms.client_nonce == nonce:
                hop = old
        if hop.chain is None:
            return
        receipt = hop.chain.add(signed)
        hop.purse.note_receipt(receipt.hash())
        lying = self.linkage.check(hop.account, receipt, [each.account for each in self.hops if not each.lost])
        target = self.hop(lying.account) if lying is not None else None
        if lying is not None and target is not None:
            self.lose(target, lying.error)

    def took(self, seconds: float) -> None:
        """One token alone came back through the whole chain after `seconds`."""
        self._peers.took([hop.leg for hop in self.hops], seconds)

    def crop(self, position: int, *, end: int) -> None:
        """Rows in `[position, end)` are void."""
        for hop in self.hops:
            hop.crop(position, end=end)
        self.orders.crop(position, end=end)
        self.linkage.void(end)

    async def repair(self, *, replay_to: int, replay: Replay, patience: float) -> None:
        """Make the chain whole: fill every gap, bring the new nodes to position `replay_to`, wire them in.

        The nodes that stay are told where to send and whom to hear, and compute nothing again. Raises NoRoute when
        for `patience` seconds nobody can fill a gap, or a PaymentError, ChainError or StoreError.
        """
        give_up_at = time.monotonic() + patience
        rounds = 0
        while not self.whole:
            self._retire_lost()
            try:
                await self._fill_gaps()
                self._log.debug("every block is served")
                await self._wiring.join_up(self.hops, replay_to, replay)
                self._log.debug("the chain is whole", replayed=replay_to)
            except NoRoute:
                if time.monotonic() >= give_up_at:
                    raise
                await asyncio.sleep(_LOOK_AGAIN)
                self._lost_here.clear()  # one that fell away may be back, with nothing of ours in its memory
                await self._peers.refresh(within=_LOOK_AGAIN)
            except (NetworkError, ServingError, TimeoutError) as error:
                rounds += 1
                self._log.info("the chain is not whole yet", error=str(error) or type(error).__name__)
                if rounds >= self.policy.max_failovers:
                    raise
        self._warm_spares()

    def close(self) -> None:
        """Tell every node that the session is over, and give back what was reserved."""
        self._peers.sessions -= Counter(hop.account for hop in self.hops)
        for hop in self.hops:
            hop.send(Close(self.session))
        for hop in [*self.hops, *self.retired]:
            hop.purse.release()
            hop.end_trace()

    def _retire_lost(self) -> None:
        lost = [hop for hop in self.hops if hop.lost]
        self._peers.sessions -= Counter(hop.account for hop in lost)
        for hop in lost:
            hop.purse.release()
            hop.end_trace()
            _close(hop.link, self.session)
        self.retired += [hop for hop in lost if hop.cost]
        self.hops = [hop for hop in self.hops if not hop.lost]

    # Filling gaps

    async def _fill_gaps(self) -> None:
        if not (self.hops or self.retired):
            # In mid-session the dead node may be the very peer a lookup asks, and waits for: what is known has to do
            # first, and `repair` looks again when it does not.
            await self._peers.refresh()
        candidates = self._candidates()
        preference = Preference.balanced(candidates, self.policy.price_importance)
        for gap in gaps([hop.leg.span for hop in self.hops], self._remote):
            avoid = self._lost_here | {hop.account for hop in self.hops}
            legs = self._choose(candidates, gap, preference, avoid)
            spares = find_spares(candidates, legs, depth=self.policy.spares, preference=preference, avoid=avoid)
            await self._engage(legs, [leg for chains in spares for chain in chains for leg in chain])

    def _candidates(self) -> list[Candidate]:
        return self._peers.candidates(
            tokens=self.shape.max_tokens,
            batch=self.shape.batch,
            wire_dtype=self.policy.wire_dtype,
            max_price=self.policy.max_price,
            newcomers=self._newcomers,
        )

    def _choose(
        self, candidates: Sequence[Candidate], gap: Span, preference: Preference, avoid: Collection[Address]
    ) -> tuple[Leg, ...]:
        """The route through a gap. In mid-session nodes that can be paid without a transaction come first."""
        if self.hops or self.retired:
            at_hand = [
                c
                for c in candidates
                if c.span.overlaps(gap)
                and not c.bad
                and self._wallet.has_leaf(self._want(Leg(c.account, _common(c.span, gap), c.price)))
            ]
            with contextlib.suppress(NoRoute):
                return find_route(at_hand, gap, preference=preference, avoid=avoid)
        return find_route(candidates, gap, preference=preference, avoid=avoid)

    async def _engage(self, legs: Sequence[Leg], spares: Sequence[Leg]) -> None:
        """Open the session on new nodes, all at once. Raises the first failure, its node out of favour."""
        index = sum(hop.leg.span.end <= legs[0].span.start for hop in self.hops)
        before = self.hops[index - 1] if index else None
        after = self.hops[index] if index < len(self.hops) else None
        wants = [self._want(leg) for leg in legs] + [self._want(leg, spare=True) for leg in spares]
        purses: Mapping[Address, Purse] = {}
        failures: list[BaseException] = []
        self._peers.sessions.update(leg.account for leg in legs)
        try:
            purses = await self._wallet.reserve(wants)
            links = await asyncio.gather(*(self._connect(leg.account) for leg in legs), return_exceptions=True)
            failures = [link for link in links if isinstance(link, BaseException)]
            hops = [
                self._hop(leg, purses[leg.account], link)
                for leg, link in zip(legs, links, strict=True)
                if not isinstance(link, BaseException)
            ]
            if not failures:
                chain = [before, *hops, after]
                self._opening = {hop.account: hop for hop in hops}
                outcomes = await asyncio.gather(
                    *(self._open(hop, chain[n], chain[n + 2]) for n, hop in enumerate(hops)), return_exceptions=True
                )
                failures = [outcome for outcome in outcomes if outcome is not None]
                # Those that did open stay: the gap is smaller then.
                opened = [hop for hop, outcome in zip(hops, outcomes, strict=True) if outcome is None]
                self.hops[index:index] = opened
        finally:
            self._opening = {}
            taken = {hop.account for hop in self.hops}
            self._peers.sessions -= Counter(leg.account for leg in legs if leg.account not in taken)
            for purse in purses.values():
                if all(purse is not hop.purse for hop in self.hops):
                    purse.release()
        if failures:
            raise failures[0]

    def _hop(self, leg: Leg, purse: Purse, link: Link) -> Hop:
        return Hop(
            leg=leg,
            endpoint=self._peers.endpoint(leg.account),
            purse=purse,
            link=link,
            batch=self.shape.batch,
            chunk_tokens=self.policy.chunk_tokens,
            upstream=None,
            downstream=None,
            sent=Witness(self.session),
            received=Witness(self.session),
        )

    def _want(self, leg: Leg, *, spare: bool = False) -> Want:
        need = leg.price.of(leg.span, self.shape.batch * self.shape.max_tokens)
        return Want(leg.account, Nectar(need), spare)

    async def _connect(self, account: Address) -> Link:
        try:
            async with asyncio.timeout(self.policy.connect):
                return await self._links.connect(self._peers.endpoint(account))
        except (CorollaError, TimeoutError) as error:
            self._out(account, error)
            if isinstance(error, (NetworkError, TimeoutError)):
                raise
            raise ServingError(f"{account} cannot be connected to: {error}") from error

    def _out(self, account: Address, error: Exception) -> None:
        self._peers.shun(account, error)
        self._lost_here.add(account)

    async def _open(self, hop: Hop, before: Hop | None, after: Hop | None) -> None:
        try:
            opened, nonce = await self._ask_to_open(hop, before, after)
            if self._weight_root is not None and opened.weight_root != self._weight_root(hop.leg.span):
                raise PeerMisbehaved("serves other weights than the model's", peer=hop.account)
            hop.purse.settle_with(
                paid=Nectar(int.from_bytes(opened.paid, "big")), charged=Nectar(int.from_bytes(opened.charged, "big"))
            )
        except (CorollaError, TimeoutError) as error:
            self._out(hop.account, error)
            _close(hop.link, self.session)  # it may have opened after all
            if hop.trace is not None:
                hop.trace.end(error)
                hop.trace = None
            if isinstance(error, (NetworkError, ServingError, TimeoutError)):
                raise
            # Whatever a node refuses with, to this session it is a node that cannot be used.
            raise ServingError(f"{hop.account} does not open the session: {error}") from error
        hop.upstream, hop.downstream = (None if each is None else each.account for each in (before, after))
        terms = Terms(
            signer=hop.account,
            chain_id=self._chain_id,
            model_root=self._peers.model_root,
            span=hop.leg.span,
            weight_root=Hash32(opened.weight_root),
            session=self.session,
            client_nonce=nonce,
            wire=WireDtype(self.policy.wire_dtype),
            batch=self.shape.batch,
        )
        hop.chain = ReceiptChain(terms, self.orders, self._clock, self._clock(), sent=hop.sent, received=hop.received)

    async def _ask_to_open(self, hop: Hop, before: Hop | None, after: Hop | None) -> tuple[Opened, bytes]:
        """What the node answers, and the nonce it was asked with: a fresh one every time, as it signs one chain of
        receipts under a nonce and no more."""
        purse, leg = hop.purse, hop.leg
        if self._trace is not None:
            hop.trace = self._trace.begin("corolla.hop", account=leg.account, blocks=str(leg.span))
        message = Open(
            session=self.session,
            model_root=self._peers.model_root,
            start=leg.span.start,
            end=leg.span.end,
            batch=self.shape.batch,
            max_tokens=self.shape.max_tokens,
            wire_dtype=self.policy.wire_dtype,
            chunk_tokens=self.policy.chunk_tokens,
            price=amount(leg.price.per_token_block),
            tranche_id=purse.tranche_id,
            cap=amount(purse.leaf.cap),
            branch=Branch(purse.proof.index, [(node.hash, amount(node.sum)) for node in purse.proof.siblings]),
            client_nonce=secrets.token_bytes(32),
            upstream=None if before is None else address_bytes(before.account),
            downstream=None if after is None else after.endpoint,
            traceparent=hop.trace.traceparent if hop.trace is not None else None,
        )
        deadline = time.monotonic() + self.policy.answer
        while True:
            try:
                async with self._links.opening(hop.account):
                    opened = await hop.ask(message, seconds=self.policy.answer)
            except TrancheUnknown as error:
                # A node's view of the chain may be a block behind the one that opened the tranche.
                if time.monotonic() >= deadline:
                    raise
                self._log.debug("the node does not see the tranche yet", peer=hop.account, error=str(error))
                hop.error = None
                await asyncio.sleep(0.5)
                message = msgspec.structs.replace(message, client_nonce=secrets.token_bytes(32))
                continue
            except TimeoutError:
                raise PeerTimeout("does not answer Open", peer=hop.account) from None
            if not isinstance(opened, Opened):
                raise PeerMisbehaved("answers Open with something else", peer=hop.account)
            return opened, message.client_nonce

    def _warm_spares(self) -> None:
        """Connect ahead to the nodes that would replace those of the chain, and to one by lot: how far away a node is
        must be known before it is chosen, and nobody is paid for that."""
        candidates = self._candidates()
        preference = Preference.balanced(candidates, self.policy.price_importance)
        legs = [hop.leg for hop in self.hops]
        for chains in find_spares(candidates, legs, depth=1, preference=preference, avoid=self._lost_here):
            for chain in chains:
                self._links.warm([self._peers.endpoint(leg.account) for leg in chain])
        other = self._peers.by_lot()
        if other is not None:
            self._links.warm([other])


def gaps(spans: Sequence[Span], whole: Span) -> list[Span]:
    """What `spans` (ascending, disjoint, inside of it) leave of `whole`, as spans."""
    found, at = [], whole.start
    for span in spans:
        if span.start > at:
            found.append(Span(at, span.start))
        at = span.end
    if at < whole.end:
        found.append(Span(at, whole.end))
    return found


def _common(a: Span, b: Span) -> Span:
    return Span(max(a.start, b.start), min(a.end, b.end))


def _close(link: Link, session: SessionId) -> None:
    """Tell a node that is of no more use, if it can be told, that it may forget the session."""
    if not link.closed:
        with contextlib.suppress(NetworkError):
            link.send(Close(session))
