// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {IJurorPool} from "../interfaces/IJurorPool.sol";
import {StakeTree, Tree} from "./libraries/StakeTree.sol";

/// @title The jurors' stake
/// @notice See IJurorPool. Amounts fit uint96 (see NectarToken.MAX_SUPPLY), times uint32.
contract JurorPool is IJurorPool, ReentrancyGuard {
    using SafeERC20 for IERC20;
    using StakeTree for Tree;

    uint32 public constant MAX_JUROR_UNBONDING = 60 days;
    /// @notice Draws tried for each seat before it stays empty.
    uint256 public constant TRIES = 4;
    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-start naming-convention
    IERC20 public immutable TOKEN;
    /// @notice Seconds from `beginLeave` to `withdrawStake`. Longer than any dispute: stake in a snapshot is still here
    /// when the last jury drawn from it is done. It cannot be changed, or a shorter one would break that for open disputes.
    uint32 public immutable JUROR_UNBONDING;
    /// @notice The jury, which deployed this contract.
    address public immutable DISPUTES;
    // slither-disable-end naming-convention

    Tree private _tree;
    /// @inheritdoc IJurorPool
    uint96 public minStake;
    mapping(address account => Juror) private _jurors;
    /// @inheritdoc IJurorPool
    mapping(uint256 leaf => address juror) public jurorAt;

    modifier onlyDisputes() {
        if (msg.sender != DISPUTES) revert NotDisputes(msg.sender);
        _;
    }

    constructor(IERC20 token, uint32 jurorUnbonding) {
        if (jurorUnbonding > MAX_JUROR_UNBONDING) {
            revert OutOfBounds("jurorUnbonding", jurorUnbonding, 0, MAX_JUROR_UNBONDING);
        }
        DISPUTES = msg.sender;
        TOKEN = token;
        JUROR_UNBONDING = jurorUnbonding;
    }

    /// @inheritdoc IJurorPool
    function join(address owner, uint96 amount) external nonReentrant {
        Juror storage juror = _jurors[msg.sender];
        if (juror.owner != address(0)) revert AlreadyJoined(msg.sender);
        if (owner == address(0)) revert AddressIsZero();
        _checkStake(amount);
        uint32 leaf = _tree.append(amount);
        (juror.owner, juror.stake, juror.leaf, jurorAt[leaf]) = (owner, amount, leaf, msg.sender);
        emit JurorJoined(msg.sender, owner, leaf);
        emit JurorStakeAdded(msg.sender, msg.sender, amount);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc IJurorPool
    function addStake(address juror_, uint96 amount) external nonReentrant {
        Juror storage juror = _joined(juror_);
        _checkStake(uint256(juror.stake) + amount);
        _setStake(juror, juror.stake + amount);
        emit JurorStakeAdded(juror_, msg.sender, amount);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
    }

    // Compared with the block's time, which a proposer moves by seconds at most; delays are days long.
    // slither-disable-start timestamp

    /// @inheritdoc IJurorPool
    function beginLeave(address juror_, uint96 amount) external {
        Juror storage juror = _joined(juror_);
        if (msg.sender != juror.owner) revert NotJurorsOwner(juror_, msg.sender);
        uint96 stake = juror.stake;
        if (amount == 0 || amount > stake) revert JurorStakeInsufficient(stake, amount);
        if (amount < stake) _checkStake(stake - amount);
        uint32 at = uint32(block.timestamp) + JUROR_UNBONDING;
        _setStake(juror, stake - amount);
        juror.unbonding += amount;
        juror.unbondingAt = at;
        emit JurorLeaving(juror_, amount, at);
    }

    /// @inheritdoc IJurorPool
    function withdrawStake(address juror_) external nonReentrant returns (uint256 amount) {
        Juror storage juror = _joined(juror_);
        address owner = juror.owner;
        if (msg.sender != owner && msg.sender != juror_) revert NotJurorsOwner(juror_, msg.sender);
        uint96 unbonding = juror.unbonding;
        if (unbonding == 0) revert NothingUnbonding(juror_);
        if (block.timestamp < juror.unbondingAt) revert StillUnbonding(juror.unbondingAt);
        // What is locked never exceeds stake and unbonding together.
        amount = Math.min(unbonding, uint256(juror.stake) + unbonding - juror.locked);
        // Amounts from our own books, not balances that a stranger could nudge.
        // slither-disable-start incorrect-equality
        if (amount == 0) revert StakeBehindSeats(juror.locked);
        juror.unbonding = unbonding - uint96(amount);
        if (amount == unbonding) juror.unbondingAt = 0;
        // slither-disable-end incorrect-equality
        emit JurorStakeWithdrawn(juror_, owner, amount);
        TOKEN.safeTransfer(owner, amount);
    }

    // slither-disable-end timestamp

    // ---- for the jury ----

    /// @inheritdoc IJurorPool
    function freeze() external onlyDisputes returns (uint64 moment, uint32 leaves) {
        return (_tree.freeze(), _tree.leaves);
    }

    /// @inheritdoc IJurorPool
    function lock(address[] calldata jurors, uint16[] calldata seats, uint96 seatStake)
        external
        onlyDisputes
        returns (uint96[] memory locked)
    {
        locked = new uint96[](jurors.length);
        for (uint256 i = 0; i < jurors.length; ++i) {
            Juror storage juror = _jurors[jurors[i]];
            uint256 free = uint256(juror.stake) + juror.unbonding - juror.locked;
            locked[i] = uint96(Math.min(free, uint256(seats[i]) * seatStake));
            juror.locked += locked[i];
            emit JurorLocked(jurors[i], locked[i]);
        }
    }

    /// @inheritdoc IJurorPool
    function forfeit(uint256 amount) external onlyDisputes nonReentrant {
        emit Forfeited(amount);
        TOKEN.safeTransfer(DISPUTES, amount);
    }

    /// @inheritdoc IJurorPool
    function release(address juror_, uint96 locked, uint96 penalty) external onlyDisputes returns (address owner) {
        Juror storage juror = _jurors[juror_];
        owner = juror.owner;
        juror.locked -= locked;
        // Active stake first, as a node's.
        uint96 fromStake = uint96(Math.min(penalty, juror.stake));
        if (fromStake > 0) _setStake(juror, juror.stake - fromStake);
        juror.unbonding -= penalty - fromStake;
        if (juror.unbonding == 0) juror.unbondingAt = 0;
        emit JurorReleased(juror_, locked, penalty);
    }

    /// @inheritdoc IJurorPool
    function setMinStake(uint96 minStake_) external onlyDisputes {
        minStake = minStake_;
        emit MinStakeSet(minStake_);
    }

    // ---- views ----

    /// @inheritdoc IJurorPool
    function draw(uint64 moment, uint32 leaves, bytes32 seed, uint256 wanted, address[5] calldata barred)
        external
        view
        returns (address[] memory jurors, uint16[] memory seats)
    {
        (jurors, seats) = (new address[](wanted), new uint16[](wanted));
        uint256 total = _tree.sumAt(moment, leaves);
        uint256 size = 0;
        uint256 filled = 0;
        for (uint256 i = 0; total > 0 && i < wanted * TRIES && filled < wanted; ++i) {
            // The caller's seed is the hash of a block that was in the future when the stakes were frozen.
            // slither-disable-next-line weak-prng
            uint256 target = uint256(keccak256(abi.encode(seed, i))) % total;
            address juror = jurorAt[_tree.find(moment, leaves, target)];
            uint256 at = 0;
            while (at < size && jurors[at] != juror) ++at;
            if (at == size) {
                if (_isBarred(barred, juror)) continue;
                jurors[size++] = juror;
            }
            ++seats[at];
            ++filled;
        }
        // Cut to what was drawn: memory arrays only ever shrink this way.
        // slither-disable-next-line assembly
        assembly ("memory-safe") {
            mstore(jurors, size)
            mstore(seats, size)
        }
    }

    /// @inheritdoc IJurorPool
    function jurorOf(address account) external view returns (Juror memory) {
        return _jurors[account];
    }

    // ---- internals ----

    function _isBarred(address[5] calldata barred, address juror) private view returns (bool) {
        address owner = _jurors[juror].owner;
        for (uint256 i = 0; i < barred.length; ++i) {
            if (barred[i] == juror || barred[i] == owner) return true;
        }
        return false;
    }

    function _setStake(Juror storage juror, uint96 stake) private {
        _tree.change(juror.leaf, juror.stake, stake);
        juror.stake = stake;
    }

    function _joined(address account) private view returns (Juror storage juror) {
        juror = _jurors[account];
        if (juror.owner == address(0)) revert NotAJuror(account);
    }

    function _checkStake(uint256 stake) private view {
        if (stake < minStake) revert JurorStakeTooSmall(minStake, stake);
    }
}
