"""The validator's settings; see `corolla_core.config.layered` for where they come from."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from corolla_core.config import LayeredSettings
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.reputation import ReputationTerms
from corolla_core.protocol.units import Nectar, nectar_from_text


def _probability(text: object) -> object:
    try:
        found = Fraction(str(text))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"not a probability: {text!r}") from None
    if not 0 <= found <= 1:
        raise ValueError(f"a probability lies between 0 and 1, not {text}")
    return found


def _amount(text: object) -> object:
    try:
        nectar_from_text(str(text))
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return str(text)


def _positive(text: object) -> object:
    if not nectar_from_text(str(_amount(text))):
        raise ValueError("an amount above 0 is needed")
    return text


class ValidatorSettings(LayeredSettings):
    """What `validator` can be told. Times are seconds, sizes bytes."""

    table: ClassVar[str] = "validator"

    model: str | None = None
    network: str = "devnet"
    account: Path | None = None
    """whom nodes see asking; a passing key if unset"""
    password_file: Path | None = None
    stake: Annotated[str, BeforeValidator(_amount)] = "100"
    """tokens to stake as a juror, where an account is given and the network has a jury; 0 for none"""
    voice_stake: Annotated[str, BeforeValidator(_amount)] = "100"
    """tokens to stake in the registry, where an account is given and the network has an oracle: by them the scores that
    this validator publishes are weighed; 0 for none, and no scores"""
    evidence_unit: Annotated[str, BeforeValidator(_positive)] = "0.01"
    """fees, in tokens and net of what is burned, that make an audited session count as one success or failure"""
    calibration: Path | None = None
    """thresholds to judge by; those that ship with Corolla if unset"""
    probability: Annotated[Fraction, BeforeValidator(_probability)] = Fraction(1, 10)
    """how many of the sessions are audited: 0.1, or 1/10"""
    most_positions: Annotated[int, Field(ge=17, le=65_536)] = 1024
    quiet: Annotated[float, Field(ge=0)] = 5.0
    every: Annotated[float, Field(gt=0)] = 1.0
    evidence_bytes: Annotated[int, Field(ge=0)] = 2**30
    """how much evidence of passed audits is kept; that of failed ones is kept for good"""
    possession_every: Annotated[float, Field(ge=0)] = 3600.0
    """how often each node must show that it holds its weights; 0 for never"""
    possession_bytes: Annotated[int, Field(ge=1, le=2**28)] = 2**27
    """how many of its weights, each time"""
    possession_rate: Annotated[int, Field(ge=2**20)] = 2**27
    """how many bytes a second a node is expected to read and hash; it has as long as that takes, and two seconds"""
    probes_per_hour: Annotated[float, Field(ge=0)] = 0.0
    probe_purse: Path | None = None
    """keystore that pays for probes; an account that nobody can tell is this validator's, and so never `account`"""
    probe_password_file: Path | None = None
    probe_daily: Annotated[str, BeforeValidator(_amount)] = "5"
    """tokens that leave the purse in any 24 hours, at most"""
    probe_deposit: Annotated[str, BeforeValidator(_amount)] = "1"
    """about what each account that probes is given"""
    probe_life: Annotated[float, Field(gt=0, le=43_200)] = 21_600.0
    """about how long an account probes; what nodes did for it is judged only after that, while they keep their rows"""
    probe_client: str = ""
    """how the client is run, such as `ip netns exec elsewhere corolla`; `corolla` if unset"""
    probe_gas: Annotated[int, Field(ge=0)] = 2 * 10**16
    """Wei each account is given"""
    explorer_host: str = "127.0.0.1"
    """what `validator explorer` listens on"""
    explorer_port: Annotated[int, Field(ge=0, le=65_535)] = 8600
    explorer_names: tuple[str, ...] = ()
    """further names that browsers may reach it by, behind a proxy say; requests for any other name are refused"""
    explorer_tx_url: Annotated[str | None, Field(pattern=r"^https?://[^\s]+$")] = None
    """what links to a transaction begin with, such as `https://etherscan.io/tx/`; no links if unset"""
    explorer_from_block: Annotated[int, Field(ge=0)] = 0
    """the block the network's contracts were deployed at, or one before it"""
    explorer_gateway: Annotated[str | None, Field(pattern=r"^https?://[^\s]+$")] = None
    """an OpenAI-compatible gateway that answers the playground; none if unset"""
    explorer_gateway_key_file: Path | None = None
    explorer_gateway_model: str | None = None
    """the model's name there; this model's if unset"""
    threads: Annotated[int, Field(ge=1)] = 1
    data_dir: Path | None = None
    store: str | None = None
    metrics_port: Annotated[int | None, Field(ge=0, le=65535)] = None
    metrics_host: str = "127.0.0.1"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def stake_amount(self) -> Nectar:
        return nectar_from_text(self.stake)

    @property
    def voice_amount(self) -> Nectar:
        return nectar_from_text(self.voice_stake)

    @property
    def terms(self) -> ReputationTerms:
        """By which audits become scores."""
        return ReputationTerms(evidence_unit=nectar_from_text(self.evidence_unit))
