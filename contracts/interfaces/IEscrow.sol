// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {SumNode} from "../contracts/libraries/SumTree.sol";
import {Voucher} from "../contracts/libraries/VoucherLib.sol";

/// @title Payment of many payees from one deposit, without a transaction per payment
/// @notice A payer deposits, then opens a tranche: it locks `total` under a Merkle-sum root whose leaves are
/// `(payee, cap)`. Payees are paid off chain with cumulative vouchers and redeem the last one. Nothing the payer does
/// lowers what a payee can redeem before the tranche's expiry plus grace.
interface IEscrow {
    /// @notice A tranche. Slot by slot as stored.
    /// @param payer whose money it is
    /// @param expiry vouchers should not be accepted after this second
    /// @param feeBps the fee of this tranche, fixed at its opening
    /// @param signer the session key that opened it and may sign its vouchers; zero when the payer opened it
    /// @param closesAt redemption ends after this second (expiry + grace at its opening); then `reclaim`
    /// @param reclaimed whether the payer took the rest back
    /// @param total what was locked; equals the sum of the tree's root
    /// @param redeemed what payees have claimed, fee included
    /// @param root hash of the tree's root
    struct Tranche {
        address payer;
        uint64 expiry;
        uint16 feeBps;
        address signer;
        uint64 closesAt;
        bool reclaimed;
        uint128 total;
        uint128 redeemed;
        bytes32 root;
    }

    /// @notice What a payer allows a session key.
    /// @param cap the most the key may lock in all the tranches it opens, together
    /// @param opened what it has locked so far; never falls while the key is authorised
    /// @param expiry it opens nothing after this second
    /// @param thawedAt when its thaw ends; 0 when not thawing
    /// @param lastClose when the last of its tranches closes
    struct Session {
        uint128 cap;
        uint128 opened;
        uint64 expiry;
        uint64 thawedAt;
        uint64 lastClose;
    }

    /// @notice A voucher with all that redeeming it takes.
    /// @param cap the payee's leaf is `(voucher.payee, cap)`
    /// @param index the leaf's index in the tree
    /// @param siblings its branch, from the leaf up
    /// @param signature 65 bytes `r ‖ s ‖ v` by the tranche's payer or signer, low s
    struct Redemption {
        Voucher voucher;
        uint128 cap;
        uint32 index;
        SumNode[] siblings;
        bytes signature;
    }

    /// @notice What governance may set, each within hard-coded bounds.
    /// @param feeBps burned part of what payees claim, in 1/10,000; for tranches opened from now on
    /// @param lockBps ρ: stake locked for each unit claimed, in 1/10,000
    /// @param grace seconds after its expiry that a tranche stays open; for tranches opened from now on
    /// @param auditWindow seconds that the stake is locked for
    /// @param thawDelay seconds from `thawSigner` to `revokeSigner`
    struct Parameters {
        uint16 feeBps;
        uint16 lockBps;
        uint32 grace;
        uint32 auditWindow;
        uint32 thawDelay;
    }

    event Deposited(address indexed account, address indexed from, uint256 amount);
    event FreeWithdrawn(address indexed account, address indexed to, uint256 amount);
    event TrancheOpened(
        bytes32 indexed trancheId,
        address indexed payer,
        address indexed signer,
        bytes32 root,
        uint128 total,
        uint64 expiry,
        uint64 closesAt
    );
    /// @notice `payee`'s claims on the tranche rose by `amount` to `cumulative`; `fee` of the amount is burned.
    event Redeemed(
        bytes32 indexed trancheId,
        address indexed payee,
        uint128 amount,
        uint128 fee,
        uint128 cumulative,
        bytes32 receiptHead
    );
    event PayeeWithdrawn(address indexed payee, address indexed to, uint256 amount);
    event TrancheReclaimed(bytes32 indexed trancheId, address indexed payer, uint128 amount);
    event SignerAuthorized(address indexed payer, address indexed signer, uint128 cap, uint64 expiry);
    event SignerThawed(address indexed payer, address indexed signer, uint64 revocableAt);
    event SignerRevoked(address indexed payer, address indexed signer);
    event FeesBurned(uint256 amount);
    event ParametersSet(Parameters parameters);

    error AmountIsZero();
    error AddressIsZero();
    error InsufficientFree(uint256 available, uint256 needed);
    error NothingToWithdraw(address account);
    /// @notice What this node earns goes to the owner who registered it, and nowhere else.
    error PayoutIsBound(address payee, address payout);
    error PayoutNotBound(address payee);
    error RootIsZero();
    error ExpiryOutOfRange(uint64 earliest, uint64 latest, uint64 offered);
    error TrancheUnknown(bytes32 trancheId);
    error TrancheClosed(bytes32 trancheId, uint64 closedAt);
    error TrancheStillOpen(bytes32 trancheId, uint64 closesAt);
    error AlreadyReclaimed(bytes32 trancheId);
    error TrancheExhausted(bytes32 trancheId, uint128 left, uint128 needed);
    /// @notice The branch does not lead from the leaf `(payee, cap)` to the tranche's root and total.
    error ProofInvalid(bytes32 trancheId, address payee);
    error OverCap(bytes32 trancheId, address payee, uint128 cap, uint128 offered);
    /// @notice The voucher was signed, but not by an account this tranche accepts (or not over this voucher here).
    error SignerNotAccepted(bytes32 trancheId, address payee, address signer);
    error SignerIsPayer();
    error SignerUnknown(address payer, address signer);
    error SignerExpired(address payer, address signer, uint64 expiry);
    error SignerThawing(address payer, address signer);
    error SignerNotThawing(address payer, address signer);
    error SignerNotRevocable(address payer, address signer, uint64 revocableAt);
    error SignerCapExceeded(uint128 cap, uint256 needed);
    /// @notice A parameter outside its hard-coded bounds; governance cannot widen them.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);

    // ---- money in ----

    /// @notice Adds `amount`, pulled from the caller by allowance, to the caller's free balance.
    function deposit(uint256 amount) external;

    /// @notice Adds `amount`, pulled from the caller, to the free balance of `account`.
    function depositFor(address account, uint256 amount) external;

    /// @notice `deposit` with an EIP-2612 signature in place of an earlier `approve`.
    /// @dev A permit that someone else already submitted does no harm: what counts is the allowance.
    function depositWithPermit(uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Sends `amount` of the caller's free balance to `to`.
    function withdrawFree(address to, uint256 amount) external;

    // ---- tranches ----

    /// @notice Locks `total` of the caller's free balance for the payees under `root`.
    /// @param root hash of the sum tree's root; `total` is its sum
    /// @param expiry Unix seconds, in the future, at most `MAX_DURATION` ahead
    /// @return trancheId `trancheIdOf(caller, trancheNonce(caller))`
    function openTranche(bytes32 root, uint128 total, uint64 expiry) external returns (bytes32 trancheId);

    /// @notice The same from the free balance of `payer`, by a session key it authorised; counts against the key's cap.
    function openTrancheFor(address payer, bytes32 root, uint128 total, uint64 expiry)
        external
        returns (bytes32 trancheId);

    /// @notice Credits payees with what their vouchers claim beyond earlier claims. Anyone may call, in any order.
    /// @dev A voucher that claims no more than was claimed before is skipped; anything wrong with another reverts the
    /// whole batch. Allowed up to and including `closesAt`.
    /// @return paid what was credited to payees, all together, net of fees
    function redeem(Redemption[] calldata items) external returns (uint256 paid);

    /// @notice Sends all that the caller has earned to `to`, which for a node that its owner registered is the owner.
    function withdrawPayee(address to) external returns (uint256 amount);

    /// @notice Sends all that a node has earned to the owner who registered it. Anyone may call.
    function withdrawPayeeFor(address payee) external returns (uint256 amount);

    /// @notice Returns what was not redeemed to the payer's free balance, once the tranche has closed. Anyone may call.
    function reclaim(bytes32 trancheId) external returns (uint128 amount);

    // ---- session keys ----

    /// @notice Lets `signer` open tranches worth up to `cap` until `expiry` and sign their vouchers.
    /// @dev On a key already authorised this sets a new cap and expiry and ends a thaw; what it opened stays counted.
    function authorizeSigner(address signer, uint128 cap, uint64 expiry) external;

    /// @notice Stops new tranches by `signer` at once. Vouchers of the tranches it opened stay good.
    function thawSigner(address signer) external;

    /// @notice Forgets a thawed key. Only after the thaw delay and after its last tranche closed, when none of its
    /// vouchers can be redeemed any more.
    function revokeSigner(address signer) external;

    // ---- fees and parameters ----

    /// @notice Burns the fees gathered so far. Anyone may call.
    function burnFees() external returns (uint256 amount);

    /// @notice Sets the parameters, each within its bounds. Governance only.
    function setParameters(Parameters calldata parameters_) external;

    // ---- views ----

    function freeBalance(address account) external view returns (uint256);

    function payeeBalance(address payee) external view returns (uint256);

    /// @notice All zero when there is no such tranche.
    function tranche(bytes32 trancheId) external view returns (Tranche memory);

    /// @notice What `payee` has claimed of the tranche so far, fees included.
    function claimed(bytes32 trancheId, address payee) external view returns (uint128);

    /// @notice The receipt hash of the voucher last redeemed.
    function receiptHead(bytes32 trancheId, address payee) external view returns (bytes32);

    function session(address payer, address signer) external view returns (Session memory);

    function parameters() external view returns (Parameters memory);

    /// @notice How many tranches of `payer` were opened; the nonce of the next.
    function trancheNonce(address payer) external view returns (uint256);

    /// @notice `keccak256(abi.encode(chainId, escrow, payer, nonce))`.
    function trancheIdOf(address payer, uint256 nonce) external view returns (bytes32);

    /// @notice What is signed for a voucher (EIP-712, domain "Corolla Escrow", version "1").
    function voucherDigest(Voucher calldata voucher) external view returns (bytes32);

    function domainSeparator() external view returns (bytes32);

    /// @notice Fees waiting to be burned.
    function burnPending() external view returns (uint256);
}
