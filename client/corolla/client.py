"""The asynchronous client: one account on one network, and perhaps one model."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import structlog

from corolla.chat import ChatSession
from corolla.draft_model import DraftModel
from corolla.engine import DEFAULT_CHAT_TOKENS, Engine
from corolla.funds import Funds, TrancheStatus
from corolla.generation import TextStream
from corolla.leases import FileLeases
from corolla.links import Link, LinkHandler, Links
from corolla.local import LocalModel, checkpoint_ref, load_local
from corolla.logs import quiet_unless_configured
from corolla.many import AT_ONCE, generate_many
from corolla.peers import Peers, anybody
from corolla.policy import Policy
from corolla.speculation import OFF, Speculation
from corolla.staked import StakedLookup
from corolla.values import Balance, BeamText, ChatMessage, Generation, Prompt
from corolla.wallet import Wallet, WalletPolicy
from corolla_core.chain.models import Models
from corolla_core.chain.network import Network, resolve_network
from corolla_core.chain.operators import Operators
from corolla_core.chain.registry import Registry
from corolla_core.chain.reputation import Reputation
from corolla_core.chain.rpc import Chain
from corolla_core.config import home
from corolla_core.config.tracing import tracing_from_environment
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import ConfigError, CorollaError, UnsupportedModel
from corolla_core.protocol.ids import Address, TrancheId
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import Nectar
from corolla_core.store.store import Store
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.dial import dial
from corolla_core.swarm.directory import Directory
from corolla_core.swarm.libp2p import Libp2p
from corolla_core.swarm.membership import MembersLookup, member
from corolla_core.swarm.messages import Endpoint

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Swarm:
    model: LocalModel
    directory: Directory
    links: Links
    peers: Peers
    wallet: Wallet
    engine: Engine


class AsyncClient:
    """Generates text over a Corolla network and pays for it from `signer`'s deposit.

        async with AsyncClient(network="devnet", model="smollm2-135m-instruct", signer=signer) as client:
            async for piece in client.stream("Once upon a time", SamplingParams(max_tokens=50)):
                print(piece.text, end="")

    `network`: a Network, the name of one in `<home>/networks`, or a path to its file. `model`: a published name whose
    checkpoint is in `<home>/models`, or a checkpoint (directory, `hf:org/name`, URL) with its manifest; None for money
    alone. `spending_limit` bounds, in base units, all that this object ever signs away; nodes that ask more than
    `max_price` base units per token and block are never used. `speculation`: how tokens are guessed ahead where a call
    does not say. `local_blocks`: how many of the model's first and last blocks are computed here and shown to no node
    (docs/privacy.md). `store`: where promises are kept, a database URL or path; by default one file per chain and
    account under `<home>/client`.
    """

    def __init__(
        self,
        *,
        network: Network | str,
        signer: Signer,
        model: str | None = None,
        spending_limit: Nectar | None = None,
        max_price: Nectar | None = None,
        store: str | Path | None = None,
        home_dir: Path | None = None,
        policy: Policy | None = None,
        wallet_policy: WalletPolicy | None = None,
        speculation: Speculation | None = None,
        local_blocks: tuple[int, int] | None = None,
    ) -> None:
        quiet_unless_configured()
        self.home = home_dir or home()
        self.network = (
            network if isinstance(network, Network) else resolve_network(network, folder=self.home / "networks")
        )
        self.account: Address = signer.address
        self.policy = policy or Policy()
        if max_price is not None:
            self.policy = replace(self.policy, max_price=max_price)
        if local_blocks is not None:
            self.policy = replace(self.policy, local_blocks=local_blocks)
        self._speculation = speculation or Speculation()
        self._signer = signer
        self._model_ref = model
        limits = wallet_policy or WalletPolicy()
        self._wallet_policy = WalletPolicy(spending_limit, limits.headroom, limits.ttl)
        default_store = self.home / "client" / f"{self.network.chain_id}-{signer.address.lower()}.db"
        self._store_url = store if store is not None else default_store
        self._stack = contextlib.AsyncExitStack()
        self._funds: Funds | None = None
        self._swarm: _Swarm | None = None

    async def __aenter__(self) -> AsyncClient:
        """Connect. Raises ChainError, StoreError, ModelError, NetworkError or ConfigError."""
        async with contextlib.AsyncExitStack() as stack:
            chain = await stack.enter_async_context(await Chain.connect(self.network))
            store = await asyncio.to_thread(Store.open, self._store_url)
            stack.push_async_callback(store.aclose)
            leases = FileLeases(self.home / "client" / "leases")
            stack.callback(leases.release_all)
            self._funds = Funds(chain, self._signer, store, leases=leases)
            if self._model_ref is not None:
                self._swarm = await self._join(stack, chain, store, self._funds, leases, self._model_ref)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._funds = self._swarm = None
        await self._stack.aclose()

    @property
    def max_price(self) -> int | None:
        """The most a node may ask per token and block."""
        return self.policy.max_price

    @property
    def max_waste(self) -> float:
        """Wrongly guessed positions that may be paid for, for each token of a text."""
        return 0.0 if self._speculation.by == OFF else self._speculation.waste

    # Text

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        logprobs: bool = False,
        top_logprobs: int = 0,
        speculation: Speculation | None = None,
    ) -> TextStream:
        """Text as it is generated. `prompt` is plain text, token ids, or messages for the model's chat template."""
        how = speculation or self._speculation
        return self._joined.engine.stream(prompt, params, logprobs=logprobs, top_logprobs=top_logprobs, speculation=how)

    async def generate(
        self,
        prompt: str | Sequence[ChatMessage],
        params: SamplingParams,
        *,
        logprobs: bool = False,
        speculation: Speculation | None = None,
    ) -> Generation:
        """A whole text at once.

        Raises SpendingLimitExceeded or InsufficientFunds before anything is sent, NoRoute when some blocks are served
        by nobody, InvalidInput for a prompt that does not fit the model, ModelError for a draft model that is none.
        """
        return await self.stream(prompt, params, logprobs=logprobs, speculation=speculation).read()

    async def generate_many(
        self,
        prompts: Sequence[str | Sequence[ChatMessage]],
        params: SamplingParams,
        *,
        at_once: int = AT_ONCE,
        logprobs: bool = False,
    ) -> list[Generation | CorollaError]:
        """A text for each prompt, in their order, or the error it failed with: `at_once` at a time, spread over all
        nodes that could serve them. Raises NetworkError where it is not known who serves at all."""
        return await generate_many(self._joined.engine, prompts, params, at_once=at_once, logprobs=logprobs)

    async def beam_search(
        self, prompt: str | Sequence[ChatMessage], params: SamplingParams, *, num_beams: int = 4
    ) -> list[BeamText]:
        """The likeliest texts by beam search, best first, as transformers' `generate(num_beams=…)` finds them.

        Raises what `generate` raises, and InvalidInput for sampling parameters that do not go with beams.
        """
        swarm = self._joined
        beams, _session = await swarm.engine.beams(prompt, params, num_beams=num_beams)
        return [BeamText(swarm.model.text(beam.token_ids), beam.token_ids, beam.score) for beam in beams]

    def session(
        self,
        *,
        system: str | None = None,
        capacity: int = DEFAULT_CHAT_TOKENS,
        speculation: Speculation | None = None,
    ) -> ChatSession:
        """A conversation whose turns reuse what the nodes hold. Close it, or use it in `async with`."""
        how = speculation or self._speculation
        return self._joined.engine.chat(system=system, capacity=capacity, speculation=how)

    @property
    def model(self) -> LocalModel:
        """This client's share of the model."""
        return self._joined.model

    async def nodes(self) -> list[Announcement]:
        """Who serves blocks of the model now."""
        swarm = self._joined
        await swarm.peers.refresh(within=0)
        return swarm.peers.announcements()

    # Money

    async def deposit(self, amount: Nectar) -> None:
        """Move tokens into the escrow. Raises InsufficientFunds, ChainError."""
        await self._money.deposit(amount)

    async def withdraw(self, amount: Nectar | None = None) -> Nectar:
        """Take `amount` (None: all that is free) out of the escrow; returns how much."""
        return await self._money.withdraw(amount)

    async def balance(self) -> Balance:
        return await self._money.balance()

    async def tranches(self) -> list[TrancheStatus]:
        """Tranches opened and not taken back."""
        return await self._money.tranches()

    async def reclaim(self) -> dict[TrancheId, Nectar]:
        """Take back what is left of tranches whose time is over."""
        return await self._money.reclaim()

    @property
    def spent(self) -> Nectar:
        """What this object has promised to nodes so far."""
        return self._joined.wallet.committed

    @property
    def _money(self) -> Funds:
        if self._funds is None:
            raise ConfigError("the client is not connected: use it in `async with`")
        return self._funds

    @property
    def _joined(self) -> _Swarm:
        if self._swarm is None:
            raise ConfigError("the client has no model, or is not connected: use it in `async with`")
        return self._swarm

    # Joining

    async def _join(
        self,
        stack: contextlib.AsyncExitStack,
        chain: Chain,
        store: Store,
        funds: Funds,
        leases: FileLeases,
        model_ref: str,
    ) -> _Swarm:
        directory = asyncio.create_task(
            Directory.start(network=self.network.name, bootstrap=self.network.bootstrap, client_mode=True)
        )
        try:
            model = await self._load(chain, model_ref)
            stack.callback(model.close)
        except BaseException:
            directory.cancel()
            for stopped in await asyncio.gather(directory, return_exceptions=True):
                if isinstance(stopped, Directory):
                    await stopped.stop()
            raise
        found = await directory
        stack.push_async_callback(found.stop)
        libp2p = Libp2p(found)
        stack.push_async_callback(libp2p.stop)

        async def connect(endpoint: Endpoint, /, *, handler: LinkHandler) -> Link:
            return await dial(
                endpoint, identity=self._signer, handler=handler, timeout=self.policy.connect, fallback=libp2p
            )

        links = Links(connect)
        stack.push_async_callback(links.close)
        oracle = Reputation(chain) if self.network.has_reputation else None
        membership = None
        if self.network.is_private:
            membership = await stack.enter_async_context(member(Operators(chain), self.account))
        members = found if membership is None else MembersLookup(found, membership)
        staked = StakedLookup(members, Registry(chain), oracle)
        admitted = anybody if membership is None else membership.admitted
        peers = Peers(staked, model.root, model.num_blocks, rtt=links.rtt, standing=staked.standing, admitted=admitted)
        wallet = Wallet(
            signer=self._signer,
            payer=self.account,
            domain=self.network.domain,
            book=funds.book,
            runner=store,
            opener=funds,
            leases=leases,
            clock=time.time,
            policy=self._wallet_policy,
        )
        await funds.tranches()  # settles what a crash may have left half done
        await wallet.load()

        async def keep(receipts: Sequence[SignedReceipt]) -> None:
            for receipt in receipts:
                await store.run(funds.book.record_receipt, receipt)

        def load_draft(ref: str) -> DraftModel:
            _, checkpoint = checkpoint_ref(ref, models_dir=self.home / "models")
            return DraftModel(checkpoint, tokenizer=model.tokenizer)

        tracing = tracing_from_environment("corolla-client")
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
        engine = Engine(
            model=model,
            hidden_size=model.hidden_size,
            context=model.context or None,
            chain_id=self.network.chain_id,
            peers=peers,
            links=links,
            wallet=wallet,
            keep_receipts=keep,
            weight_root=model.weight_root,
            policy=self.policy,
            load_draft=load_draft,
            tracing=tracing,
        )
        stack.push_async_callback(engine.close)
        return _Swarm(model, found, links, peers, wallet, engine)

    async def _load(self, chain: Chain, model_ref: str) -> LocalModel:
        """The client's share of the model, the version that the network's registry names."""
        name, ref = checkpoint_ref(model_ref, models_dir=self.home / "models")
        here = self.policy.local_blocks
        model = await asyncio.to_thread(load_local, ref, wire=self.policy.wire_dtype, local_blocks=here)
        published = await Models(chain).latest(name or model.name)
        if published.manifest_root != model.root:
            model.close()
            raise UnsupportedModel(f"the checkpoint at {ref} is not the version of {model.name} that is published")
        return model
