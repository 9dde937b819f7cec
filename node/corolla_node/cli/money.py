"""`node earnings|stake|unstake|withdraw`: what the node earned and what stands behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from corolla_core.config import home, keystore_path, load_settings
from corolla_core.config.terminal import emit, errors, read_password
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.units import Nectar, UnixTime, nectar_from_text, nectar_to_text
from corolla_node.cli.terminal import confirm
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AccountOption = Annotated[
    Path | None,
    typer.Option(
        "--account", help="Keystore: a name in <home>/keys, or a path. [default: the last `up`'s]", show_default=False
    ),
]
PasswordOption = Annotated[Path | None, typer.Option("--password-file", help="File with the keystore's password.")]
NetworkOption = Annotated[
    str | None,
    typer.Option("--network", help="A network's name or file. [default: the last `up`'s]", show_default=False),
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="The node's own folder. [default: <home>/node]", show_default=False)
]
NodeOption = Annotated[
    str | None,
    typer.Option(
        "--node",
        help="Address of the node whose stake it is, where its owner has another account. [default: the account]",
        show_default=False,
    ),
]


def absolute_network(name_or_path: str) -> str:
    """A network as it can be named from any directory."""
    is_path = "/" in name_or_path or name_or_path.endswith(".json")
    return str(Path(name_or_path).expanduser().absolute()) if is_path else name_or_path


@dataclass(frozen=True, slots=True)
class Wallet:
    """Which account, on which network, this folder's node is."""

    settings: NodeSettings
    folder: DataDir
    keystore: Path
    network: str

    @classmethod
    def of(cls, **flags: Any) -> Wallet:
        """From the flags and settings, else from the last `up` in the data dir. Raises ConfigError."""
        loaded = load_settings(NodeSettings, flags=flags)
        settings = loaded.settings
        folder = DataDir((settings.data_dir or home() / "node").expanduser().absolute())
        last = folder.up()
        keystore = settings.account or (Path(last["account"]) if "account" in last else None)
        if keystore is None:
            raise ConfigError("name an --account: no node was ever up here")
        network = settings.network if "network" in loaded.sources else str(last.get("network", settings.network))
        return cls(settings, folder, keystore_path(keystore), network)

    @property
    def address(self) -> Address:
        from corolla_core.chain.keystore import account_address

        return account_address(self.keystore)

    @asynccontextmanager
    async def contracts(self, *, sign: bool) -> AsyncIterator[Contracts]:
        """The contracts; with `sign` as the account (asks for its password)."""
        from corolla_core.chain.cooperative import CooperativeFactory
        from corolla_core.chain.escrow import Escrow
        from corolla_core.chain.keystore import load_account
        from corolla_core.chain.network import resolve_network
        from corolla_core.chain.registry import Registry
        from corolla_core.chain.rpc import Chain
        from corolla_core.chain.sender import TransactionSender
        from corolla_core.chain.token import Token

        network = resolve_network(self.network, folder=home() / "networks")
        signer = None
        if sign:
            password = read_password(self.settings.password_file, self.keystore)
            signer = load_account(self.keystore, password, chain_id=network.chain_id)
        async with await Chain.connect(network) as chain:
            sender = TransactionSender(chain, signer) if signer is not None else None
            factory = partial(CooperativeFactory, chain, sender)
            yield Contracts(Token(chain, sender), Registry(chain, sender), Escrow(chain, sender), factory)


@dataclass(frozen=True, slots=True)
class Contracts:
    token: Any
    registry: Any
    escrow: Any
    cooperatives: Callable[[], Any]


def earnings(
    since_hours: Annotated[float | None, typer.Option("--since-hours", help="Count the last so many hours.")] = None,
    account: AccountOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """What was earned, what of it is on chain, and what is still to be redeemed."""
    with errors():
        wallet = Wallet.of(account=account, network=network, data_dir=data_dir)
        since = UnixTime(0 if since_hours is None else int(time.time() - since_hours * 3600))
        emit(asyncio.run(_earnings(wallet, since)), as_json=as_json)


async def _earnings(wallet: Wallet, since: UnixTime) -> dict[str, Any]:
    from corolla_core.store.node_store import NodeStore
    from corolla_core.store.store import Store

    me = wallet.address
    async with await asyncio.to_thread(Store.open, wallet.settings.store or wallet.folder.store_path) as store:
        kept = await store.run(NodeStore(store).earnings, since)
    async with wallet.contracts(sign=False) as contracts:
        withdrawable, balance = await asyncio.gather(contracts.escrow.payee_balance(me), contracts.token.balance_of(me))
    return {
        "account": me,
        "since": since,
        "earned": nectar_to_text(kept.earned),
        "sessions": kept.sessions,
        "tokens": kept.tokens,
        "redeemed": nectar_to_text(kept.redeemed),
        "unredeemed": nectar_to_text(kept.unredeemed),
        "withdrawable": nectar_to_text(withdrawable),
        "wallet": nectar_to_text(balance),
    }


def stake(
    amount: Annotated[str | None, typer.Argument(help="Tokens to add; none shows the stake.")] = None,
    node: NodeOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Show the stake, or add to it."""
    with errors():
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)
        staked = address(node) if node is not None else wallet.address
        more = None if amount is None else nectar_from_text(amount)
        if more is not None:
            confirm(f"Stake {amount} more?", yes=yes)

        async def act(contracts: Contracts) -> None:
            if more is not None:
                await contracts.registry.add_stake(more, node=staked)

        emit(asyncio.run(_with_stake(wallet, staked, act, sign=more is not None)), as_json=as_json)


def unstake(
    amount: Annotated[str | None, typer.Argument(help="Tokens to take out of the stake, or `all`.")] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Pay out what has finished unbonding.")] = False,
    node: NodeOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Begin to take tokens out of the stake, or with --finish get what has finished unbonding.

    Only the stake's owner may begin; what is paid out goes to the owner.
    """
    with errors():
        if (amount is None) != finish:
            raise ConfigError("give an amount to begin with, or --finish")
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)
        staked = address(node) if node is not None else wallet.address
        if not finish:
            confirm(
                f"Unstake {amount}? It earns nothing while it unbonds, and below the minimum the node stops.", yes=yes
            )

        async def act(contracts: Contracts) -> None:
            if finish:
                await contracts.registry.withdraw_stake(node=staked)
                return
            record = await contracts.registry.node(staked)
            taken = record.stake if amount == "all" else nectar_from_text(str(amount))
            await contracts.registry.begin_unstake(taken, node=staked)

        emit(asyncio.run(_with_stake(wallet, staked, act, sign=True)), as_json=as_json)


async def _with_stake(
    wallet: Wallet, staked: Address, act: Callable[[Contracts], Awaitable[None]], *, sign: bool
) -> dict[str, Any]:
    me = wallet.address
    async with wallet.contracts(sign=sign) as contracts:
        await act(contracts)
        record = await contracts.registry.node(staked)
        balance: Nectar = await contracts.token.balance_of(me)
    return {
        "account": me,
        "node": staked,
        "owner": record.owner,
        "stake": nectar_to_text(record.stake),
        "unbonding": nectar_to_text(record.unbonding),
        "unbonding_at": record.unbonding_at,
        "locked": nectar_to_text(record.locked),
        "jailed_until": record.jailed_until,
        "active": record.active,
        "wallet": nectar_to_text(balance),
    }


def withdraw(
    to: Annotated[str | None, typer.Option("--to", help="Where to. [default: the account itself]")] = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take redeemed earnings out of the escrow."""
    with errors():
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)
        target = address(to) if to is not None else wallet.address
        confirm(f"Withdraw all redeemed earnings to {target}?", yes=yes or to is None)
        emit(asyncio.run(_withdraw(wallet, target)), as_json=as_json)


async def _withdraw(wallet: Wallet, target: Address) -> dict[str, Any]:
    async with wallet.contracts(sign=True) as contracts:
        due: Nectar = await contracts.escrow.payee_balance(wallet.address)
        paid: Nectar = await contracts.escrow.withdraw_payee(to=target) if due else Nectar(0)
        balance: Nectar = await contracts.token.balance_of(target)
    return {"to": target, "withdrawn": nectar_to_text(paid), "balance": nectar_to_text(balance)}


def add_to(app: typer.Typer) -> None:
    for command in (earnings, stake, unstake, withdraw):
        app.command()(command)
