// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {ICooperative} from "../interfaces/ICooperative.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Devnet} from "./libraries/Devnet.sol";

/// @title Several owners' stake behind one node, and what it brings, by fixed shares
/// @notice See ICooperative.
contract Cooperative is ICooperative, ReentrancyGuard {
    using SafeERC20 for IERC20;

    struct Member {
        uint96 shares;
        bool joined;
        uint256 withdrawn;
    }

    uint256 public constant MAX_MEMBERS = 100;
    uint64 public constant MAX_NOTICE = 30 days;
    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-start naming-convention
    /// @notice A day, so that members hear of it; a second on a devnet.
    uint64 public immutable MIN_NOTICE;
    IERC20 public immutable TOKEN;
    INodeRegistry public immutable REGISTRY;
    IEscrow public immutable ESCROW;
    /// @inheritdoc ICooperative
    address public immutable node;
    /// @inheritdoc ICooperative
    uint96 public immutable perShare;
    /// @inheritdoc ICooperative
    uint64 public immutable notice;
    /// @inheritdoc ICooperative
    uint256 public immutable totalShares;
    // slither-disable-end naming-convention

    /// @inheritdoc ICooperative
    uint256 public deposited;
    /// @inheritdoc ICooperative
    bool public launched;
    /// @inheritdoc ICooperative
    uint64 public dissolvableAt;
    uint256 private _withdrawn;
    address[] private _members;
    mapping(address account => Member) private _byAccount;

    /// @param token Nectar
    /// @param registry where the node is registered and the stake lies
    /// @param escrow where the node is paid
    constructor(IERC20 token, INodeRegistry registry, IEscrow escrow, Terms memory terms) {
        MIN_NOTICE = Devnet.isDevnet() ? 1 : 1 days;
        (TOKEN, REGISTRY, ESCROW) = (token, registry, escrow);
        if (terms.node == address(0)) revert NotNode(terms.node);
        uint256 count = terms.members.length;
        if (count != terms.shares.length) revert LengthsDiffer(count, terms.shares.length);
        _checkBounds("members", count, 1, MAX_MEMBERS);
        _checkBounds("notice", terms.notice, MIN_NOTICE, MAX_NOTICE);
        uint256 total = 0;
        for (uint256 i = 0; i < count; ++i) {
            (address account, uint96 shares) = (terms.members[i], terms.shares[i]);
            bool taken = _byAccount[account].shares != 0;
            if (account == address(0) || account == address(this) || shares == 0 || taken) {
                revert MemberInvalid(account, shares);
            }
            _byAccount[account].shares = shares;
            total += shares;
        }
        // The registry counts stake in 96 bits.
        _checkBounds("stake", total * terms.perShare, registry.minStake(), type(uint96).max);
        (node, perShare, notice, totalShares) = (terms.node, terms.perShare, terms.notice, total);
        _members = terms.members;
    }

    // ---- before launch ----

    /// @inheritdoc ICooperative
    function join() external nonReentrant {
        Member storage member = _member();
        if (launched) revert AlreadyLaunched();
        if (member.joined) revert AlreadyJoined(msg.sender);
        uint256 amount = uint256(member.shares) * perShare;
        member.joined = true;
        deposited += amount;
        emit Joined(msg.sender, amount);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc ICooperative
    function leave() external nonReentrant {
        Member storage member = _member();
        if (launched) revert AlreadyLaunched();
        if (!member.joined) revert NotJoined(msg.sender);
        uint256 amount = uint256(member.shares) * perShare;
        member.joined = false;
        deposited -= amount;
        emit Left(msg.sender, amount);
        TOKEN.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc ICooperative
    function launch(bytes calldata peerId) external nonReentrant {
        if (msg.sender != node) revert NotNode(msg.sender);
        if (launched) revert AlreadyLaunched();
        uint256 stake = deposited;
        uint256 needed = totalShares * perShare;
        if (stake != needed) revert NotAllJoined(stake, needed);
        (launched, deposited) = (true, 0);
        emit Launched(node, stake);
        TOKEN.forceApprove(address(REGISTRY), stake);
        REGISTRY.registerFor(node, peerId, stake);
    }

    // ---- money in ----

    /// @inheritdoc ICooperative
    function collect() external nonReentrant returns (uint256 amount) {
        _checkLaunched();
        if (ESCROW.payeeBalance(node) > 0) amount = ESCROW.withdrawPayeeFor(node);
    }

    /// @inheritdoc ICooperative
    function reclaimStake() external nonReentrant returns (uint256 amount) {
        _checkLaunched();
        return REGISTRY.withdrawStake(node);
    }

    // ---- money out ----

    /// @inheritdoc ICooperative
    function withdraw() external nonReentrant returns (uint256 amount) {
        Member storage member = _member();
        amount = _due(member);
        // An amount by our own books: tokens that a stranger sends only raise it.
        // slither-disable-next-line incorrect-equality
        if (amount == 0) revert NothingDue(msg.sender);
        member.withdrawn += amount;
        _withdrawn += amount;
        emit Withdrawn(msg.sender, amount);
        TOKEN.safeTransfer(msg.sender, amount);
    }

    // Notice is at least a day and compared with the block's time, which a proposer moves by seconds at most.
    // slither-disable-start timestamp

    /// @inheritdoc ICooperative
    function giveNotice() external {
        _member();
        _checkLaunched();
        if (dissolvableAt != 0) revert NoticeAlreadyGiven(dissolvableAt);
        dissolvableAt = uint64(block.timestamp) + notice;
        emit NoticeGiven(msg.sender, dissolvableAt);
    }

    /// @inheritdoc ICooperative
    function dissolve() external nonReentrant {
        uint64 at = dissolvableAt;
        if (at == 0 || block.timestamp < at) revert NoticeNotOver(at);
        INodeRegistry.NodeView memory record = REGISTRY.nodeOf(node);
        if (record.unbonding != 0) revert StakeStillUnbonding(record.unbonding);
        emit Dissolved(msg.sender, record.stake);
        REGISTRY.beginUnstake(node, record.stake);
    }

    // slither-disable-end timestamp

    // ---- views ----

    /// @inheritdoc ICooperative
    function members() external view returns (address[] memory) {
        return _members;
    }

    /// @inheritdoc ICooperative
    function memberOf(address account) external view returns (MemberView memory) {
        Member storage member = _byAccount[account];
        return MemberView(member.shares, member.joined, member.withdrawn, _due(member));
    }

    function _member() private view returns (Member storage member) {
        member = _byAccount[msg.sender];
        if (member.shares == 0) revert NotMember(msg.sender);
    }

    /// @dev All that ever came in is what is here and what went out; before launch that is deposits, which are nobody's due.
    function _due(Member storage member) private view returns (uint256) {
        if (!launched) return 0;
        uint256 received = TOKEN.balanceOf(address(this)) + _withdrawn;
        return Math.mulDiv(received, member.shares, totalShares) - member.withdrawn;
    }

    function _checkLaunched() private view {
        if (!launched) revert NotLaunched();
    }

    function _checkBounds(bytes32 name, uint256 value, uint256 lowest, uint256 highest) private pure {
        if (value < lowest || value > highest) revert OutOfBounds(name, value, lowest, highest);
    }
}
