"""The devnet as one object: start it, break parts of it, stop it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from corolla.devnet.funding import FUNDS, GAS, Funded, new_account, publish, write_password
from corolla.devnet.ganache import Ganache
from corolla.devnet.node import DevnetNode, NodePlan, node_environ
from corolla.devnet.process import Child
from corolla.devnet.state import DevnetState
from corolla.devnet.validator import DevnetValidator
from corolla_core.chain.deploy import Terms, deploy_all
from corolla_core.chain.devnet_keys import devnet_signer
from corolla_core.chain.faults import FaultParameters
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar, Wei

NAME = "devnet"
DEFAULT_PRICE = 1_000_000_000_000
"""Base units per token and block: a token through 30 blocks costs 0.00003 NECT."""
WITH_JURY = Terms(
    unbonding_delay=300,
    juror_unbonding=300,
    dispute_period=8,
    faults=FaultParameters(opening_age=600, response_time=20),
)
"""Time enough for jurors to judge and vote and for nodes to open rows, and all of it over within a minute."""
_BOOTSTRAP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DevnetPlan:
    """What to run. `spans` are the nodes' blocks, `standbys` those of the spare nodes, `settings` become
    `COROLLA_NODE_*` of every node, `programs` run instead of `corolla-node` for the nodes they name. `validators`
    audit with `probability`, a fraction as text."""

    model: str
    spans: tuple[Span, ...]
    standbys: tuple[Span, ...] = ()
    price: int = DEFAULT_PRICE
    terms: Terms | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    validators: int = 0
    probability: str = "1"


class Devnet:
    """Chain, contracts, model registry, DHT bootstrap and nodes, each in a process of its own.

    As a context manager its processes die with this one, however that ends. `detached` leaves them running, to be
    stopped by `teardown.stop_devnet` from any later process.
    """

    def __init__(
        self,
        plan: DevnetPlan,
        *,
        home: Path,
        detached: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.home = home
        self.folder = home / NAME
        self.network_file = home / "networks" / f"{NAME}.json"
        self.password_file = self.folder / "password"
        self.nodes: list[DevnetNode] = []
        self.standbys: list[DevnetNode] = []
        self.validators: list[DevnetValidator] = []
        self.chain = Ganache(folder=self.folder, detached=detached)
        self._detached = detached
        self._progress = progress
        self._bootstrap: Child | None = None
        self._network: Network | None = None
        self._client: Funded | None = None
        self._faucet: TransactionSender | None = None

    async def __aenter__(self) -> Devnet:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def network(self) -> Network:
        """Where the contracts are and how to join. Raises ConfigError before `start`."""
        if self._network is None:
            raise ConfigError("the devnet is not started")
        return self._network

    @property
    def client(self) -> Funded:
        """The client account that `start` made and funded."""
        if self._client is None:
            raise ConfigError("the devnet is not started")
        return self._client

    @property
    def all_nodes(self) -> list[DevnetNode]:
        return [*self.nodes, *self.standbys]

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()

    async def start(self) -> None:
        """Bring everything up, from an empty chain. Raises ConfigError (its ProcessFailed holds the log's end) if a
        part does not come up; what had started is stopped again."""
        if running := DevnetState.running_in(self.folder):
            raise ConfigError(f"a devnet is already running in {self.folder} ({', '.join(running)})")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        write_password(self.password_file)
        self._progress("starting the chain")
        bootstrap = self._start_bootstrap()
        await self.chain.start()
        self._progress("deploying the contracts")
        terms = self.plan.terms or (WITH_JURY if self.plan.validators else None)
        deployed = await deploy_all(self.chain.url, devnet_signer(0), name=NAME, terms=terms)
        ready = await bootstrap.wait_event("event", "ready", within=_BOOTSTRAP_SECONDS)
        self._network = dataclasses.replace(deployed, bootstrap=(ready["maddr"],))
        self._network.save(self.network_file.parent)
        self._faucet = TransactionSender(await Chain.connect(self._network), devnet_signer(0))
        self._progress("publishing the model")
        await publish(self._require_faucet(), self.plan.model)
        self._progress("funding the accounts")
        self._client = await self.new_account("client")
        await self._make_nodes()
        self._save_state()
        self._progress(f"starting {len(self.all_nodes)} nodes")
        for node in self.all_nodes:
            node.launch()
        self._save_state()
        async with asyncio.TaskGroup() as waits:
            for node in self.all_nodes:
                waits.create_task(node.wait_ready())
        await self._start_validators()

    async def _start_validators(self) -> None:
        if self.plan.validators:
            self._progress(f"starting {self.plan.validators} validators")
        for number in range(self.plan.validators):
            name = f"validator-{number}"
            account = await self.new_account(name)
            self.validators.append(
                DevnetValidator(
                    name,
                    signer=account.signer,
                    keystore=account.keystore,
                    password_file=self.password_file,
                    model=self.plan.model,
                    network=self.network_file,
                    folder=self.folder,
                    probability=self.plan.probability,
                    detached=self._detached,
                )
            )
            self.validators[-1].launch()
        self._save_state()
        async with asyncio.TaskGroup() as waits:
            for validator in self.validators:
                waits.create_task(validator.wait_ready())

    async def leave(self) -> None:
        """Let go of a detached devnet, which goes on."""
        if self._faucet is not None:
            await self._faucet.chain.close()
            self._faucet = None

    async def stop_nodes(self) -> None:
        """Every node drains, redeems what it is owed and ends; the chain goes on."""
        async with asyncio.TaskGroup() as stops:
            for node in self.all_nodes:
                stops.create_task(node.stop())

    async def stop(self) -> None:
        """Nodes drain and redeem, then the rest stops. Safe to call twice."""
        await self.stop_nodes()
        async with asyncio.TaskGroup() as stops:
            for validator in self.validators:
                stops.create_task(validator.stop())
        if self._bootstrap is not None:
            await self._bootstrap.stop(grace=5.0)
        await self.leave()
        await self.chain.stop()
        DevnetState.forget(self.folder)

    async def new_account(self, name: str, *, funds: Nectar = FUNDS, gas: Wei = GAS) -> Funded:
        """A fresh account with tokens and gas money, its key in `<folder>/keys/<name>.json`."""
        keystore = self.folder / "keys" / f"{name}.json"
        return await new_account(self._require_faucet(), keystore, self.password, funds=funds, gas=gas)

    async def _make_nodes(self) -> None:
        plan = NodePlan(
            model=self.plan.model,
            network=self.network_file,
            password_file=self.password_file,
            price=self.plan.price,
            environ=node_environ(self.plan.settings),
        )
        for kind, spans, made in (
            ("node", self.plan.spans, self.nodes),
            ("standby", self.plan.standbys, self.standbys),
        ):
            for index, span in enumerate(spans):
                name = f"{kind}-{index}"
                account = await self.new_account(name)
                made.append(
                    DevnetNode(
                        name,
                        span=span,
                        signer=account.signer,
                        keystore=account.keystore,
                        folder=self.folder,
                        plan=dataclasses.replace(plan, program=self.plan.programs.get(name)),
                        detached=self._detached,
                    )
                )

    def _require_faucet(self) -> TransactionSender:
        if self._faucet is None:
            raise ConfigError("the devnet is not started")
        return self._faucet

    def _start_bootstrap(self) -> Child:
        command = [
            sys.executable,
            "-m",
            "corolla_core.swarm.bootstrap",
            f"--network={NAME}",
            f"--identity={self.folder / 'bootstrap.key'}",
            "--listen=/ip4/127.0.0.1/tcp/0",
        ]
        self._bootstrap = Child.start("bootstrap", command, folder=self.folder, env=os.environ, detached=self._detached)
        return self._bootstrap

    def _save_state(self) -> None:
        nodes = (node.child for node in self.all_nodes)
        validators = (validator.child for validator in self.validators)
        children = [self.chain.child, self._bootstrap, *nodes, *validators]
        DevnetState(
            network=str(self.network_file),
            rpc_url=self.chain.url,
            model=self.plan.model,
            client_account=self.client.signer.address,
            client_keystore=str(self.client.keystore),
            password_file=str(self.password_file),
            nodes=tuple(node.record() for node in self.all_nodes),
            children=tuple(child.record() for child in children if child is not None),
        ).save(self.folder)
