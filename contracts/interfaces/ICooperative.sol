// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Several owners' stake behind one node, and what it brings, by fixed shares
/// @notice Members and shares are set at creation. Each member deposits `perShare` for each of its shares; when all have,
/// the node's key launches: everything is staked and the node registered, owned by this contract, which alone can be
/// paid what the node earns. From then on every token that comes in, earnings and returned stake alike, is divided by
/// shares; a slash makes less come back, for each member alike. Until launch, each member may leave with its deposit.
/// @dev Member m is due `floor(received * shares / totalShares) - withdrawn`, over all that ever came in: what rounding
/// holds back today is in the next payment.
interface ICooperative {
    /// @notice What a cooperative is created with.
    /// @param node the operator's hot key, which serves and signs
    /// @param members each once, at most `MAX_MEMBERS`
    /// @param shares of each member, at least 1
    /// @param perShare base units to deposit for each share
    /// @param notice seconds from notice to the end of the pool, within bounds
    struct Terms {
        address node;
        address[] members;
        uint96[] shares;
        uint96 perShare;
        uint64 notice;
    }

    /// @notice A member as the contract sees it now.
    /// @param joined whether its deposit is in; stays true after launch
    /// @param withdrawn what it was paid since launch
    /// @param due what it can withdraw now, without what `collect` would bring in
    struct MemberView {
        uint96 shares;
        bool joined;
        uint256 withdrawn;
        uint256 due;
    }

    event Joined(address indexed member, uint256 deposit);
    event Left(address indexed member, uint256 deposit);
    event Launched(address indexed node, uint256 stake);
    event Withdrawn(address indexed member, uint256 amount);
    event NoticeGiven(address indexed member, uint64 dissolvableAt);
    event Dissolved(address indexed by, uint256 stake);

    error NotMember(address account);
    error NotNode(address account);
    error MemberInvalid(address member, uint96 shares);
    error LengthsDiffer(uint256 members, uint256 shares);
    error AlreadyJoined(address member);
    error NotJoined(address member);
    error NotAllJoined(uint256 deposited, uint256 needed);
    error AlreadyLaunched();
    error NotLaunched();
    error NothingDue(address member);
    error NoticeAlreadyGiven(uint64 dissolvableAt);
    error NoticeNotOver(uint64 dissolvableAt);
    error StakeStillUnbonding(uint256 amount);
    /// @notice A parameter outside its hard-coded bounds.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);

    /// @notice Deposits the caller's part of the stake, pulled by allowance. Members only, before launch.
    function join() external;

    /// @notice Returns the caller's deposit. Before launch only.
    function leave() external;

    /// @notice Stakes all deposits and registers the calling node, which must have accepted this contract as its owner.
    /// @param peerId the node's libp2p peer id, 1 to 64 bytes
    function launch(bytes calldata peerId) external;

    /// @notice Brings in what the node has earned, if anything. Anyone may call.
    /// @return amount what came in
    function collect() external returns (uint256 amount);

    /// @notice Brings in stake that has finished unbonding. Anyone may call.
    /// @return amount what came in
    function reclaimStake() external returns (uint256 amount);

    /// @notice Pays the caller all that it is due.
    function withdraw() external returns (uint256 amount);

    /// @notice Any member may have the pool end: `notice` seconds from now anyone may dissolve it. Cannot be taken back.
    function giveNotice() external;

    /// @notice Begins to unbond all of the node's stake, once notice is over. Anyone may call.
    /// @dev While stake unbonds it does nothing: a stranger who adds to the stake cannot have the delay begin again.
    function dissolve() external;

    function node() external view returns (address);

    function perShare() external view returns (uint96);

    /// @notice Seconds from `giveNotice` to `dissolve`.
    function notice() external view returns (uint64);

    function totalShares() external view returns (uint256);

    /// @notice What members have deposited and not staked yet.
    function deposited() external view returns (uint256);

    function launched() external view returns (bool);

    /// @notice When the pool may be dissolved; 0 without notice.
    function dissolvableAt() external view returns (uint64);

    function members() external view returns (address[] memory);

    /// @notice All zero for who is no member.
    function memberOf(address account) external view returns (MemberView memory);
}
