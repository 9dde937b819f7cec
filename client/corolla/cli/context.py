"""From settings to a connected client: which network, whose account, which model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corolla.config import ClientSettings
from corolla_core.config import Loaded, home, keystore_path, load_settings, setup_logging
from corolla_core.config.terminal import read_password
from corolla_core.protocol.errors import ConfigError, KeystoreError
from corolla_core.protocol.units import Nectar

if TYPE_CHECKING:
    from corolla.client import AsyncClient
    from corolla_core.chain.network import Network
    from corolla_core.protocol.signature import Signer

NetworkOption = Annotated[str | None, typer.Option("--network", help="A network's name or file.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A published model's name, or a checkpoint (folder, hf:org/name, URL).")
]
AccountOption = Annotated[str | None, typer.Option("--account", help="A keystore's name in <home>/keys, or its path.")]
PasswordOption = Annotated[Path | None, typer.Option("--password-file", help="File with the keystore's password.")]
LimitOption = Annotated[
    str | None, typer.Option("--spending-limit", help="The most this command may promise, in whole tokens.")
]
MaxPriceOption = Annotated[
    int | None,
    typer.Option("--max-price", min=0, help="Use no node that asks more per token and block, in base units."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
DEFAULT_ACCOUNT = "default"


def settings_of(**flags: Any) -> Loaded[ClientSettings]:
    """The settings, and logging set up as they say."""
    loaded = load_settings(ClientSettings, flags=flags)
    setup_logging(loaded.settings.log_level)
    return loaded


def with_devnet(settings: ClientSettings) -> ClientSettings:
    """On a running devnet, its own client account and model stand in for what was not given."""
    from corolla.devnet.state import DevnetState

    state = DevnetState.load(home() / "devnet")
    if state is None or settings.network not in (Path(state.network).stem, state.network):
        return settings
    update: dict[str, object] = {}
    if settings.account is None:
        update = {"account": state.client_keystore, "password_file": Path(state.password_file)}
    if settings.model is None:
        update["model"] = state.model
    return settings.model_copy(update=update)


def network_of(settings: ClientSettings) -> Network:
    from corolla_core.chain.network import resolve_network

    return resolve_network(settings.network, folder=home() / "networks")


def signer_of(settings: ClientSettings, *, chain_id: int) -> Signer:
    """Raises KeystoreError."""
    from corolla_core.chain.keystore import load_account

    path = keystore_path(settings.account or DEFAULT_ACCOUNT)
    if not path.exists():
        raise KeystoreError(f"no account at {path}: make one with `corolla account new`")
    return load_account(path, read_password(settings.password_file, path), chain_id=chain_id)


@asynccontextmanager
async def connected(settings: ClientSettings, *, with_model: bool) -> AsyncIterator[AsyncClient]:
    """A client of these settings. Raises any CorollaError."""
    from corolla.client import AsyncClient
    from corolla.policy import Policy
    from corolla.speculation import Speculation
    from corolla.wallet import WalletPolicy

    settings = with_devnet(settings)
    network = network_of(settings)
    if with_model and settings.model is None:
        raise ConfigError("name a model: --model, COROLLA_MODEL, or `model` in config.toml")
    if with_model and settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)
    client = AsyncClient(
        network=network,
        signer=signer_of(settings, chain_id=network.chain_id),
        model=settings.model if with_model else None,
        spending_limit=settings.limit,
        max_price=None if settings.max_price is None else Nectar(settings.max_price),
        store=settings.store,
        policy=Policy(
            wire_dtype=settings.wire_dtype,
            local_blocks=settings.local_blocks,
            chunk_tokens=settings.chunk_tokens,
            price_importance=settings.price_importance,
            spares=settings.spares,
        ),
        wallet_policy=WalletPolicy(headroom=settings.tranche_sessions, ttl=int(settings.tranche_hours * 3600)),
        speculation=Speculation(settings.speculate, settings.max_waste),
    )
    async with client:
        yield client
