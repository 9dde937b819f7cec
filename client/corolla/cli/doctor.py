"""`corolla doctor`: each thing a generation needs, looked at on its own."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corolla.cli.context import DEFAULT_ACCOUNT, network_of, with_devnet
from corolla.config import ClientSettings
from corolla_core.config import home, keystore_path
from corolla_core.protocol.errors import CorollaError, NetworkError
from corolla_core.protocol.span import uncovered
from corolla_core.protocol.units import nectar_to_text

if TYPE_CHECKING:
    from corolla_core.chain.network import Network
    from corolla_core.chain.rpc import Chain
    from corolla_core.protocol.ids import ModelRoot
    from corolla_core.swarm.announcement import Announcement

State = Literal["good", "poor", "bad"]

SKEW_SECONDS = 30
STALLED_SECONDS = 900
FREE_BYTES = 2 * 2**30
DIAL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    state: State
    found: str
    advice: str = ""


async def examine(settings: ClientSettings) -> list[Finding]:
    """Every check that can be made; one that needs what an earlier one missed is left out."""
    settings = with_devnet(settings)
    findings = [judge_disk(shutil.disk_usage(_existing(home())).free)]
    try:
        network = network_of(settings)
    except CorollaError as error:
        advice = "start one with `corolla devnet up`, or give --network a file"
        return [*findings, Finding("network", "bad", str(error), advice)]
    findings.append(Finding("network", "good", f"{network.name}, chain {network.chain_id}"))
    findings += await _chain(settings, network)
    findings += await _swarm(settings, network)
    return findings


def judge_disk(free: int) -> Finding:
    found = f"{free / 2**30:.1f} GiB free in {home()}"
    if free < FREE_BYTES:
        return Finding("disk", "poor", found, "free some space, or point COROLLA_HOME elsewhere")
    return Finding("disk", "good", found)


def judge_clock(here: float, chain: float, *, idle_chain: bool) -> Finding:
    """`here` and the newest block's time in Unix seconds. A chain that mines only on demand may lag for long."""
    ahead = chain - here
    if ahead > SKEW_SECONDS:
        advice = "set this machine's clock (NTP): it is behind, and vouchers may seem good for longer than they are"
        return Finding("clock", "bad", f"the chain is {ahead:.0f} s ahead", advice)
    if -ahead > STALLED_SECONDS and not idle_chain:
        advice = "set this machine's clock (NTP); if it is right, the RPC endpoint lags: use another"
        return Finding("clock", "poor", f"the newest block is {-ahead:.0f} s old", advice)
    return Finding("clock", "good", f"the newest block is {max(0.0, -ahead):.0f} s old")


def judge_swarm(spans: list[Announcement], num_blocks: int, unreachable: int) -> list[Finding]:
    """Whether the announced nodes cover the model, and whether they are there."""
    missing = uncovered(num_blocks, [a.span for a in spans])
    if missing:
        advice = "wait, or serve them: `node up MODEL --blocks auto`"
        covered = Finding("coverage", "bad", f"nobody serves blocks {missing}", advice)
    else:
        covered = Finding("coverage", "good", f"{len(spans)} nodes serve all {num_blocks} blocks")
    if unreachable:
        advice = "their records are stale or a firewall is between; the router will go around them"
        state: State = "bad" if unreachable == len(spans) else "poor"
        return [covered, Finding("nodes", state, f"{unreachable} of {len(spans)} do not answer", advice)]
    return [covered, Finding("nodes", "good", f"all {len(spans)} answer")] if spans else [covered]


async def _chain(settings: ClientSettings, network: Network) -> list[Finding]:
    from corolla_core.chain.devnet_keys import DEVNET_CHAIN_IDS
    from corolla_core.chain.rpc import Chain

    try:
        chain = await Chain.connect(network, deadline=5.0)
    except CorollaError as error:
        advice = f"is the endpoint {network.rpc_url} up? On a devnet: `corolla devnet up`"
        return [Finding("rpc", "bad", str(error), advice)]
    async with chain:
        findings = [Finding("rpc", "good", network.rpc_url)]
        try:
            idle = network.chain_id in DEVNET_CHAIN_IDS
            findings.append(judge_clock(time.time(), float(await chain.now()), idle_chain=idle))
            findings += await _account(settings, chain)
        except CorollaError as error:
            findings.append(Finding("rpc", "bad", str(error), "the endpoint refuses ordinary calls: use another"))
        return findings


async def _account(settings: ClientSettings, chain: Chain) -> list[Finding]:
    from corolla_core.chain.escrow import Escrow
    from corolla_core.chain.keystore import account_address
    from corolla_core.chain.token import Token

    path = keystore_path(settings.account or DEFAULT_ACCOUNT)
    try:
        address = account_address(path)
    except CorollaError as error:
        return [Finding("account", "bad", str(error), "make one with `corolla account new`")]
    findings = [Finding("account", "good", f"{address} in {path}")]
    tokens, free = await Token(chain).balance_of(address), await Escrow(chain).free_balance(address)
    gas = await chain.balance(address)
    held = f"{nectar_to_text(free)} deposited and free, {nectar_to_text(tokens)} in the account"
    if free:
        findings.append(Finding("balance", "good", held))
    else:
        findings.append(Finding("balance", "poor", held, "deposit some: `corolla deposit AMOUNT`"))
    if gas == 0:
        findings.append(Finding("gas", "bad", "no coin to pay transactions with", f"send some to {address}"))
    return findings


async def _swarm(settings: ClientSettings, network: Network) -> list[Finding]:
    from corolla_core.swarm.directory import Directory

    if not network.bootstrap:
        return [Finding("dht", "bad", "the network file names no bootstrap peer", "get a newer network file")]
    model = await asyncio.to_thread(_manifest_of, settings)
    if isinstance(model, Finding):
        return [model]
    try:
        directory = await Directory.start(network=network.name, bootstrap=network.bootstrap, client_mode=True)
    except NetworkError as error:
        return [Finding("dht", "bad", str(error), "no bootstrap peer answers: is this machine online?")]
    try:
        root, num_blocks = model
        found = await directory.lookup(root, num_blocks)
        answers = await asyncio.gather(*(_answers(announcement) for announcement in found))
        return [
            Finding("dht", "good", f"joined through {len(network.bootstrap)} bootstrap peers"),
            *judge_swarm(found, num_blocks, answers.count(False)),
        ]
    except NetworkError as error:
        return [Finding("dht", "bad", str(error), "no bootstrap peer answers: is this machine online?")]
    finally:
        await directory.stop()


def _manifest_of(settings: ClientSettings) -> tuple[ModelRoot, int] | Finding:
    from corolla.local import checkpoint_ref
    from corolla_core.model.checkpoint import open_checkpoint
    from corolla_core.model.manifest import Manifest

    if settings.model is None:
        return Finding("model", "poor", "no model is chosen", "name one with --model or in config.toml")
    _name, ref = checkpoint_ref(settings.model, models_dir=home() / "models")
    try:
        manifest = Manifest.beside(open_checkpoint(ref))
    except CorollaError as error:
        return Finding("model", "bad", str(error), "get the model's checkpoint, with its corolla.manifest.json")
    return manifest.root, manifest.num_blocks


async def _answers(announcement: Announcement) -> bool:
    """Whether something listens where a node says it does."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _reader, writer = await asyncio.open_connection(announcement.host, announcement.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
