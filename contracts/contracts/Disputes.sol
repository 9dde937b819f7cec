// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IDisputes} from "../interfaces/IDisputes.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {JurorPool} from "./JurorPool.sol";
import {Devnet} from "./libraries/Devnet.sol";

/// @title The jury
/// @notice See IDisputes. The registry must give this contract its `SLASHER_ROLE` and `JAILER_ROLE`.
contract Disputes is IDisputes, Ownable, ReentrancyGuard {
    using SafeERC20 for IERC20;

    uint256 private constant BPS = 10_000;
    uint8 public constant ROUNDS = 3;
    uint256 public constant MAX_URI = 256;
    /// @notice The most that the harmed client gets of a slash. With the most that challenger and jury may get this is
    /// more than the registry lets anyone be paid (half): those two then share what is left in proportion.
    uint256 public constant MAX_REFUND_BPS = 2_500;
    uint256 public constant MAX_REWARDS_BPS = 5_000;
    uint96 public constant MAX_AMOUNT = 1_000_000 * 1e18;
    /// @notice The registry's shortest unbonding delay (14 days) less the escrow's longest audit window (7 days).
    uint256 public constant MAX_DISPUTE = 7 days;
    uint32 public constant MAX_JAIL = 60 days;
    bytes32 private constant SLASHER_ROLE = keccak256("SLASHER_ROLE");
    bytes32 private constant JAILER_ROLE = keccak256("JAILER_ROLE");
    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-start naming-convention
    /// @notice The shortest of every period: an hour, to outlast an RPC outage; a second on a devnet.
    uint32 public immutable MIN_PERIOD;
    /// @notice How far ahead the block is whose hash draws a jury; 1 on a devnet, where blocks may be rare.
    uint64 public immutable SEED_BLOCKS;
    IERC20 public immutable TOKEN;
    /// @notice The jurors' stake; this contract deploys it.
    JurorPool public immutable POOL;
    INodeRegistry public immutable REGISTRY;
    IEscrow public immutable ESCROW;
    // slither-disable-end naming-convention

    /// @inheritdoc IDisputes
    uint256 public disputes;
    /// @inheritdoc IDisputes
    mapping(address node => mapping(bytes32 receiptHash => uint256 id)) public disputeOver;
    /// @inheritdoc IDisputes
    mapping(address account => uint256) public credit;
    uint32 private _terms;
    mapping(uint32 terms => Parameters) private _parameters;
    mapping(uint256 id => Dispute) private _disputes;
    mapping(uint256 id => mapping(uint256 round => Round)) private _rounds;
    mapping(uint256 id => mapping(uint256 round => mapping(address juror => Ballot))) private _ballots;

    /// @param token Nectar
    /// @param escrow says what a client paid a node
    /// @param governance the timelock
    /// @param jurorUnbonding seconds, for good; longer than any dispute will be
    constructor(
        IERC20 token,
        INodeRegistry registry,
        IEscrow escrow,
        address governance,
        uint32 jurorUnbonding,
        Parameters memory initial
    ) Ownable(governance) {
        if (address(token) == address(0) || address(registry) == address(0) || address(escrow) == address(0)) {
            revert AddressIsZero();
        }
        TOKEN = token;
        POOL = new JurorPool(token, jurorUnbonding);
        REGISTRY = registry;
        ESCROW = escrow;
        MIN_PERIOD = Devnet.isDevnet() ? 1 : 1 hours;
        SEED_BLOCKS = Devnet.isDevnet() ? 1 : 4;
        _setParameters(initial);
    }

    // Deadlines are compared with the block's time, which a proposer moves by seconds at most: off a devnet every period
    // is an hour or more.
    // slither-disable-start timestamp

    // The pool and the registry are our own, cannot be swapped and call nobody but Nectar: what is written after a call to
    // them cannot be seen half done. Whatever moves tokens is nonReentrant all the same.
    // slither-disable-start reentrancy-no-eth,reentrancy-benign,reentrancy-events

    /// @inheritdoc IDisputes
    function accuse(Accusation calldata accusation) external nonReentrant returns (uint256 id) {
        (address node, bytes32 receiptHash) = (accusation.node, accusation.receiptHash);
        INodeRegistry.NodeView memory accused = REGISTRY.nodeOf(node);
        if (accused.owner == address(0)) revert NodeUnknown(node);
        if (accused.stake + accused.unbonding == 0) revert NothingAtStake(node);
        if (msg.sender == node || msg.sender == accused.owner) revert SelfAccusation(msg.sender);
        if (accusation.evidenceHash == bytes32(0)) revert EvidenceMissing();
        if (bytes(accusation.evidenceUri).length > MAX_URI) revert UriTooLong(bytes(accusation.evidenceUri).length);
        // What else is wrong with a signature does not matter: only who signed, and nobody did if there is an error.
        // slither-disable-next-line unused-return
        (address signer,,) = ECDSA.tryRecover(receiptHash, accusation.signature);
        if (signer != node) revert NotSignedByNode(node, receiptHash);
        _checkNotAccused(disputeOver[node][receiptHash]);
        address client = address(0);
        if (accusation.trancheId != bytes32(0)) {
            client = ESCROW.tranche(accusation.trancheId).payer;
            if (client == address(0)) revert TrancheUnknown(accusation.trancheId);
        }

        id = ++disputes;
        disputeOver[node][receiptHash] = id;
        Dispute storage entry = _disputes[id];
        (entry.snapshot, entry.leaves) = POOL.freeze();
        (entry.node, entry.nodeOwner, entry.terms) = (node, accused.owner, _terms);
        (entry.challenger, entry.challengerOwner) = (msg.sender, POOL.jurorOf(msg.sender).owner);
        (entry.receiptHash, entry.evidenceHash) = (receiptHash, accusation.evidenceHash);
        if (client != address(0)) (entry.client, entry.trancheId, entry.harm) = (client, accusation.trancheId, accusation.harm);
        emit Accused(id, node, msg.sender, receiptHash, accusation.evidenceHash, accusation.evidenceUri);
        _callJury(id, entry, false);
    }

    /// @inheritdoc IDisputes
    function draw(uint256 id) external returns (bool drawn) {
        (Dispute storage entry, Round storage round) = _in(id, Phase.Drawing);
        uint64 seedBlock = round.seedBlock;
        if (block.number <= seedBlock) revert SeedNotMined(seedBlock);
        bytes32 seed = blockhash(seedBlock);
        if (seed == bytes32(0)) {
            _arm(id, entry.round, round);
            return false;
        }
        seed = keccak256(abi.encode(seed, address(this), id, entry.round));
        uint32 commitUntil = uint32(block.timestamp) + _parameters[entry.terms].commitPeriod;
        uint32 revealUntil = commitUntil + _parameters[entry.terms].revealPeriod;
        (round.commitUntil, round.revealUntil) = (commitUntil, revealUntil);
        emit JuryDrawn(id, entry.round, _seat(id, entry, round, seed), commitUntil, revealUntil);
        return true;
    }

    /// @inheritdoc IDisputes
    function commit(uint256 id, bytes32 commitment) external {
        (Dispute storage entry,) = _in(id, Phase.Committing);
        if (commitment == bytes32(0)) revert CommitmentIsZero();
        _ballot(id, entry.round).commitment = commitment;
        emit Committed(id, entry.round, msg.sender, commitment);
    }

    /// @inheritdoc IDisputes
    function reveal(uint256 id, Vote vote, bytes32 salt) external {
        (Dispute storage entry, Round storage round) = _in(id, Phase.Revealing);
        Ballot storage ballot = _ballot(id, entry.round);
        if (vote == Vote.None) revert VoteIsNone();
        if (ballot.vote != Vote.None) revert AlreadyRevealed(id, msg.sender);
        // The juror is in the hash: a commitment copied from another cannot be opened.
        if (ballot.commitment != commitmentOf(id, entry.round, msg.sender, vote, salt)) {
            revert CommitmentMismatch(id, msg.sender);
        }
        ballot.vote = vote;
        round.seats[uint256(vote)] += ballot.seats;
        round.penalties[uint256(vote)] += ballot.penalty;
        emit Revealed(id, entry.round, msg.sender, vote, ballot.seats);
    }

    /// @inheritdoc IDisputes
    function appeal(uint256 id) external nonReentrant {
        (Dispute storage entry, Round storage round) = _in(id, Phase.Appealing);
        bool forNode = _verdict(round) == Outcome.Faulty;
        bool allowed = forNode ? msg.sender == entry.node || msg.sender == entry.nodeOwner : msg.sender == entry.challenger;
        if (!allowed) revert NotTheLosingSide(id, msg.sender);
        ++entry.round;
        _callJury(id, entry, forNode);
    }

    /// @inheritdoc IDisputes
    function conclude(uint256 id) external nonReentrant {
        (Dispute storage entry, Round storage last) = _in(id, Phase.Concludable);
        Outcome outcome = _verdict(last);
        entry.outcome = outcome;
        (uint256 winners, uint256 pot) = _forfeits(id, entry.round, outcome);
        uint256 forfeited = pot;
        pot += _returnBonds(id, entry, outcome);
        uint256 slashed = 0;
        uint256 rewards = 0;
        uint256 refund = 0;
        if (outcome == Outcome.Faulty) {
            uint256 jury = 0;
            (slashed, rewards, refund, jury) = _share(id, entry);
            pot += jury;
        }
        // Whoever wins has seats that said so; a draw has no winners, and its pot is burned, as is what does not divide.
        uint256 each = winners == 0 ? 0 : pot / winners;
        entry.seatReward = uint96(each);
        emit Concluded(id, outcome, slashed, refund, each);
        if (forfeited > 0) POOL.forfeit(forfeited);
        if (outcome == Outcome.Faulty) _punish(entry, slashed, rewards);
        uint256 dust = winners == 0 ? pot : pot % winners;
        if (dust > 0) ERC20Burnable(address(TOKEN)).burn(dust);
    }

    // slither-disable-end timestamp
    // slither-disable-end reentrancy-no-eth,reentrancy-benign,reentrancy-events

    /// @inheritdoc IDisputes
    function settle(uint256 id, address[] calldata jurors) external {
        Dispute storage entry = _disputes[id];
        Outcome outcome = entry.outcome;
        if (outcome == Outcome.Open) revert WrongPhase(id, phaseOf(id));
        for (uint8 round = 0; round <= entry.round; ++round) {
            for (uint256 i = 0; i < jurors.length; ++i) _settle(id, round, jurors[i], outcome, entry.seatReward);
        }
    }

    /// @inheritdoc IDisputes
    function setParameters(Parameters calldata parameters_) external onlyOwner {
        _setParameters(parameters_);
    }

    /// @inheritdoc IDisputes
    function withdraw(address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0)) revert AddressIsZero();
        amount = credit[msg.sender];
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        credit[msg.sender] = 0;
        emit CreditWithdrawn(msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    // ---- views ----

    /// @inheritdoc IDisputes
    function dispute(uint256 id) external view returns (Dispute memory) {
        return _disputes[id];
    }

    /// @inheritdoc IDisputes
    function roundOf(uint256 id, uint8 round) external view returns (Round memory) {
        return _rounds[id][round];
    }

    /// @inheritdoc IDisputes
    function ballotOf(uint256 id, uint8 round, address juror) external view returns (Ballot memory) {
        return _ballots[id][round][juror];
    }

    /// @inheritdoc IDisputes
    function verdictOf(uint256 id, uint8 round) external view returns (Outcome) {
        return _verdict(_rounds[id][round]);
    }

    /// @inheritdoc IDisputes
    function bondOf(uint8 round) external view returns (uint256) {
        return _bond(_parameters[_terms], round);
    }

    /// @inheritdoc IDisputes
    function parameters() external view returns (Parameters memory) {
        return _parameters[_terms];
    }

    /// @inheritdoc IDisputes
    function longestDispute() external view returns (uint256) {
        return _longest(_parameters[_terms]);
    }

    /// @inheritdoc IDisputes
    function phaseOf(uint256 id) public view returns (Phase) {
        Dispute storage entry = _disputes[id];
        if (entry.node == address(0)) return Phase.Unknown;
        if (entry.outcome != Outcome.Open) return Phase.Concluded;
        Round storage round = _rounds[id][entry.round];
        // See above: an hour or more off a devnet.
        // slither-disable-start timestamp
        if (round.commitUntil == 0) return block.timestamp <= round.drawUntil ? Phase.Drawing : Phase.Concludable;
        if (block.timestamp <= round.commitUntil) return Phase.Committing;
        if (block.timestamp <= round.revealUntil) return Phase.Revealing;
        Outcome verdict = _verdict(round);
        bool appealable = entry.round + 1 < ROUNDS && (verdict == Outcome.Correct || verdict == Outcome.Faulty);
        uint256 appealUntil = uint256(round.revealUntil) + _parameters[entry.terms].appealPeriod;
        return appealable && block.timestamp <= appealUntil ? Phase.Appealing : Phase.Concludable;
        // slither-disable-end timestamp
    }

    /// @inheritdoc IDisputes
    function seatsOf(uint8 round) public pure returns (uint256) {
        if (round == 0) return 5;
        return round == 1 ? 11 : 23;
    }

    /// @inheritdoc IDisputes
    function commitmentOf(uint256 id, uint8 round, address juror, Vote vote, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(id, round, juror, vote, salt));
    }

    // ---- internals ----

    function _callJury(uint256 id, Dispute storage entry, bool forNode) private {
        uint8 number = entry.round;
        Round storage round = _rounds[id][number];
        Parameters storage terms = _parameters[entry.terms];
        uint256 bond = _bond(terms, number);
        (round.patron, round.bond, round.forNode) = (msg.sender, uint96(bond), forNode);
        round.drawUntil = uint32(block.timestamp) + terms.drawPeriod;
        emit JuryCalled(id, number, msg.sender, bond, seatsOf(number));
        _arm(id, number, round);
        TOKEN.safeTransferFrom(msg.sender, address(this), bond);
    }

    function _arm(uint256 id, uint8 number, Round storage round) private {
        uint64 seedBlock = uint64(block.number) + SEED_BLOCKS;
        round.seedBlock = seedBlock;
        emit SeedArmed(id, number, seedBlock);
    }

    /// @dev Draws and locks what stands behind the seats. A juror's seats in a round share one ballot.
    function _seat(uint256 id, Dispute storage entry, Round storage round, bytes32 seed)
        private
        returns (uint16 filled)
    {
        // See `accuse`.
        // slither-disable-start reentrancy-benign,reentrancy-events
        uint8 number = entry.round;
        Parameters storage terms = _parameters[entry.terms];
        (address[] memory jurors, uint16[] memory seats) = POOL.draw(
            entry.snapshot,
            entry.leaves,
            seed,
            seatsOf(number),
            [entry.node, entry.nodeOwner, entry.challenger, entry.challengerOwner, entry.client]
        );
        uint96[] memory locked = POOL.lock(jurors, seats, terms.minJurorStake);
        uint96 penalties = 0;
        for (uint256 i = 0; i < jurors.length; ++i) {
            Ballot storage ballot = _ballots[id][number][jurors[i]];
            uint96 penalty = uint96(uint256(locked[i]) * terms.penaltyBps / BPS);
            (ballot.seats, ballot.locked, ballot.penalty) = (seats[i], locked[i], penalty);
            penalties += penalty;
            filled += seats[i];
            emit JurorDrawn(id, number, jurors[i], seats[i]);
        }
        (round.seats[0], round.penalties[0]) = (filled, penalties);
        // slither-disable-end reentrancy-benign,reentrancy-events
    }

    /// @return winners seats that said what came out, in all rounds
    /// @return pot what the others forfeit; in a draw only who did not vote forfeits anything
    function _forfeits(uint256 id, uint8 last, Outcome outcome) private view returns (uint256 winners, uint256 pot) {
        for (uint256 i = 0; i <= last; ++i) {
            Round storage round = _rounds[id][i];
            pot += round.penalties[0];
            for (uint256 vote = 1; vote < 4; ++vote) {
                if (outcome != Outcome.Draw && vote != uint256(outcome)) continue;
                pot -= round.penalties[vote];
                if (outcome != Outcome.Draw) winners += round.seats[vote];
            }
        }
    }

    function _settle(uint256 id, uint8 round, address juror, Outcome outcome, uint256 seatReward) private {
        Ballot storage ballot = _ballots[id][round][juror];
        if (ballot.seats == 0 || ballot.settled) return;
        ballot.settled = true;
        bool right = uint256(ballot.vote) == uint256(outcome);
        bool spared = right || (outcome == Outcome.Draw && ballot.vote != Vote.None);
        (uint96 penalty, uint256 reward) = (spared ? 0 : ballot.penalty, right ? ballot.seats * seatReward : 0);
        emit Settled(id, round, juror, reward, penalty);
        // slither-disable-next-line calls-loop
        _credit(POOL.release(juror, ballot.locked, penalty), id, reward);
    }

    /// @dev Every round's patron gets its bond back unless the other side won: then that side gets half.
    /// @return pot what of the bonds is the jury's
    function _returnBonds(uint256 id, Dispute storage entry, Outcome outcome) private returns (uint256 pot) {
        for (uint256 i = 0; i <= entry.round; ++i) {
            Round storage round = _rounds[id][i];
            (address patron, uint256 bond, bool forNode) = (round.patron, round.bond, round.forNode);
            if (outcome == (forNode ? Outcome.Faulty : Outcome.Correct)) {
                _credit(forNode ? entry.challenger : entry.nodeOwner, id, bond / 2);
                pot += bond - bond / 2;
            } else {
                _credit(patron, id, bond);
            }
        }
    }

    /// @dev Credits client and challenger with their parts of the slash to come.
    /// @return slashed what will be taken: 0 when nothing is left, or when governance took the role away
    /// @return rewards what of it comes here: for the client, the challenger and the jury
    function _share(uint256 id, Dispute storage entry)
        private
        returns (uint256 slashed, uint256 rewards, uint256 refund, uint256 jury)
    {
        address node = entry.node;
        if (!_has(SLASHER_ROLE)) return (0, 0, 0, 0);
        Parameters storage terms = _parameters[entry.terms];
        INodeRegistry.NodeView memory convict = REGISTRY.nodeOf(node);
        // A whole number of units is taken, and its parts are parts of that.
        // slither-disable-start divide-before-multiply
        slashed = (convict.stake + convict.unbonding) * terms.slashBps / BPS;
        if (entry.client != address(0)) {
            bytes32 trancheId = entry.trancheId;
            uint256 most = Math.min(entry.harm, slashed * MAX_REFUND_BPS / BPS);
            // See `accuse`: our own registry, and `conclude` is nonReentrant.
            // slither-disable-next-line reentrancy-benign
            refund = REGISTRY.bookRefund(trancheId, node, ESCROW.claimed(trancheId, node), most);
        }
        uint256 parts = uint256(terms.challengerBps) + terms.juryBps;
        uint256 rest = Math.min(slashed * parts / BPS, slashed * MAX_REWARDS_BPS / BPS - refund);
        // slither-disable-end divide-before-multiply
        uint256 challenger = rest * terms.challengerBps / parts;
        jury = rest - challenger;
        rewards = refund + rest;
        _credit(entry.client, id, refund);
        _credit(entry.challenger, id, challenger);
    }

    /// @dev Our own registry, which cannot be swapped and does not call out.
    function _punish(Dispute storage entry, uint256 slashed, uint256 rewards) private {
        address node = entry.node;
        // What it takes is what `_share` computed from the same state.
        // slither-disable-next-line unused-return
        if (slashed > 0) REGISTRY.slash(node, slashed, address(this), rewards, entry.receiptHash);
        uint64 until = uint64(block.timestamp) + _parameters[entry.terms].jailPeriod;
        // slither-disable-next-line timestamp
        if (_has(JAILER_ROLE) && REGISTRY.nodeOf(node).jailedUntil < until) REGISTRY.jail(node, until);
    }

    function _setParameters(Parameters memory set) private {
        _check("bond", set.bond, 1, MAX_AMOUNT);
        // Not less, or what a seat forfeits would round to nothing.
        _check("minJurorStake", set.minJurorStake, BPS, MAX_AMOUNT);
        _check("drawPeriod", set.drawPeriod, MIN_PERIOD, MAX_DISPUTE);
        _check("commitPeriod", set.commitPeriod, MIN_PERIOD, MAX_DISPUTE);
        _check("revealPeriod", set.revealPeriod, MIN_PERIOD, MAX_DISPUTE);
        _check("appealPeriod", set.appealPeriod, MIN_PERIOD, MAX_DISPUTE);
        _check("jailPeriod", set.jailPeriod, 1, MAX_JAIL);
        _check("slashBps", set.slashBps, 2_000, BPS);
        _check("challengerBps", set.challengerBps, 100, 3_000);
        _check("juryBps", set.juryBps, 100, 2_000);
        _check("penaltyBps", set.penaltyBps, 100, 1_000);
        // A faulty node's stake, and a juror's in the snapshot, must still be there when the last jury is done.
        uint256 longest = _longest(set);
        uint256 unbonding = REGISTRY.unbondingDelay();
        uint256 room = Math.min(Math.saturatingSub(unbonding, ESCROW.parameters().auditWindow), POOL.JUROR_UNBONDING());
        _check("longestDispute", longest, 0, Math.min(MAX_DISPUTE, Math.saturatingSub(room, 1)));
        _parameters[++_terms] = set;
        emit ParametersSet(_terms, set);
        POOL.setMinStake(set.minJurorStake);
    }

    function _in(uint256 id, Phase wanted) private view returns (Dispute storage entry, Round storage round) {
        Phase phase = phaseOf(id);
        if (phase != wanted) revert WrongPhase(id, phase);
        entry = _disputes[id];
        round = _rounds[id][entry.round];
    }

    function _ballot(uint256 id, uint8 round) private view returns (Ballot storage ballot) {
        ballot = _ballots[id][round][msg.sender];
        if (ballot.seats == 0) revert NotDrawn(id, msg.sender);
    }

    function _checkNotAccused(uint256 id) private view {
        if (id == 0) return;
        Outcome outcome = _disputes[id].outcome;
        if (outcome != Outcome.Unavailable && outcome != Outcome.Draw) revert AlreadyAccused(id);
    }

    function _credit(address account, uint256 id, uint256 amount) private {
        if (amount == 0) return;
        credit[account] += amount;
        emit Credited(account, id, amount);
    }

    function _has(bytes32 role) private view returns (bool) {
        return IAccessControl(address(REGISTRY)).hasRole(role, address(this));
    }

    /// @dev The absolute majority of the revealed seats.
    function _verdict(Round storage round) private view returns (Outcome) {
        uint256 revealed = uint256(round.seats[1]) + round.seats[2] + round.seats[3];
        for (uint8 vote = 1; vote < 4; ++vote) {
            if (2 * uint256(round.seats[vote]) > revealed) return Outcome(vote);
        }
        return Outcome.Draw;
    }

    function _bond(Parameters storage terms, uint8 round) private view returns (uint256) {
        return terms.bond * seatsOf(round) / seatsOf(0);
    }

    function _longest(Parameters memory set) private pure returns (uint256) {
        uint256 jury = uint256(set.drawPeriod) + set.commitPeriod + set.revealPeriod;
        return ROUNDS * jury + (ROUNDS - 1) * uint256(set.appealPeriod);
    }

    function _check(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest) private pure {
        if (value < lowest || value > highest) revert OutOfBounds(parameter, value, lowest, highest);
    }
}
