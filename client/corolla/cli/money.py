"""`corolla deposit|withdraw|balance|tranches|reclaim`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import uvloop

from corolla.cli.context import AccountOption, JsonOption, NetworkOption, PasswordOption, connected, settings_of
from corolla_core.config.terminal import emit, errors
from corolla_core.protocol.units import nectar_from_text, nectar_to_text

if TYPE_CHECKING:
    from corolla.client import AsyncClient

T = TypeVar("T")


def add_to(app: typer.Typer) -> None:
    for command in (deposit, withdraw, balance, tranches, reclaim):
        app.command()(command)


def deposit(
    amount: Annotated[str, typer.Argument(help="Whole tokens, such as 2.5.")],
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move tokens from the account into the escrow, to pay nodes from."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        await client.deposit(nectar_from_text(amount))
        return await _balance(client)

    with errors():
        emit(_run(work, network=network, account=account, password_file=password_file), as_json=as_json)


def withdraw(
    amount: Annotated[str | None, typer.Argument(help="Whole tokens; all that is free without it.")] = None,
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move what is free in the escrow back to the account. What tranches lock comes free with `reclaim`."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        taken = await client.withdraw(None if amount is None else nectar_from_text(amount))
        return {"withdrawn": nectar_to_text(taken)} | await _balance(client)

    with errors():
        emit(_run(work, network=network, account=account, password_file=password_file), as_json=as_json)


def balance(
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the account holds, has deposited, locked and promised."""
    with errors():
        emit(_run(_balance, network=network, account=account, password_file=password_file), as_json=as_json)


def tranches(
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """The tranches that lock part of the deposit."""

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        return [
            {
                "tranche": "0x" + status.tranche.tranche_id.hex(),
                "total": nectar_to_text(status.tranche.total),
                "signed": nectar_to_text(status.signed),
                "redeemed": nectar_to_text(status.redeemed),
                "payees": len(status.tranche.leaves),
                "expires": status.tranche.expiry,
                "reclaimable": status.reclaimable_at,
            }
            for status in await client.tranches()
        ]

    with errors():
        emit(_run(work, network=network, account=account, password_file=password_file), as_json=as_json)


def reclaim(
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back what is left of tranches whose time is over."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        taken = await client.reclaim()
        return {"tranches": len(taken), "reclaimed": nectar_to_text(sum(taken.values()))} | await _balance(client)

    with errors():
        emit(_run(work, network=network, account=account, password_file=password_file), as_json=as_json)


async def _balance(client: AsyncClient) -> dict[str, Any]:
    held = await client.balance()
    return {
        "account": held.account,
        "tokens": nectar_to_text(held.wallet),
        "free": nectar_to_text(held.free),
        "locked": nectar_to_text(held.locked),
        "promised": nectar_to_text(held.signed),
        "gas_wei": str(held.gas),
    }


def _run(work: Callable[[AsyncClient], Awaitable[T]], **flags: Any) -> T:
    settings = settings_of(**flags).settings

    async def main() -> T:
        async with connected(settings, with_model=False) as client:
            return await work(client)

    result: T = uvloop.run(main())
    return result
