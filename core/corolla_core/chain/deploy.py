"""A whole network on a fresh chain, from the bytecode the package ships."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import Any

from eth_utils.crypto import keccak

from corolla_core.chain.abi import load_abi
from corolla_core.chain.account import Call
from corolla_core.chain.devnet_keys import DEVNET_CHAIN_IDS
from corolla_core.chain.disputes import DisputeParameters
from corolla_core.chain.faults import FaultParameters
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain, Transport, hex_int
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.errors import ChainError
from corolla_core.protocol.ids import ZERO_ADDRESS, Address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import ONE_NECTAR, Nectar

_ADMIN_ROLE = bytes(32)
_ESCROW_ROLE = keccak(text="ESCROW_ROLE")
_JUDGES_ROLES = (keccak(text="SLASHER_ROLE"), keccak(text="JAILER_ROLE"))
_PROPOSER_ROLE = keccak(text="PROPOSER_ROLE")
_CANCELLER_ROLE = keccak(text="CANCELLER_ROLE")


@dataclass(frozen=True, slots=True)
class ScoreTerms:
    """How validators score nodes: `IReputationOracle.Parameters` in its order."""

    commit_seconds: int = 60
    reveal_seconds: int = 60
    max_above: int = 6_553
    min_ratings: int = 1
    min_validator_stake: Nectar = Nectar(100 * ONE_NECTAR)  # noqa: RUF009 — an int
    min_total_stake: Nectar = Nectar(100 * ONE_NECTAR)  # noqa: RUF009 — an int


@dataclass(frozen=True, slots=True)
class VoteTerms:
    """How Nectar's holders decide: delay and period in blocks, what it takes to propose, and percent of the supply."""

    voting_delay: int = 1
    voting_period: int = 50
    proposal_threshold: Nectar = Nectar(1_000 * ONE_NECTAR)  # noqa: RUF009 — an int
    quorum_percent: int = 4


@dataclass(frozen=True, slots=True)
class Terms:
    """What a network is deployed with; the defaults suit a devnet. Seconds, base units, and 1/10,000."""

    supply: Nectar = Nectar(100_000_000 * ONE_NECTAR)  # noqa: RUF009 — an int
    min_stake: Nectar = Nectar(100 * ONE_NECTAR)  # noqa: RUF009 — an int
    unbonding_delay: int = 60
    fee_bps: int = 100
    lock_bps: int = 1_000
    grace: int = 3600
    audit_window: int = 30
    thaw_delay: int = 60
    timelock_delay: int = 0
    faults: FaultParameters = field(default_factory=FaultParameters)
    scores: ScoreTerms = ScoreTerms()
    votes: VoteTerms = VoteTerms()
    dispute_bond: Nectar = Nectar(50 * ONE_NECTAR)  # noqa: RUF009 — an int
    min_juror_stake: Nectar = Nectar(10 * ONE_NECTAR)  # noqa: RUF009 — an int
    juror_unbonding: int = 60
    #: of a jury's draw, its votes, their opening and an appeal, each; None: as long as the unbonding delay allows
    dispute_period: int | None = None

    def dispute_parameters(self, unbonding_delay: int) -> DisputeParameters:
        """The jury's terms: half of the stake slashed, and the most that challenger, jury and penalty may be.

        A dispute with both appeals takes eleven periods, and must be over before stake unbonds, less the audit window.
        """
        room = min(unbonding_delay - self.audit_window, self.juror_unbonding) - 1
        period = max(1, room // 11) if self.dispute_period is None else self.dispute_period
        periods = (period, period, period, period)
        return DisputeParameters(self.dispute_bond, self.min_juror_stake, *periods, 86_400, 5_000, 3_000, 2_000, 1_000)


_DAY = 86_400
PUBLIC = Terms(
    unbonding_delay=28 * _DAY,
    grace=_DAY,
    audit_window=_DAY,
    thaw_delay=3_600,
    timelock_delay=2 * _DAY,
    faults=FaultParameters(max_age=14 * _DAY, opening_age=_DAY, response_time=6 * 3_600, jail=7 * _DAY),
    scores=ScoreTerms(commit_seconds=12 * 3_600, reveal_seconds=12 * 3_600, min_ratings=3),
    votes=VoteTerms(voting_delay=7_200, voting_period=50_400),
    juror_unbonding=28 * _DAY,
    dispute_period=_DAY // 2,
)
"""For a chain on which money is worth something: time for people to notice, to appeal and to leave. The governor may
change all of it within the contracts' bounds."""


async def chain_id_of(rpc_url: str, *, transport: Transport | None = None) -> int:
    """Raises ChainUnreachable."""
    async with Chain(_unborn("unborn", rpc_url, 1), transport=transport) as probe:
        return hex_int(await probe.request("eth_chainId"))


async def deploy_all(
    rpc_url: str,
    deployer: Signer,
    *,
    name: str = "devnet",
    terms: Terms | None = None,
    unbonding_delay: int | None = None,
    bootstrap: tuple[str, ...] = (),
    transport: Transport | None = None,
) -> Network:
    """Deploy all contracts, hand governance to the timelock, return the network.

    The deployer gets the token's supply; on a devnet chain id it is also the token's minter, and proposes to the
    timelock beside the governor. Without `terms` they are a devnet's there and `PUBLIC` elsewhere; `unbonding_delay`
    overrides that of `terms`. Raises ChainUnreachable, TransactionReverted.
    """
    chain_id = await chain_id_of(rpc_url, transport=transport)
    terms = terms or (Terms() if chain_id in DEVNET_CHAIN_IDS else PUBLIC)
    delay = terms.unbonding_delay if unbonding_delay is None else unbonding_delay
    me = deployer.address
    async with Chain(_unborn(name, rpc_url, chain_id), transport=transport) as chain:
        sender = TransactionSender(chain, deployer)
        minter = me if chain_id in DEVNET_CHAIN_IDS else ZERO_ADDRESS
        token = await _create(sender, "NectarToken", me, terms.supply, minter)
        # Anyone may execute what was proposed and has waited. The deployer proposes too where nothing is at stake.
        proposers = [me] if chain_id in DEVNET_CHAIN_IDS else []
        timelock = await _create(sender, "TimelockController", terms.timelock_delay, proposers, [ZERO_ADDRESS], me)
        registry = await _create(sender, "NodeRegistry", token, me, terms.min_stake, delay)
        models = await _create(sender, "ModelRegistry")
        parameters = (terms.fee_bps, terms.lock_bps, terms.grace, terms.audit_window, terms.thaw_delay)
        escrow = await _create(sender, "Escrow", token, registry, timelock, parameters)
        judged = (token, registry, models, escrow, timelock)
        faults = await _create(sender, "Faults", *judged, terms.faults.words())
        reputation = await _create(sender, "ReputationOracle", registry, timelock, astuple(terms.scores))
        jury = astuple(terms.dispute_parameters(delay))
        disputes = await _create(sender, "Disputes", token, registry, escrow, timelock, terms.juror_unbonding, jury)
        governor = await _create(sender, "NectarGovernor", token, timelock, *astuple(terms.votes))
        cooperatives = await _create(sender, "CooperativeFactory", token, registry, escrow)
        roles = load_abi("NodeRegistry")
        for call in (
            roles.encode("grantRole", _ESCROW_ROLE, escrow),
            *(roles.encode("grantRole", role, judge) for judge in (faults, disputes) for role in _JUDGES_ROLES),
            roles.encode("grantRole", _ADMIN_ROLE, timelock),
            roles.encode("renounceRole", _ADMIN_ROLE, me),
        ):
            await sender.send(Call(registry, call, about="handing over the registry's roles"))
        keys = load_abi("TimelockController")
        for call in (
            keys.encode("grantRole", _PROPOSER_ROLE, governor),
            keys.encode("grantRole", _CANCELLER_ROLE, governor),
            keys.encode("renounceRole", _ADMIN_ROLE, me),
        ):
            await sender.send(Call(timelock, call, about="handing the timelock to the governor"))
    later = {"faults": faults, "disputes": disputes, "reputation": reputation, "governor": governor}
    return Network(name, chain_id, rpc_url, *judged, bootstrap, cooperatives=cooperatives, **later)


async def _create(sender: TransactionSender, contract: str, *arguments: Any) -> Address:
    data = load_abi(contract).creation(*arguments)
    mined = await sender.send(Call(None, data, about=f"deploying {contract}"))
    if mined.contract is None:
        raise ChainError(f"deploying {contract} created nothing")
    return mined.contract


def _unborn(name: str, rpc_url: str, chain_id: int) -> Network:
    """A network whose contracts are not there yet."""
    return Network(name, chain_id, rpc_url, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS)
