// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {IFaults} from "../interfaces/IFaults.sol";
import {IModelRegistry} from "../interfaces/IModelRegistry.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Devnet} from "./libraries/Devnet.sol";
import {Manifest, ManifestLib} from "./libraries/ManifestLib.sol";
import {Receipt, ReceiptLib} from "./libraries/ReceiptLib.sol";
import {Sha256Tree} from "./libraries/Sha256Tree.sol";

/// @title Faults that a node's own signature proves
/// @notice See IFaults.
contract Faults is IFaults, Ownable, ReentrancyGuard {
    using SafeERC20 for IERC20;
    using ReceiptLib for Receipt;

    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-start naming-convention

    /// @notice Names of the faults, in events and in the registry's.
    bytes32 public constant EQUIVOCATION = "equivocation";
    bytes32 public constant BROKEN_LINK = "broken link";
    bytes32 public constant FALSE_WEIGHTS = "false weights";
    bytes32 public constant WITHHELD_OPENING = "withheld opening";

    uint64 private constant FOR_GOOD = type(uint64).max;
    uint256 private constant BPS = 10_000;
    uint256 public constant MAX_REWARD_BPS = 3_000;
    /// @notice The most that the client is refunded of what is taken. With the highest reward it is what the registry lets
    /// anyone be paid: half of a slash burns, whoever the challenger and the client are.
    uint256 public constant REFUND_BPS = 2_000;
    uint256 public constant MIN_WEIGHTS_BPS = 5_000;
    uint256 public constant MIN_OPENING_BPS = 100;
    uint256 public constant MAX_OPENING_BPS = 1_000;
    uint256 public constant MAX_AGE = 60 days;
    uint256 public constant MAX_OPENING_AGE = 14 days;
    uint256 public constant MAX_RESPONSE_TIME = 7 days;
    uint256 public constant MAX_JAIL = 30 days;
    uint256 public constant MAX_OPENING_BOND = 10_000 * 1e18;
    /// @notice The most bytes of a row, so that an answer fits the 128 KiB of a transaction. A node must not serve more.
    uint256 public constant MAX_ROW = 98_304;
    /// @notice The most receipts between a redeemed head and a challenged one.
    uint256 public constant MAX_CHAIN = 256;
    /// @notice The shortest time of any kind: an hour, to outlast a restart; a second on a devnet.
    uint256 public immutable MIN_DELAY;
    IERC20 public immutable TOKEN;
    INodeRegistry public immutable REGISTRY;
    IModelRegistry public immutable MODELS;
    IEscrow public immutable ESCROW;

    // slither-disable-end naming-convention

    Parameters private _parameters;
    mapping(bytes32 challengeId => Challenge) private _challenges;
    /// @inheritdoc IFaults
    mapping(bytes32 key => uint64) public punishedUntil;

    /// @param token Nectar
    /// @param registry must give this contract its `SLASHER_ROLE` and `JAILER_ROLE`
    /// @param models says which numeric classes a model has
    /// @param escrow says what a node redeemed
    /// @param governance the timelock
    constructor(
        IERC20 token,
        INodeRegistry registry,
        IModelRegistry models,
        IEscrow escrow,
        address governance,
        Parameters memory initial
    ) Ownable(governance) {
        if (
            address(token) == address(0) || address(registry) == address(0) || address(models) == address(0)
                || address(escrow) == address(0)
        ) revert AddressIsZero();
        (TOKEN, REGISTRY, MODELS, ESCROW) = (token, registry, models, escrow);
        MIN_DELAY = Devnet.isDevnet() ? 1 : 1 hours;
        _setParameters(initial);
    }

    // Times here are at least an hour and compared with the block's time, which a proposer moves by seconds at most.
    // slither-disable-start timestamp

    // ---- proofs ----

    /// @inheritdoc IFaults
    function proveEquivocation(
        Receipt calldata a,
        bytes calldata signatureA,
        Receipt calldata b,
        bytes calldata signatureB,
        Payment calldata payment
    ) external nonReentrant returns (uint256 taken) {
        uint256 maxAge = _parameters.maxAge;
        address node = _signer(a, signatureA, maxAge);
        if (node != _signer(b, signatureB, maxAge) || !_forks(a, b)) revert NoFault(EQUIVOCATION);
        bytes32 evidence = keccak256(abi.encode(a.sessionId, a.clientNonce, a.prevReceiptHash));
        return _putOut(EQUIVOCATION, node, evidence, a, payment);
    }

    /// @inheritdoc IFaults
    function proveBrokenLink(
        Receipt calldata receipt,
        bytes calldata signature,
        Receipt calldata upstream,
        bytes calldata upstreamSignature,
        Payment calldata payment
    ) external nonReentrant returns (uint256 taken) {
        address node = _signer(receipt, signature, _parameters.maxAge);
        // Whoever it is, it must be somebody: recovery reverts where nobody signed.
        // slither-disable-next-line unused-return
        upstream.signer(upstreamSignature);
        if (!_breaks(receipt, upstream)) revert NoFault(BROKEN_LINK);
        return _putOut(BROKEN_LINK, node, receipt.hash(), receipt, payment);
    }

    /// @inheritdoc IFaults
    function proveWeights(
        Receipt calldata receipt,
        bytes calldata signature,
        uint256 version,
        Manifest calldata manifest,
        Payment calldata payment
    ) external nonReentrant returns (uint256 taken) {
        address node = _signer(receipt, signature, _parameters.maxAge);
        if (!_falseWeights(receipt, version, manifest)) revert NoFault(FALSE_WEIGHTS);
        bytes32 evidence = keccak256(
            abi.encode(receipt.modelRoot, receipt.spanStart, receipt.spanEnd, receipt.weightRoot, receipt.numericClass)
        );
        bytes32 key = faultKey(FALSE_WEIGHTS, node, evidence);
        // A node that went on with it after its jailing is at fault anew.
        uint64 until = punishedUntil[key];
        if (until != 0 && receipt.tIn / 1000 <= until) revert AlreadyPunished(key, until);
        bytes32 trancheId = _paidFrom(payment, receipt, node);
        return _punish(FALSE_WEIGHTS, node, key, msg.sender, _parameters.weightsBps, _jailEnd(), trancheId);
    }

    // ---- openings ----

    /// @inheritdoc IFaults
    function challengeOpening(
        Receipt calldata receipt,
        bytes calldata signature,
        uint64 position,
        Side side,
        bytes32 trancheId,
        Receipt[] calldata later
    ) external nonReentrant returns (bytes32 challengeId) {
        address node = _signer(receipt, signature, _parameters.openingAge);
        bytes32 hash = receipt.hash();
        _checkPaidFor(hash, node, trancheId, later);
        if (position < receipt.posStart || position - receipt.posStart >= receipt.nPos) {
            revert PositionOutOfRange(position);
        }
        challengeId = challengeIdOf(hash, position, side);
        Challenge storage entry = _challenges[challengeId];
        if (entry.state != State.None) revert ChallengeExists(challengeId, entry.state);
        uint64 deadline = uint64(block.timestamp) + _parameters.responseTime;
        uint128 bond = _parameters.openingBond;
        entry.challenger = msg.sender;
        entry.deadline = deadline;
        entry.state = State.Open;
        entry.node = node;
        entry.openedAt = uint64(block.timestamp);
        entry.sessionId = receipt.sessionId;
        entry.position = position;
        entry.root = side == Side.Input ? receipt.inRoot : receipt.outRoot;
        entry.index = position - receipt.posStart;
        entry.size = receipt.nPos;
        entry.bond = bond;
        entry.trancheId = trancheId;
        emit OpeningChallenged(challengeId, node, msg.sender, hash, position, side, deadline);
        TOKEN.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @inheritdoc IFaults
    function open(bytes32 challengeId, bytes calldata row, bytes32[] calldata branch) external nonReentrant {
        Challenge storage entry = _openChallenge(challengeId);
        if (block.timestamp > entry.deadline) revert DeadlinePassed(challengeId, entry.deadline);
        if (row.length > MAX_ROW) revert RowTooLarge(MAX_ROW, row.length);
        bytes32 leaf = ReceiptLib.rowLeaf(entry.sessionId, entry.position, row);
        if (!Sha256Tree.verify(entry.root, leaf, entry.index, entry.size, branch)) revert OpeningInvalid(challengeId);
        entry.state = State.Answered;
        emit OpeningAnswered(challengeId, entry.node, row);
        TOKEN.safeTransfer(entry.node, entry.bond);
    }

    /// @inheritdoc IFaults
    function expireOpening(bytes32 challengeId) external nonReentrant returns (uint256 taken) {
        Challenge storage entry = _openChallenge(challengeId);
        if (block.timestamp <= entry.deadline) revert DeadlineNotPassed(challengeId, entry.deadline);
        (address challenger, address node, uint256 bond) = (entry.challenger, entry.node, entry.bond);
        bytes32 trancheId = entry.trancheId;
        bytes32 key = faultKey(WITHHELD_OPENING, node, bytes32(0));
        bool punished = entry.openedAt > punishedUntil[key];
        if (punished) entry.state = State.Expired;
        else delete _challenges[challengeId];
        emit OpeningExpired(challengeId, node, punished);
        if (punished) {
            uint256 bps = _parameters.openingBps;
            taken = _punish(WITHHELD_OPENING, node, key, challenger, bps, _jailEnd(), trancheId);
        }
        TOKEN.safeTransfer(challenger, bond);
    }

    /// @inheritdoc IFaults
    function setParameters(Parameters calldata parameters_) external onlyOwner {
        _setParameters(parameters_);
    }

    // ---- views ----

    /// @inheritdoc IFaults
    function parameters() external view returns (Parameters memory) {
        return _parameters;
    }

    /// @inheritdoc IFaults
    function challenge(bytes32 challengeId) external view returns (Challenge memory) {
        return _challenges[challengeId];
    }

    /// @inheritdoc IFaults
    function receiptHash(Receipt calldata receipt) external pure returns (bytes32) {
        return receipt.hash();
    }

    /// @inheritdoc IFaults
    function faultKey(bytes32 fault, address node, bytes32 evidence) public pure returns (bytes32) {
        return keccak256(abi.encode(fault, node, evidence));
    }

    /// @inheritdoc IFaults
    function challengeIdOf(bytes32 hash, uint64 position, Side side) public pure returns (bytes32) {
        return keccak256(abi.encode(hash, position, side));
    }

    // ---- internals ----

    /// @dev Takes all that a node has, for good, once for each key.
    function _putOut(
        bytes32 fault,
        address node,
        bytes32 evidence,
        Receipt calldata receipt,
        Payment calldata payment
    ) private returns (uint256 taken) {
        bytes32 key = faultKey(fault, node, evidence);
        if (punishedUntil[key] != 0) revert AlreadyPunished(key, punishedUntil[key]);
        return _punish(fault, node, key, msg.sender, BPS, FOR_GOOD, _paidFrom(payment, receipt, node));
    }

    /// @dev A node without stake, or one that is jailed for longer already, is punished all the same, as far as it goes:
    /// neither may stand in the way.
    /// @param trancheId whose payer is refunded; zero for nobody
    function _punish(
        bytes32 fault,
        address node,
        bytes32 key,
        address challenger,
        uint256 bps,
        uint64 until,
        bytes32 trancheId
    ) private returns (uint256 amount) {
        punishedUntil[key] = until;
        INodeRegistry.NodeView memory record = REGISTRY.nodeOf(node);
        amount = (record.stake + record.unbonding) * bps / BPS;
        // A reward is a part of what is taken, rounded as it is.
        // slither-disable-next-line divide-before-multiply
        uint256 reward = amount * _parameters.rewardBps / BPS;
        emit FaultPunished(node, fault, challenger, key, until, amount, reward);
        if (until > record.jailedUntil) REGISTRY.jail(node, until);
        if (amount > 0) _slash(fault, node, challenger, amount, reward, trancheId);
    }

    /// @dev Takes `amount` and pays out what is not to burn: everything is booked before any of it moves.
    function _slash(
        bytes32 fault,
        address node,
        address challenger,
        uint256 amount,
        uint256 reward,
        bytes32 trancheId
    ) private {
        (address client, uint256 refund) = _refund(trancheId, node, amount * REFUND_BPS / BPS);
        // `amount` is a part of what the registry just said there is, so that is what it takes.
        // slither-disable-next-line unused-return
        REGISTRY.slash(node, amount, address(this), reward + refund, fault);
        if (reward > 0) TOKEN.safeTransfer(challenger, reward);
        if (refund > 0) TOKEN.safeTransfer(client, refund);
    }

    /// @dev Books what a tranche's payer gets back: what the node kept of its payments, `most` at most.
    function _refund(bytes32 trancheId, address node, uint256 most)
        private
        returns (address client, uint256 refund)
    {
        if (trancheId == bytes32(0)) return (address(0), 0);
        IEscrow.Tranche memory tranche = ESCROW.tranche(trancheId);
        client = tranche.payer;
        uint256 claimed = ESCROW.claimed(trancheId, node);
        refund = REGISTRY.bookRefund(trancheId, node, claimed - claimed * tranche.feeBps / BPS, most);
        emit ClientRefunded(trancheId, node, client, refund);
    }

    function _setParameters(Parameters memory p) private {
        _checkBounds("maxAge", p.maxAge, MIN_DELAY, MAX_AGE);
        _checkBounds("openingAge", p.openingAge, MIN_DELAY, MAX_OPENING_AGE);
        _checkBounds("responseTime", p.responseTime, MIN_DELAY, MAX_RESPONSE_TIME);
        _checkBounds("jail", p.jail, MIN_DELAY, MAX_JAIL);
        _checkBounds("rewardBps", p.rewardBps, 0, MAX_REWARD_BPS);
        _checkBounds("weightsBps", p.weightsBps, MIN_WEIGHTS_BPS, BPS);
        _checkBounds("openingBps", p.openingBps, MIN_OPENING_BPS, MAX_OPENING_BPS);
        _checkBounds("openingBond", p.openingBond, 1, MAX_OPENING_BOND);
        _parameters = p;
        emit ParametersSet(p);
    }

    /// @dev The registered node that signed a receipt of this chain, not older than `maxAge`.
    function _signer(Receipt calldata receipt, bytes calldata signature, uint256 maxAge)
        private
        view
        returns (address node)
    {
        if (receipt.chainId != block.chainid) revert WrongChain(block.chainid, receipt.chainId);
        uint256 endedAt = receipt.tOut / 1000;
        if (endedAt + maxAge < block.timestamp) revert ReceiptTooOld(endedAt, block.timestamp - maxAge);
        node = receipt.signer(signature);
        if (REGISTRY.nodeOf(node).owner == address(0)) revert INodeRegistry.NotRegistered(node);
    }

    function _falseWeights(Receipt calldata receipt, uint256 version, Manifest calldata manifest)
        private
        view
        returns (bool)
    {
        bytes32 modelId = keccak256(bytes(manifest.name));
        IModelRegistry.ModelVersion memory model = MODELS.versionOf(modelId, version);
        if (model.manifestRoot != receipt.modelRoot) revert ModelMismatch(receipt.modelRoot, model.manifestRoot);
        bytes32 root = ManifestLib.root(manifest, model.blockRoots);
        if (root != model.manifestRoot) revert ManifestMismatch(model.manifestRoot, root);
        if (receipt.spanStart >= receipt.spanEnd || receipt.spanEnd > model.blockRoots.length) return true;
        if (receipt.weightRoot != Sha256Tree.root(model.blockRoots, receipt.spanStart, receipt.spanEnd)) return true;
        return receipt.tIn / 1000 >= model.publishedAt && !_publishedIn(modelId, receipt);
    }

    /// @dev Whether any version of the model has the receipt's manifest root and numeric class. All versions count, and
    /// only work begun after the version that is the evidence: no publication can convict nodes that serve already.
    function _publishedIn(bytes32 modelId, Receipt calldata receipt) private view returns (bool) {
        uint256 count = MODELS.versionCount(modelId);
        for (uint256 version = 1; version <= count; ++version) {
            // Our own registry. A name's owner can make this dear by publishing, but could as well publish the class.
            // slither-disable-next-line calls-loop
            IModelRegistry.ModelVersion memory model = MODELS.versionOf(modelId, version);
            if (model.manifestRoot != receipt.modelRoot) continue;
            for (uint256 i = 0; i < model.numericClasses.length; ++i) {
                if (model.numericClasses[i] == receipt.numericClass) return true;
            }
        }
        return false;
    }

    /// @dev Reverts unless the receipts lead from the head that `node` redeemed with back to `hash`.
    function _checkPaidFor(bytes32 hash, address node, bytes32 trancheId, Receipt[] calldata later) private view {
        if (later.length > MAX_CHAIN) revert ChainTooLong(MAX_CHAIN, later.length);
        bytes32 expected = ESCROW.receiptHead(trancheId, node);
        if (expected == bytes32(0)) revert NotRedeemed(trancheId, node);
        for (uint256 i = 0; i < later.length; ++i) {
            bytes32 found = later[i].hash();
            if (found != expected) revert ChainBroken(expected, found);
            expected = later[i].prevReceiptHash;
        }
        if (hash != expected) revert ChainBroken(expected, hash);
    }

    /// @dev The payment's tranche if the node redeemed on it with a receipt of the session that `receipt` is of; else 0.
    function _paidFrom(Payment calldata payment, Receipt calldata receipt, address node)
        private
        view
        returns (bytes32 trancheId)
    {
        trancheId = payment.trancheId;
        Receipt calldata head = payment.head;
        bool holds = head.sessionId == receipt.sessionId && head.clientNonce == receipt.clientNonce
            && head.hash() == ESCROW.receiptHead(trancheId, node);
        if (!holds) trancheId = bytes32(0);
    }

    function _openChallenge(bytes32 challengeId) private view returns (Challenge storage entry) {
        entry = _challenges[challengeId];
        if (entry.state != State.Open) revert ChallengeNotOpen(challengeId, entry.state);
    }

    /// @dev Whether two receipts of one signer continue one receipt of one session differently.
    function _forks(Receipt calldata a, Receipt calldata b) private pure returns (bool) {
        return a.sessionId == b.sessionId && a.clientNonce == b.clientNonce
            && a.prevReceiptHash == b.prevReceiptHash && a.hash() != b.hash();
    }

    /// @dev Whether `receipt` names `upstream` as its input's origin and yet began from something else.
    function _breaks(Receipt calldata receipt, Receipt calldata upstream) private pure returns (bool) {
        return receipt.upstreamReceiptHash == upstream.hash() && receipt.chainId == upstream.chainId
            && receipt.sessionId == upstream.sessionId && receipt.posStart == upstream.posStart
            && receipt.nPos == upstream.nPos && receipt.spanStart == upstream.spanEnd
            && receipt.inRoot != upstream.outRoot;
    }

    function _jailEnd() private view returns (uint64) {
        return uint64(block.timestamp) + _parameters.jail;
    }

    function _checkBounds(bytes32 name, uint256 value, uint256 lowest, uint256 highest) private pure {
        if (value < lowest || value > highest) revert OutOfBounds(name, value, lowest, highest);
    }

    // slither-disable-end timestamp
}
