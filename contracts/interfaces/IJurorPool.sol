// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title The jurors' stake
/// @notice A juror is named by its hot key, which votes. Its stake belongs to `owner`, leaves only to `owner`, only after
/// the unbonding delay, and never while it stands behind a seat. The jury (`Disputes`) freezes, draws, locks and penalises.
interface IJurorPool {
    /// @notice One juror.
    /// @param owner the account the stake returns to; zero when the account never joined
    /// @param stake active stake, the juror's weight in draws to come
    /// @param unbonding stake on its way out; still answers for seats drawn from an earlier snapshot
    /// @param locked how much of both stands behind seats
    /// @param unbondingAt when `unbonding` may be withdrawn (Unix seconds), 0 when nothing is unbonding
    /// @param leaf the juror's place in the stake tree; jurors keep it for good
    struct Juror {
        address owner;
        uint96 stake;
        uint96 unbonding;
        uint96 locked;
        uint32 unbondingAt;
        uint32 leaf;
    }

    event JurorJoined(address indexed juror, address indexed owner, uint32 leaf);
    event JurorStakeAdded(address indexed juror, address indexed from, uint256 amount);
    event JurorLeaving(address indexed juror, uint256 amount, uint32 withdrawableAt);
    event JurorStakeWithdrawn(address indexed juror, address indexed owner, uint256 amount);
    event JurorLocked(address indexed juror, uint256 amount);
    event JurorReleased(address indexed juror, uint256 amount, uint256 penalty);
    event Forfeited(uint256 amount);
    event MinStakeSet(uint256 minStake);

    error AddressIsZero();
    error AlreadyJoined(address juror);
    error NotAJuror(address account);
    error NotJurorsOwner(address juror, address account);
    /// @notice A juror's active stake is nothing or at least the minimum.
    error JurorStakeTooSmall(uint256 minimum, uint256 offered);
    error JurorStakeInsufficient(uint256 available, uint256 needed);
    error NothingUnbonding(address juror);
    error StillUnbonding(uint32 withdrawableAt);
    error StakeBehindSeats(uint256 locked);
    error NotDisputes(address account);
    /// @notice A parameter outside its hard-coded bounds; governance cannot widen them.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);

    /// @notice Makes the caller a juror with `amount` of its tokens at stake for `owner`. Once; the owner is for good.
    function join(address owner, uint96 amount) external;

    /// @notice Adds to a juror's stake, pulled from the caller. It belongs to the juror's owner.
    function addStake(address juror, uint96 amount) external;

    /// @notice Starts the unbonding of part of a juror's stake: all of it, or so much that the minimum stays. Owner only.
    /// @dev A second call adds to what is unbonding and restarts its delay.
    function beginLeave(address juror, uint96 amount) external;

    /// @notice Sends to the owner what has unbonded and does not stand behind a seat. The owner or the juror may call.
    function withdrawStake(address juror) external returns (uint256 amount);

    /// @notice Freezes the stakes as they are now. `Disputes` only, as all that follows.
    /// @return moment what to draw from
    /// @return leaves how many jurors ever joined so far
    function freeze() external returns (uint64 moment, uint32 leaves);

    /// @notice Locks `seatStake` for each seat, or what a juror has free if that is less.
    /// @return locked by juror, in order
    function lock(address[] calldata jurors, uint16[] calldata seats, uint96 seatStake)
        external
        returns (uint96[] memory locked);

    /// @notice Pays out what jurors are going to lose when they are released. It is locked until then.
    function forfeit(uint256 amount) external;

    /// @notice Unlocks `locked` of a juror's stake and takes `penalty` of it, which `forfeit` has paid out.
    /// @return owner the juror's
    function release(address juror, uint96 locked, uint96 penalty) external returns (address owner);

    /// @notice Sets the least active stake.
    function setMinStake(uint96 minStake_) external;

    /// @notice Draws with replacement, by stake at a frozen moment, among jurors that are not barred and whose owners are
    /// not. A pure function of its arguments and of what was frozen.
    /// @param wanted how many seats; fewer are filled where too many draws hit barred jurors, none where none has stake
    /// @return jurors the distinct jurors drawn
    /// @return seats how many seats each has
    function draw(uint64 moment, uint32 leaves, bytes32 seed, uint256 wanted, address[5] calldata barred)
        external
        view
        returns (address[] memory jurors, uint16[] memory seats);

    /// @notice All zero when the account never joined.
    function jurorOf(address account) external view returns (Juror memory);

    /// @notice The juror at a place of the stake tree; places start at 1.
    function jurorAt(uint256 leaf) external view returns (address);

    function minStake() external view returns (uint96);
}
