// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Who serves, who owns the stake behind it, and what that stake answers for
/// @notice A node is named by its hot key, the account that is paid and that signs receipts. Its stake belongs to
/// `owner`, leaves only to `owner`, and only after the unbonding delay. Stake that is unbonding can still be slashed.
interface INodeRegistry {
    /// @notice One node, as the registry sees it now.
    /// @param owner the account the stake returns to; zero when the node never registered
    /// @param peerId the node's libp2p peer id, raw multihash bytes
    /// @param stake active stake
    /// @param unbonding stake on its way out, still slashable
    /// @param unbondingAt when `unbonding` may be withdrawn (Unix seconds), 0 when nothing is unbonding
    /// @param locked stake that backs work still open to audit and cannot be withdrawn yet
    /// @param lockedUntil when the last of `locked` is released, 0 when nothing is locked
    /// @param jailedUntil the node counts as inactive up to and including this second
    /// @param active registered, not jailed, and staked with at least the minimum
    struct NodeView {
        address owner;
        bytes peerId;
        uint256 stake;
        uint256 unbonding;
        uint64 unbondingAt;
        uint256 locked;
        uint64 lockedUntil;
        uint64 jailedUntil;
        bool active;
    }

    event NodeRegistered(address indexed node, address indexed owner, bytes peerId, uint256 stake);
    /// @notice `node` lets `owner` register it; the zero address takes that back.
    event OwnerAccepted(address indexed node, address indexed owner);
    event PeerIdUpdated(address indexed node, bytes peerId);
    event StakeAdded(address indexed node, address indexed from, uint256 amount);
    event UnstakeBegun(address indexed node, uint256 amount, uint64 withdrawableAt);
    event StakeWithdrawn(address indexed node, address indexed owner, uint256 amount);
    event StakeLocked(address indexed node, uint256 amount, uint64 until);
    event NodeJailed(address indexed node, uint64 until);
    event NodeUnjailed(address indexed node);
    event NodeSlashed(
        address indexed node, uint256 amount, address indexed recipient, uint256 reward, bytes32 indexed fault
    );
    /// @notice Of what `node` claimed from the tranche, `amount` more is paid back to the tranche's payer.
    event RefundBooked(bytes32 indexed trancheId, address indexed node, uint256 amount);
    event MinStakeSet(uint256 minStake);
    event UnbondingDelaySet(uint64 unbondingDelay);

    error AlreadyRegistered(address node);
    error NotRegistered(address node);
    error NotOwner(address node, address account);
    error OwnerIsZero();
    error OwnerNotAccepted(address node, address account);
    error PeerIdLengthInvalid(uint256 length);
    error StakeTooSmall(uint256 minimum, uint256 offered);
    error StakeInsufficient(uint256 available, uint256 needed);
    error NothingUnbonding(address node);
    error StillUnbonding(uint64 withdrawableAt);
    error StakeStillLocked(uint256 locked, uint64 until);
    error Jailed(address node, uint64 until);
    error NotJailed(address node);
    error RewardTooLarge(uint256 highest, uint256 offered);
    error RoleIsPermanent(bytes32 role);
    /// @notice A parameter outside its hard-coded bounds; governance cannot widen them.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);

    /// @notice Registers the caller as a node and stakes `stake`, pulled from the caller by allowance.
    /// @param peerId 1 to 64 bytes
    /// @param owner whom the stake belongs to; may be the caller
    /// @param stake at least `minStake`
    function register(bytes calldata peerId, address owner, uint256 stake) external;

    /// @notice Lets `owner` register the calling node, with which all that the node earns becomes the owner's for good.
    /// @dev Zero takes it back. Of no effect on a node that is registered.
    function acceptOwner(address owner) external;

    /// @notice Registers `node`, which has accepted the caller as its owner, and stakes `stake`, pulled from the caller.
    /// @dev What the node earned and will earn in the escrow goes to the caller only (see `payoutOf`).
    function registerFor(address node, bytes calldata peerId, uint256 stake) external;

    /// @notice Announces a new peer id for the calling node.
    function updatePeerId(bytes calldata peerId) external;

    /// @notice Adds to a node's active stake, pulled from the caller. The stake belongs to the node's owner.
    function addStake(address node, uint256 amount) external;

    /// @notice Starts the unbonding of part of a node's active stake. Only the owner may.
    /// @dev A second call adds to what is unbonding and restarts its delay.
    function beginUnstake(address node, uint256 amount) external;

    /// @notice Sends to the owner what has unbonded and is not locked. The owner or the node may call.
    /// @return amount what was sent
    function withdrawStake(address node) external returns (uint256 amount);

    /// @notice Takes a node out of service until `until`; a node jailed for longer stays so. `JAILER_ROLE`.
    /// @param until at most `MAX_JAIL` ahead, or `type(uint64).max` for good (tombstone)
    function jail(address node, uint64 until) external;

    /// @notice Ends a jailing early, except one for good. `JAILER_ROLE`.
    function unjail(address node) external;

    /// @notice Takes up to `amount` of a node's stake, active first, then unbonding. `SLASHER_ROLE`.
    /// @param recipient who gets `reward` (a harmed client, a challenger, a jury's purse)
    /// @param reward at most half of what is taken; the rest is burned
    /// @param fault what it was for, an identifier for the log
    /// @return taken what was there to take
    function slash(address node, uint256 amount, address recipient, uint256 reward, bytes32 fault)
        external
        returns (uint256 taken);

    /// @notice Books that a tranche's payer gets back, out of a slash, what it paid a node. One book for all who slash, so
    /// that no payment is refunded twice. `SLASHER_ROLE`; the caller pays it out.
    /// @param paid what the node was paid from the tranche, as the escrow says
    /// @param most what the caller would pay at most
    /// @return refund `most`, or what of `paid` was not refunded before if that is less
    function bookRefund(bytes32 trancheId, address node, uint256 paid, uint256 most) external returns (uint256 refund);

    /// @notice Locks `amount` of a node's stake against withdrawal at least until `until`. `ESCROW_ROLE`.
    /// @dev Never reverts for want of a node or of stake: a payee that never registered is paid all the same.
    /// Two lock entries a node are kept; a lock may last up to twice as long as asked, never less.
    /// @return locked what the call added: less than `amount` when the node has less that is not locked yet
    function lockStake(address node, uint256 amount, uint64 until) external returns (uint256 locked);

    /// @notice Sets the least stake of an active node. Governance only, within bounds.
    function setMinStake(uint256 minStake_) external;

    /// @notice Sets the unbonding delay of unstakes begun from now on. Governance only, within bounds.
    function setUnbondingDelay(uint64 unbondingDelay_) external;

    /// @notice Everything about a node; all zero when it never registered.
    function nodeOf(address node) external view returns (NodeView memory);

    /// @notice The only account that may be paid what a node earns: the owner, where the owner registered it; zero where the
    /// node registered itself or not at all, and says itself where its earnings go.
    function payoutOf(address node) external view returns (address);

    /// @notice Whom a node lets register it.
    function acceptedOwner(address node) external view returns (address);

    /// @notice A node's active stake.
    function activeStake(address node) external view returns (uint256);

    /// @notice Whether a node is registered, not jailed, and staked with at least the minimum.
    function isActive(address node) external view returns (bool);

    /// @notice What the payer of a tranche was refunded so far of what a node was paid from it.
    function refunded(bytes32 trancheId, address node) external view returns (uint256);

    function minStake() external view returns (uint256);

    function unbondingDelay() external view returns (uint64);
}
