// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Devnet} from "./libraries/Devnet.sol";
import {Locks, StakeLocks} from "./libraries/StakeLocks.sol";

/// @title Registry of nodes and their stake
/// @notice See INodeRegistry.
contract NodeRegistry is INodeRegistry, AccessControl, ReentrancyGuard {
    using SafeERC20 for IERC20;
    using StakeLocks for Locks;

    /// @dev Amounts fit uint96: Nectar's supply is below 2**80 * 1e6 (see NectarToken.MAX_SUPPLY).
    struct Node {
        address owner;
        uint96 stake;
        uint96 unbonding;
        uint64 unbondingAt;
        uint64 jailedUntil;
        bool earnsForOwner;
        Locks locks;
        bytes peerId;
    }

    bytes32 public constant JAILER_ROLE = keccak256("JAILER_ROLE");
    bytes32 public constant SLASHER_ROLE = keccak256("SLASHER_ROLE");
    /// @notice May lock stake. Once given it cannot be taken away: governance must not be able to stop redemptions.
    bytes32 public constant ESCROW_ROLE = keccak256("ESCROW_ROLE");

    uint256 public constant MAX_MIN_STAKE = 1_000_000 * 1e18;
    uint64 public constant MAX_UNBONDING_DELAY = 60 days;
    uint64 public constant MAX_JAIL = 60 days;
    uint64 public constant MAX_LOCK = 30 days;
    uint256 public constant MAX_PEER_ID = 64;
    /// @notice The most of a slash that may be paid to anyone; the rest is burned.
    uint256 public constant MAX_REWARD_BPS = 5_000;
    /// @notice Longer than the longest audit window, so that a slash finds the stake; a second on a devnet.
    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-next-line naming-convention
    uint64 public immutable MIN_UNBONDING_DELAY;
    // slither-disable-next-line naming-convention
    IERC20 public immutable TOKEN;

    /// @inheritdoc INodeRegistry
    uint256 public minStake;
    /// @inheritdoc INodeRegistry
    uint64 public unbondingDelay;
    /// @inheritdoc INodeRegistry
    mapping(bytes32 trancheId => mapping(address node => uint256)) public refunded;
    /// @inheritdoc INodeRegistry
    mapping(address node => address owner) public acceptedOwner;
    mapping(address node => Node) private _nodes;

    /// @param token Nectar
    /// @param admin gives the roles and sets the parameters: the timelock, once set up
    constructor(IERC20 token, address admin, uint256 minStake_, uint64 unbondingDelay_) {
        TOKEN = token;
        MIN_UNBONDING_DELAY = Devnet.isDevnet() ? 1 : 14 days;
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _setMinStake(minStake_);
        _setUnbondingDelay(unbondingDelay_);
    }

    // Every delay here is days long and compared with the block's time, which a proposer moves by seconds at most.
    // slither-disable-start timestamp

    /// @inheritdoc INodeRegistry
    function register(bytes calldata peerId, address owner, uint256 stake) external nonReentrant {
        _register(msg.sender, peerId, owner, stake);
    }

    /// @inheritdoc INodeRegistry
    function acceptOwner(address owner) external {
        acceptedOwner[msg.sender] = owner;
        emit OwnerAccepted(msg.sender, owner);
    }

    /// @inheritdoc INodeRegistry
    function registerFor(address node, bytes calldata peerId, uint256 stake) external nonReentrant {
        if (acceptedOwner[node] != msg.sender) revert OwnerNotAccepted(node, msg.sender);
        _nodes[node].earnsForOwner = true;
        _register(node, peerId, msg.sender, stake);
    }

    /// @inheritdoc INodeRegistry
    function updatePeerId(bytes calldata peerId) external {
        Node storage node = _registered(msg.sender);
        _checkPeerId(peerId);
        node.peerId = peerId;
        emit PeerIdUpdated(msg.sender, peerId);
    }

    /// @inheritdoc INodeRegistry
    function addStake(address node_, uint256 amount) external nonReentrant {
        Node storage node = _registered(node_);
        if (amount == 0) revert StakeTooSmall(1, 0);
        emit StakeAdded(node_, msg.sender, amount);
        _stake(node, amount);
    }

    /// @inheritdoc INodeRegistry
    function beginUnstake(address node_, uint256 amount) external {
        Node storage node = _registered(node_);
        if (msg.sender != node.owner) revert NotOwner(node_, msg.sender);
        if (amount == 0) revert StakeTooSmall(1, 0);
        if (amount > node.stake) revert StakeInsufficient(node.stake, amount);
        uint64 at = uint64(block.timestamp) + unbondingDelay;
        node.stake -= uint96(amount);
        node.unbonding += uint96(amount);
        node.unbondingAt = at;
        emit UnstakeBegun(node_, amount, at);
    }

    /// @inheritdoc INodeRegistry
    function withdrawStake(address node_) external nonReentrant returns (uint256 amount) {
        Node storage node = _registered(node_);
        address owner = node.owner;
        if (msg.sender != owner && msg.sender != node_) revert NotOwner(node_, msg.sender);
        uint256 unbonding = node.unbonding;
        if (unbonding == 0) revert NothingUnbonding(node_);
        if (block.timestamp < node.unbondingAt) revert StillUnbonding(node.unbondingAt);
        (uint256 locked, uint64 until) = node.locks.lockedAt(block.timestamp);
        amount = Math.min(unbonding, Math.saturatingSub(node.stake + unbonding, locked));
        // Amounts from our own books, not balances that a stranger could nudge.
        // slither-disable-start incorrect-equality
        if (amount == 0) revert StakeStillLocked(locked, until);
        node.unbonding = uint96(unbonding - amount);
        if (amount == unbonding) node.unbondingAt = 0;
        // slither-disable-end incorrect-equality
        emit StakeWithdrawn(node_, owner, amount);
        TOKEN.safeTransfer(owner, amount);
    }

    /// @inheritdoc INodeRegistry
    function jail(address node_, uint64 until) external onlyRole(JAILER_ROLE) {
        Node storage node = _registered(node_);
        uint64 latest = uint64(block.timestamp) + MAX_JAIL;
        bool inRange = until > block.timestamp && until <= latest;
        if (!inRange && until != type(uint64).max) revert OutOfBounds("until", until, block.timestamp + 1, latest);
        if (until <= node.jailedUntil) revert Jailed(node_, node.jailedUntil);
        node.jailedUntil = until;
        emit NodeJailed(node_, until);
    }

    /// @inheritdoc INodeRegistry
    function unjail(address node_) external onlyRole(JAILER_ROLE) {
        Node storage node = _registered(node_);
        if (!_jailed(node)) revert NotJailed(node_);
        if (node.jailedUntil == type(uint64).max) revert Jailed(node_, node.jailedUntil);
        node.jailedUntil = 0;
        emit NodeUnjailed(node_);
    }

    /// @inheritdoc INodeRegistry
    function slash(address node_, uint256 amount, address recipient, uint256 reward, bytes32 fault)
        external
        onlyRole(SLASHER_ROLE)
        nonReentrant
        returns (uint256 taken)
    {
        Node storage node = _registered(node_);
        uint256 fromStake = Math.min(amount, node.stake);
        uint256 fromUnbonding = Math.min(amount - fromStake, node.unbonding);
        taken = fromStake + fromUnbonding;
        if (taken == 0) revert StakeInsufficient(0, amount);
        uint256 highest = taken * MAX_REWARD_BPS / 10_000;
        if (reward > highest) revert RewardTooLarge(highest, reward);
        node.stake -= uint96(fromStake);
        node.unbonding -= uint96(fromUnbonding);
        if (node.unbonding == 0) node.unbondingAt = 0;
        emit NodeSlashed(node_, taken, recipient, reward, fault);
        if (reward > 0) TOKEN.safeTransfer(recipient, reward);
        ERC20Burnable(address(TOKEN)).burn(taken - reward);
    }

    /// @inheritdoc INodeRegistry
    function bookRefund(bytes32 trancheId, address node, uint256 paid, uint256 most)
        external
        onlyRole(SLASHER_ROLE)
        returns (uint256 refund)
    {
        uint256 before = refunded[trancheId][node];
        refund = Math.min(most, Math.saturatingSub(paid, before));
        refunded[trancheId][node] = before + refund;
        emit RefundBooked(trancheId, node, refund);
    }

    /// @inheritdoc INodeRegistry
    function lockStake(address node_, uint256 amount, uint64 until)
        external
        onlyRole(ESCROW_ROLE)
        returns (uint256 locked)
    {
        uint64 latest = uint64(block.timestamp) + MAX_LOCK;
        if (until > latest) revert OutOfBounds("until", until, block.timestamp, latest);
        Node storage node = _nodes[node_];
        Locks memory locks = node.locks;
        // Only the amount matters here.
        // slither-disable-next-line unused-return
        (uint256 already,) = locks.lockedAt(block.timestamp);
        uint256 all = uint256(node.stake) + node.unbonding;
        locked = Math.min(amount, Math.saturatingSub(all, already));
        // An amount from our own books, not a balance that a stranger could nudge.
        // slither-disable-next-line incorrect-equality
        if (locked == 0 || until <= block.timestamp) return 0;
        node.locks = locks.add(uint96(locked), uint32(until), block.timestamp);
        emit StakeLocked(node_, locked, until);
    }

    /// @inheritdoc INodeRegistry
    function setMinStake(uint256 minStake_) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _setMinStake(minStake_);
    }

    /// @inheritdoc INodeRegistry
    function setUnbondingDelay(uint64 unbondingDelay_) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _setUnbondingDelay(unbondingDelay_);
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(address node_) external view returns (NodeView memory) {
        Node storage node = _nodes[node_];
        (uint256 locked, uint64 until) = node.locks.lockedAt(block.timestamp);
        return NodeView({
            owner: node.owner,
            peerId: node.peerId,
            stake: node.stake,
            unbonding: node.unbonding,
            unbondingAt: node.unbondingAt,
            locked: locked,
            lockedUntil: until,
            jailedUntil: node.jailedUntil,
            active: isActive(node_)
        });
    }

    /// @inheritdoc INodeRegistry
    function payoutOf(address node_) external view returns (address) {
        Node storage node = _nodes[node_];
        return node.earnsForOwner ? node.owner : address(0);
    }

    /// @inheritdoc INodeRegistry
    function activeStake(address node) external view returns (uint256) {
        return _nodes[node].stake;
    }

    /// @inheritdoc INodeRegistry
    function isActive(address node_) public view returns (bool) {
        Node storage node = _nodes[node_];
        return node.owner != address(0) && node.stake >= minStake && !_jailed(node);
    }

    /// @dev See `ESCROW_ROLE`.
    function _revokeRole(bytes32 role, address account) internal override returns (bool) {
        if (role == ESCROW_ROLE) revert RoleIsPermanent(role);
        return super._revokeRole(role, account);
    }

    /// @dev The stake is the caller's, which is the node or its owner.
    function _register(address node_, bytes calldata peerId, address owner, uint256 stake) private {
        Node storage node = _nodes[node_];
        if (node.owner != address(0)) revert AlreadyRegistered(node_);
        if (owner == address(0)) revert OwnerIsZero();
        if (stake < minStake) revert StakeTooSmall(minStake, stake);
        _checkPeerId(peerId);
        (node.owner, node.peerId) = (owner, peerId);
        emit NodeRegistered(node_, owner, peerId, stake);
        _stake(node, stake);
    }

    function _stake(Node storage node, uint256 amount) private {
        if (amount > type(uint96).max) revert StakeInsufficient(type(uint96).max, amount);
        node.stake += uint96(amount);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
    }

    function _setMinStake(uint256 minStake_) private {
        if (minStake_ == 0 || minStake_ > MAX_MIN_STAKE) revert OutOfBounds("minStake", minStake_, 1, MAX_MIN_STAKE);
        minStake = minStake_;
        emit MinStakeSet(minStake_);
    }

    function _setUnbondingDelay(uint64 delay) private {
        if (delay < MIN_UNBONDING_DELAY || delay > MAX_UNBONDING_DELAY) {
            revert OutOfBounds("unbondingDelay", delay, MIN_UNBONDING_DELAY, MAX_UNBONDING_DELAY);
        }
        unbondingDelay = delay;
        emit UnbondingDelaySet(delay);
    }

    function _registered(address node_) private view returns (Node storage node) {
        node = _nodes[node_];
        if (node.owner == address(0)) revert NotRegistered(node_);
    }

    function _jailed(Node storage node) private view returns (bool) {
        return node.jailedUntil >= block.timestamp;
    }

    function _checkPeerId(bytes calldata peerId) private pure {
        if (peerId.length == 0 || peerId.length > MAX_PEER_ID) revert PeerIdLengthInvalid(peerId.length);
    }

    // slither-disable-end timestamp
}
