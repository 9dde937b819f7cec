"""`validator run|audit|report`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from corolla_core.config import home, keystore_path, load_settings, setup_logging
from corolla_core.config.terminal import emit, errors, output
from corolla_core.protocol.errors import ConfigError, CorollaError, KeystoreError
from corolla_core.protocol.finding import rows
from corolla_validator.config import ValidatorSettings

if TYPE_CHECKING:
    from corolla_core.chain.network import Network
    from corolla_core.protocol.signature import Signer
    from corolla_validator.running import Folder

EXIT_FAULTY = 3
"""A node failed an audit, or evidence does not give the verdict on record."""

Model = Annotated[
    str | None, typer.Option("--model", help="A directory, hf:org/name, a URL, or smollm2-135m-instruct.")
]
NetworkOption = Annotated[str | None, typer.Option("--network", help="A network's name or file.")]
Account = Annotated[Path | None, typer.Option("--account", help="Keystore to ask nodes with. [default: a passing key]")]
Password = Annotated[Path | None, typer.Option("--password-file", help="File with the keystore's password.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Books and evidence. [default: <home>/validator]", show_default=False)
]
Calibration = Annotated[
    Path | None, typer.Option("--calibration", help="Thresholds to judge by. [default: those that ship]")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, a line for each event.")]


def add_to(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(audit)
    app.command()(report)
    app.command()(doctor)


def run(
    model: Model = None,
    network: NetworkOption = None,
    probability: Annotated[str | None, typer.Option(help="How many sessions to audit, such as 0.1 or 1/10.")] = None,
    account: Account = None,
    password_file: Password = None,
    stake: Annotated[
        str | None, typer.Option(help="Tokens to stake as a juror, with --account. [default: 100]")
    ] = None,
    probes_per_hour: Annotated[
        float | None, typer.Option(help="Order so many answers an hour as a client would, to judge them. [default: 0]")
    ] = None,
    probe_purse: Annotated[
        Path | None, typer.Option(help="Keystore that pays for probes: one nobody can tell is yours.")
    ] = None,
    probe_password_file: Annotated[Path | None, typer.Option(help="File with its password.")] = None,
    probe_daily: Annotated[str | None, typer.Option(help="Tokens for probes in any 24 hours. [default: 5]")] = None,
    calibration: Calibration = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus /metrics there; 0 takes a free port.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Audit what nodes sign for, take liars before the jury and sit on it, until SIGTERM or SIGINT."""
    with errors():
        settings = settings_of(
            model=model, network=network, probability=probability, account=account, password_file=password_file,
            stake=stake, calibration=calibration, data_dir=data_dir, probes_per_hour=probes_per_hour,
            probe_purse=probe_purse, probe_password_file=probe_password_file, probe_daily=probe_daily,
            metrics_port=metrics_port,
        )  # fmt: skip
        asyncio.run(_run(settings, teller(as_json=as_json)))


def audit(
    node: Annotated[
        list[str] | None, typer.Argument(help="Accounts of nodes. [default: every one that is online]")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="At most so many of each node's latest sessions.")] = 5,
    model: Model = None,
    network: NetworkOption = None,
    account: Account = None,
    password_file: Password = None,
    calibration: Calibration = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Audit now, without a draw. Exit status 3 when a node failed."""
    with errors():
        settings = settings_of(
            model=model, network=network, account=account, password_file=password_file, calibration=calibration,
            data_dir=data_dir,
        )  # fmt: skip
        failed = asyncio.run(_audit(settings, node or [], sessions, teller(as_json=as_json)))
    if failed:
        raise typer.Exit(EXIT_FAULTY)


def report(
    node: Annotated[str | None, typer.Option(help="Only this node's audits.")] = None,
    evidence: Annotated[
        str | None, typer.Option(help="Judge this evidence again (its hash), and say whether the verdict stands.")
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Each node's score: what would be published now, and what was settled last."),
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="At most so many of each.")] = 50,
    model: Model = None,
    network: NetworkOption = None,
    calibration: Calibration = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What audits found, and what nodes showed of their weights.

    With --evidence exit status 3 unless judging it again gives the same verdict."""
    with errors():
        settings = settings_of(model=model, network=network, calibration=calibration, data_dir=data_dir)
        show = teller(as_json=as_json)
        stands = True
        if evidence is not None:
            stands = _again(settings, evidence, show)
        elif scores:
            asyncio.run(_scores(settings, node, show))
        else:
            _report(settings, node, last, show)
    if not stands:
        raise typer.Exit(EXIT_FAULTY)


def doctor(
    model: Model = None,
    network: NetworkOption = None,
    account: Account = None,
    calibration: Calibration = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Look for what may be wrong, and say what to do about it. Exit status 1 when something is."""
    with errors():
        from corolla_validator.cli.doctor import examine

        settings = settings_of(
            model=model, network=network, account=account, calibration=calibration, data_dir=data_dir
        )
        findings = asyncio.run(examine(settings, settings.data_dir or home() / "validator"))
        emit(rows(findings), as_json=as_json)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


async def _run(settings: ValidatorSettings, tell: Any) -> None:
    from corolla_core.config.metrics import serve_metrics
    from corolla_validator.metrics import ValidatorMetrics
    from corolla_validator.rounds import forever
    from corolla_validator.running import validating

    chosen = network_of(settings)
    metrics = ValidatorMetrics(time)
    tell = metrics.counting(tell)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def told(error: CorollaError) -> None:
        tell({"event": "trouble", "error": error.code, "message": str(error)})

    signer, purse = signer_of(settings, chosen), purse_of(settings, chosen)
    async with (
        AsyncExitStack() as stack,
        validating(settings, chosen, folder_of(settings), signer, purse=purse, tell=tell) as validator,
    ):
        await validator.join()
        audits = metrics.round_of(validator.rounds)
        port = None
        if settings.metrics_port is not None:
            port, stop_metrics = serve_metrics([metrics], port=settings.metrics_port, host=settings.metrics_host)
            stack.push_async_callback(asyncio.to_thread, stop_metrics)
        ready = {"model": validator.manifest.name, "model_root": validator.manifest.root.hex()}
        tell({"event": "ready", **ready, "metrics_port": port})
        async with asyncio.TaskGroup() as duties:
            # A juror has seconds to vote: it does not wait until what was drawn is audited.
            for duty in (audits, validator.bar.round):
                duties.create_task(forever(duty, every=settings.every, stop=stop, told=told))
            if validator.press is not None:  # nor may a long audit keep it from revealing in time
                duties.create_task(forever(validator.press.round, every=validator.press.every, stop=stop, told=told))
            extras = [
                duties.create_task(forever(extra.round, every=settings.every, stop=stop, told=told))
                for extra in (validator.possessions, validator.probes)
                if extra is not None
            ]
            await stop.wait()
            for each in extras:  # a probe may take minutes
                each.cancel()


async def _audit(settings: ValidatorSettings, accounts: list[str], sessions: int, tell: Any) -> int:
    """How many audits failed."""
    from corolla_core.protocol.ids import ZERO_HASH, address
    from corolla_validator.running import validating

    chosen = network_of(settings)
    failed = 0
    async with validating(settings, chosen, folder_of(settings), signer_of(settings, chosen), tell=tell) as validator:
        manifest = validator.manifest
        online = {node.account: node for node in await validator.directory.lookup(manifest.root, manifest.num_blocks)}
        wanted = [address(text) for text in accounts] or sorted(online)
        for account in wanted:
            if account not in online:
                raise ConfigError(f"{account} is not online")
            chains = await validator.rounds.read(online[account])
            chains.sort(key=lambda linked: linked.chain[-1].receipt.t_out if linked.chain else 0)
            for linked in chains[-sessions:]:
                try:
                    record = await validator.rounds.audit(online[account], linked, beacon=ZERO_HASH)
                except CorollaError as error:
                    tell({"event": "withheld", "node": account, "session": linked.key.session.hex(), "why": str(error)})
                    failed += 1
                    continue
                failed += record is not None and record.verdict.failed
    return failed


def _report(settings: ValidatorSettings, node: str | None, last: int, show: Any) -> None:
    from corolla_core.protocol.ids import address
    from corolla_core.protocol.possession import Doubt
    from corolla_core.protocol.suspicion import Suspicion
    from corolla_core.store.possessions import PossessionLog
    from corolla_core.store.store import Store
    from corolla_core.store.validator_store import ValidatorStore
    from corolla_validator.possession import possession_event
    from corolla_validator.rounds import audited

    account = None if node is None else address(node)
    with Store.open(settings.store or folder_of(settings).store) as store:
        records = ValidatorStore(store).audits(node=account)
        asked = PossessionLog(store).records(node=account)
    suspicions: dict[str, Suspicion] = {}
    events = []
    for record in records:
        suspicions[record.node] = suspicions.get(record.node, Suspicion()).after(record.verdict, record.input_digest)
        events.append(audited(record, suspicions[record.node].standing))
    doubts: dict[str, Doubt] = {}
    shown = []
    for found in asked:
        doubts[found.node] = doubts.get(found.node, Doubt()).after(found.outcome)
        shown.append(possession_event(found, doubted=doubts[found.node].doubted))
    for event in events[-last:] + shown[-last:]:
        show(event)


async def _scores(settings: ValidatorSettings, node: str | None, show: Any) -> None:
    from corolla_core.chain.rpc import Chain
    from corolla_core.protocol.ids import address
    from corolla_core.store.store import Store
    from corolla_validator.score_report import score_rows

    only = None if node is None else address(node)
    async with (
        await Chain.connect(network_of(settings)) as chain,
        await asyncio.to_thread(Store.open, settings.store or folder_of(settings).store) as store,
    ):
        for row in await score_rows(chain, store, settings.terms):
            if only in (None, row["node"]):
                show(row)


def _again(settings: ValidatorSettings, evidence: str, show: Any) -> bool:
    """Whether judging it again gives the verdict on record."""
    from corolla_core.protocol.ids import hash32
    from corolla_core.store.store import Store
    from corolla_core.store.validator_store import ValidatorStore
    from corolla_validator.evidence_folder import EvidenceFolder
    from corolla_validator.running import open_bench

    name = hash32(evidence)
    folder = folder_of(settings)
    transcript = EvidenceFolder(folder.evidence, limit=settings.evidence_bytes).read(name)
    with Store.open(settings.store or folder.store) as store:
        record = ValidatorStore(store).audit(name)
    judgement = open_bench(settings).auditor().judge(transcript)
    stands = record is None or record.verdict.outcome is judgement.verdict.outcome
    show(
        {
            "event": "judged again",
            "evidence": name.hex(),
            "node": transcript.node,
            "span": str(transcript.span),
            "receipts": len(transcript.entries),
            "head": transcript.head.hash().hex(),
            "on_record": None if record is None else record.verdict.outcome.value,
            "outcome": judgement.verdict.outcome.value,
            "w16": judgement.statistics.w16_max,
            "stands": stands,
        }
    )
    return stands


def settings_of(**flags: Any) -> ValidatorSettings:
    settings = load_settings(ValidatorSettings, flags=flags).settings
    setup_logging(settings.log_level)
    return settings


def folder_of(settings: ValidatorSettings) -> Folder:
    from corolla_validator.running import Folder

    return Folder((settings.data_dir or home() / "validator").expanduser().absolute())


def network_of(settings: ValidatorSettings) -> Network:
    import torch

    from corolla_core.chain.network import resolve_network

    torch.set_num_threads(settings.threads)
    return resolve_network(settings.network, folder=home() / "networks")


def signer_of(settings: ValidatorSettings, network: Network) -> Signer | None:
    """Raises KeystoreError."""
    return _opened(settings.account, settings.password_file, network, flags=("--account", "--password-file"))


def purse_of(settings: ValidatorSettings, network: Network) -> Signer | None:
    """Who pays for probes. Raises KeystoreError, ConfigError where probes are wanted and nobody pays."""
    if not settings.probes_per_hour:
        return None
    if settings.probe_purse is None:
        raise ConfigError("probes cost money: name who pays with --probe-purse")
    flags = ("--probe-purse", "--probe-password-file")
    return _opened(settings.probe_purse, settings.probe_password_file, network, flags=flags)


def _opened(
    keystore: Path | None, password_file: Path | None, network: Network, *, flags: tuple[str, str]
) -> Signer | None:
    from corolla_core.chain.keystore import load_account

    if keystore is None:
        return None
    if password_file is None:
        raise KeystoreError(f"{flags[0]} needs {flags[1]}")
    try:
        password = password_file.read_text().splitlines()[0]
    except (OSError, IndexError):
        raise KeystoreError(f"no password in {password_file}") from None
    return load_account(keystore_path(keystore), password, chain_id=network.chain_id)


def teller(*, as_json: bool) -> Any:
    """Shows events as they come: JSON lines, or words."""
    out = output()

    def tell(event: dict[str, object]) -> None:
        if as_json:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
            return
        rest = {name: value for name, value in event.items() if name != "event" and value not in (None, [], "")}
        words = "  ".join(f"{name} {_short(value)}" for name, value in rest.items())
        colour = {
            "failed": "red", "passed": "green", "withheld": "red", "fault": "red", "trouble": "yellow",
            "held": "green", "wrong": "red", "late": "yellow", "refused": "yellow",
        }  # fmt: skip
        state = str(event.get("outcome") or event["event"])
        # What nodes say of themselves is among the words: none of it may be taken for a style.
        name = f"[{colour.get(state, 'default')}]{event['event']}[/]"
        out.print(f"{name}  {escape(words)}", highlight=False, soft_wrap=True)

    return tell


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return str(value)
