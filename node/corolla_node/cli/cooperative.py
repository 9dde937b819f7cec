"""`node cooperative create|join|leave|status|withdraw|notice|dissolve`: one node, several owners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from corolla_core.config.terminal import emit, errors
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.units import nectar_from_text, nectar_to_text
from corolla_node.cli.money import (
    AccountOption,
    Contracts,
    DataDirOption,
    Json,
    NetworkOption,
    PasswordOption,
    Wallet,
    Yes,
)
from corolla_node.cli.terminal import confirm

app = typer.Typer(
    name="cooperative",
    help="Pool several owners' stake behind one node, and share what it brings.",
    no_args_is_help=True,
)
Where = Annotated[str, typer.Argument(metavar="ADDRESS", help="The cooperative.")]
Act = Callable[[Any, Contracts], Awaitable[None]]
_WEEK = 7 * 24 * 3600


@app.command()
def create(
    node: Annotated[str, typer.Option("--node", help="Address of the key the node serves with.")],
    member: Annotated[
        list[str], typer.Option("--member", help="ADDRESS=SHARES; once for each. Shares can never be changed.")
    ],
    per_share: Annotated[str, typer.Option("--per-share", help="Tokens that each share deposits.")],
    notice: Annotated[int, typer.Option("--notice", help="Seconds from a member's notice to the end.")] = _WEEK,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Create a cooperative. It gives whoever creates it no rights."""
    with errors():
        shares = parse_members(member)
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)

        async def run() -> dict[str, Any]:
            async with wallet.contracts(sign=True) as contracts:
                made = await contracts.cooperatives().create(
                    address(node), shares, per_share=nectar_from_text(per_share), notice=notice
                )
                return await _status(await contracts.cooperatives().cooperative(made), contracts)

        show(asyncio.run(run()), as_json=as_json)


@app.command()
def join(
    where: Where,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Deposit your part of the stake."""
    with errors():
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)

        async def act(pool: Any, _: Contracts) -> None:
            seen = await pool.pool()
            shares = next((m.shares for m in seen.members if m.account == wallet.address), 0)
            deposit = type(seen.per_share)(shares * seen.per_share)
            confirm(
                f"Deposit {nectar_to_text(deposit)} for {shares} of {seen.total_shares} shares, behind a node that can "
                f"lose it by misbehaving, and that is run by {seen.node}?",
                yes=yes,
            )
            await pool.join(deposit)

        show(_run(wallet, where, act), as_json=as_json)


@app.command()
def leave(
    where: Where,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Take your deposit back, before the node is up."""
    with errors():
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)
        show(_run(wallet, where, lambda pool, _: pool.leave()), as_json=as_json)


@app.command()
def status(
    where: Where,
    account: AccountOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Who has deposited, what is staked, what each is due."""
    with errors():
        wallet = Wallet.of(account=account, network=network, data_dir=data_dir)
        show(_run(wallet, where, None), as_json=as_json)


@app.command()
def withdraw(
    where: Where,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Take what is yours: of earnings, and of stake that has come back."""
    with errors():
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)

        async def act(pool: Any, contracts: Contracts) -> None:
            node = (await pool.pool()).node
            if await contracts.escrow.payee_balance(node):
                await pool.collect()
            record = await contracts.registry.node(node)
            ripe = record.unbonding and record.unbonding_at <= await contracts.registry.chain.now()
            if ripe and record.locked < record.stake + record.unbonding:
                await pool.reclaim_stake()
            if any(m.due for m in (await pool.pool()).members if m.account == wallet.address):
                await pool.withdraw()

        show(_run(wallet, where, act), as_json=as_json)


@app.command()
def notice(
    where: Where,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Have the cooperative end, once its notice is over."""
    with errors():
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)
        confirm("Give notice? It cannot be taken back, and ends the cooperative for all.", yes=yes)
        show(_run(wallet, where, lambda pool, _: pool.give_notice()), as_json=as_json)


@app.command()
def dissolve(
    where: Where,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    network: NetworkOption = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """After notice: begin to unbond the stake, for `withdraw` to share out when it has."""
    with errors():
        wallet = Wallet.of(account=account, password_file=password_file, network=network, data_dir=data_dir)
        show(_run(wallet, where, lambda pool, _: pool.dissolve()), as_json=as_json)


def parse_members(texts: list[str]) -> dict[Address, int]:
    """Shares by member. Raises ConfigError, InvalidInput for what is no address."""
    shares: dict[Address, int] = {}
    for text in texts:
        who, _, count = text.partition("=")
        account = address(who)
        if not count.isascii() or not count.isdecimal() or int(count) < 1 or account in shares:
            raise ConfigError(f"a member is ADDRESS=SHARES, once, with at least one share, not {text!r:.80}")
        shares[account] = int(count)
    return shares


def _run(wallet: Wallet, where: str, act: Act | None) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with wallet.contracts(sign=act is not None) as contracts:
            pool = await contracts.cooperatives().cooperative(address(where))
            if act is not None:
                await act(pool, contracts)
            return await _status(pool, contracts)

    return asyncio.run(run())


async def _status(cooperative: Any, contracts: Contracts) -> dict[str, Any]:
    pool = await cooperative.pool()
    record = await contracts.registry.node(pool.node)
    ours = record.owner == cooperative.address
    return {
        "cooperative": cooperative.address,
        "node": pool.node,
        "launched": pool.launched,
        "active": record.active and ours,
        "deposited": nectar_to_text(pool.deposited),
        "stake": nectar_to_text(record.stake) if ours else "0",
        "unbonding": nectar_to_text(record.unbonding) if ours else "0",
        "unbonding_at": record.unbonding_at if ours else 0,
        "to_collect": nectar_to_text(await contracts.escrow.payee_balance(pool.node)),
        "notice": pool.notice,
        "dissolvable_at": pool.dissolvable_at,
        "members": [
            {
                "member": member.account,
                "shares": member.shares,
                "joined": member.joined,
                "withdrawn": nectar_to_text(member.withdrawn),
                "due": nectar_to_text(member.due),
            }
            for member in pool.members
        ],
    }


def show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(found, as_json=True)
        return
    emit({name: value for name, value in found.items() if name != "members"}, as_json=False)
    emit(found["members"], as_json=False)
