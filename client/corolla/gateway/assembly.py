"""A gateway put together as its settings say: its backends, its keys, and how much it takes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import httpx
from fastapi import FastAPI

from corolla.client import AsyncClient
from corolla.config import ClientSettings
from corolla.gateway.admission import Limits
from corolla.gateway.app import create_app
from corolla.gateway.door import Door
from corolla.gateway.fallback import Fallback, Option
from corolla.gateway.gate import Gate
from corolla.gateway.ledger import BOOKS, LEASES, Ledger
from corolla.gateway.policy import Conditions
from corolla.gateway.policy_file import OpenAIEntry, PrivateEntry, SwarmEntry, read_policy, upstream_http
from corolla.gateway.swarm import SwarmBackend
from corolla_core.config import home
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address
from corolla_core.store.store import Store

Connect = Callable[[ClientSettings], AbstractAsyncContextManager[AsyncClient]]
"""A client with a model, of these settings."""

Entry = SwarmEntry | PrivateEntry | OpenAIEntry


@dataclass(frozen=True, slots=True)
class Assembled:
    """`accounts` pay for what runs in swarms."""

    app: FastAPI
    models: tuple[str, ...]
    accounts: tuple[Address, ...]


@asynccontextmanager
async def assembled(settings: ClientSettings, connect: Connect) -> AsyncIterator[Assembled]:
    """Raises ConfigError for settings that go against each other, and what connecting raises."""
    if not settings.gateway_keys and not _loopback(settings.gateway_host):
        raise ConfigError("without --keys anyone who reaches this address spends your deposit: give --keys")
    limits = Limits(
        running=settings.gateway_streams,
        per_key=min(settings.gateway_key_streams or settings.gateway_streams, settings.gateway_streams),
        waiting=settings.gateway_waiting,
        patience=settings.gateway_patience,
    )
    async with AsyncExitStack() as stack:
        entries: list[Entry] = [SwarmEntry(name="swarm", kind="swarm")]
        if settings.gateway_policy is not None:
            entries = list(read_policy(settings.gateway_policy).backend)
        http = await stack.enter_async_context(upstream_http())
        accounts: list[Address] = []
        backends = [await _backend(each, settings, connect, http, stack, accounts) for each in entries]
        backend = Fallback(backends)
        ledger = None
        if settings.gateway_keys:
            store = await stack.enter_async_context(Store.open(settings.gateway_books or home() / BOOKS))
            ledger = await stack.enter_async_context(Ledger(store, leases=home() / LEASES))
        app = create_app(backend, gate=Gate(backend, door=Door(limits), ledger=ledger))
        yield Assembled(app, tuple(backend.models), tuple(accounts))


async def _backend(
    entry: Entry,
    settings: ClientSettings,
    connect: Connect,
    http: httpx.AsyncClient,
    stack: AsyncExitStack,
    accounts: list[Address],
) -> tuple[Conditions, Option]:
    if isinstance(entry, OpenAIEntry):
        return entry.conditions(private=False), Option(entry.name, entry.upstream(http))
    # One tranche has room for as many sessions as may run: opening one is a transaction that all others wait for.
    update: dict[str, object] = {"tranche_sessions": max(settings.tranche_sessions, settings.gateway_streams)}
    if isinstance(entry, PrivateEntry):
        update |= {"network": entry.network, "model": entry.model, "store": None}
        if entry.account is not None:
            update |= {"account": entry.account, "password_file": entry.password_file}
    client = await stack.enter_async_context(connect(settings.model_copy(update=update)))
    accounts.append(client.account)
    private = client.network.is_private
    if isinstance(entry, PrivateEntry) and not private:
        raise ConfigError(f"{entry.name}: anybody may serve in network {client.network.name}, so it is not private")
    return entry.conditions(private=private), Option(entry.name, SwarmBackend(client))


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
