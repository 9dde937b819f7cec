// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Devnet} from "./libraries/Devnet.sol";
import {SumTree} from "./libraries/SumTree.sol";
import {Voucher, VoucherLib} from "./libraries/VoucherLib.sol";

/// @title Escrow of payments to nodes
/// @notice See IEscrow.
contract Escrow is IEscrow, EIP712, Ownable, ReentrancyGuard {
    using SafeERC20 for IERC20;
    using VoucherLib for Voucher;

    struct Claim {
        uint128 amount;
        bytes32 receiptHead;
    }

    /// @dev What one payee gets from consecutive items of a batch.
    struct Tab {
        address payee;
        uint256 credit;
        uint256 lock;
    }

    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-start naming-convention

    uint256 private constant BPS = 10_000;
    uint16 public constant MAX_FEE_BPS = 500;
    uint16 public constant MAX_LOCK_BPS = 50_000;
    uint32 public constant MAX_DELAY = 7 days;
    uint64 public constant MAX_DURATION = 90 days;
    /// @notice The shortest grace and thaw delay: an hour, to outlast an RPC outage; a second on a devnet.
    uint32 public immutable MIN_DELAY;
    IERC20 public immutable TOKEN;
    INodeRegistry public immutable REGISTRY;

    // slither-disable-end naming-convention

    Parameters private _parameters;
    /// @inheritdoc IEscrow
    uint256 public burnPending;
    /// @inheritdoc IEscrow
    mapping(address account => uint256) public freeBalance;
    /// @inheritdoc IEscrow
    mapping(address payee => uint256) public payeeBalance;
    /// @inheritdoc IEscrow
    mapping(address payer => uint256) public trancheNonce;
    mapping(bytes32 trancheId => Tranche) private _tranches;
    mapping(bytes32 trancheId => mapping(address payee => Claim)) private _claims;
    mapping(address payer => mapping(address signer => Session)) private _sessions;

    /// @param token Nectar
    /// @param registry locks the stake of payees that are nodes; must give this contract its `ESCROW_ROLE`
    /// @param governance the timelock
    constructor(IERC20 token, INodeRegistry registry, address governance, Parameters memory initial)
        EIP712("Corolla Escrow", "1")
        Ownable(governance)
    {
        if (address(token) == address(0) || address(registry) == address(0)) revert AddressIsZero();
        TOKEN = token;
        REGISTRY = registry;
        MIN_DELAY = Devnet.isDevnet() ? 1 : 1 hours;
        _setParameters(initial);
    }

    // ---- money in ----

    /// @inheritdoc IEscrow
    function deposit(uint256 amount) external nonReentrant {
        _deposit(msg.sender, amount);
    }

    /// @inheritdoc IEscrow
    function depositFor(address account, uint256 amount) external nonReentrant {
        if (account == address(0)) revert AddressIsZero();
        _deposit(account, amount);
    }

    /// @inheritdoc IEscrow
    function depositWithPermit(uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        nonReentrant
    {
        // Whether the permit worked shows in the allowance that _deposit draws on; the token is Nectar, whose permit does
        // not call out, and nothing else enters meanwhile.
        // slither-disable-next-line reentrancy-benign
        try IERC20Permit(address(TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _deposit(msg.sender, amount);
    }

    /// @inheritdoc IEscrow
    function withdrawFree(address to, uint256 amount) external nonReentrant {
        if (to == address(0)) revert AddressIsZero();
        if (amount == 0) revert AmountIsZero();
        _takeFree(msg.sender, amount);
        emit FreeWithdrawn(msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    // Every delay here is at least an hour and compared with the block's time, which a proposer moves by seconds at most:
    // that much earlier or later harms nobody.
    // slither-disable-start timestamp

    // ---- tranches ----

    /// @inheritdoc IEscrow
    function openTranche(bytes32 root, uint128 total, uint64 expiry) external returns (bytes32 trancheId) {
        (trancheId,) = _open(msg.sender, address(0), root, total, expiry);
    }

    /// @inheritdoc IEscrow
    function openTrancheFor(address payer, bytes32 root, uint128 total, uint64 expiry)
        external
        returns (bytes32 trancheId)
    {
        Session storage key = _sessions[payer][msg.sender];
        if (key.expiry == 0) revert SignerUnknown(payer, msg.sender);
        if (key.thawedAt != 0) revert SignerThawing(payer, msg.sender);
        if (block.timestamp > key.expiry) revert SignerExpired(payer, msg.sender, key.expiry);
        uint256 opened = uint256(key.opened) + total;
        if (opened > key.cap) revert SignerCapExceeded(key.cap, opened);
        key.opened = uint128(opened);
        uint64 closesAt;
        (trancheId, closesAt) = _open(payer, msg.sender, root, total, expiry);
        if (closesAt > key.lastClose) key.lastClose = closesAt;
    }

    /// @inheritdoc IEscrow
    /// @dev All claims first, then all credits, and only then the registry: checks, effects, interactions.
    function redeem(Redemption[] calldata items) external nonReentrant returns (uint256 paid) {
        (uint256 lockBps, uint256 auditWindow) = (_parameters.lockBps, _parameters.auditWindow);
        Tab[] memory tabs = new Tab[](items.length);
        uint256 count = 0;
        uint256 fees = 0;
        for (uint256 i = 0; i < items.length; ++i) {
            (uint256 credit, uint256 fee, uint256 lock) = _redeem(items[i], lockBps);
            if (credit == 0 && fee == 0) continue;
            address payee = items[i].voucher.payee;
            if (count == 0 || tabs[count - 1].payee != payee) tabs[count++].payee = payee;
            Tab memory tab = tabs[count - 1];
            tab.credit += credit;
            tab.lock += lock;
            fees += fee;
        }
        if (fees > 0) burnPending += fees;
        for (uint256 i = 0; i < count; ++i) {
            payeeBalance[tabs[i].payee] += tabs[i].credit;
            paid += tabs[i].credit;
        }
        uint64 until = uint64(block.timestamp + auditWindow);
        for (uint256 i = 0; i < count; ++i) {
            if (tabs[i].lock == 0) continue;
            // Our own registry, which cannot be swapped, does not call out, and does not revert for a payee that is no
            // node or has no stake; how much it could lock changes nothing about the payment.
            // slither-disable-next-line calls-loop,unused-return
            REGISTRY.lockStake(tabs[i].payee, tabs[i].lock, until);
        }
    }

    /// @inheritdoc IEscrow
    function withdrawPayee(address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0)) revert AddressIsZero();
        address payout = REGISTRY.payoutOf(msg.sender);
        if (payout != address(0) && payout != to) revert PayoutIsBound(msg.sender, payout);
        return _withdrawPayee(msg.sender, to);
    }

    /// @inheritdoc IEscrow
    function withdrawPayeeFor(address payee) external nonReentrant returns (uint256 amount) {
        address payout = REGISTRY.payoutOf(payee);
        if (payout == address(0)) revert PayoutNotBound(payee);
        return _withdrawPayee(payee, payout);
    }

    /// @inheritdoc IEscrow
    function reclaim(bytes32 trancheId) external returns (uint128 amount) {
        Tranche storage entry = _known(trancheId);
        if (block.timestamp <= entry.closesAt) revert TrancheStillOpen(trancheId, entry.closesAt);
        if (entry.reclaimed) revert AlreadyReclaimed(trancheId);
        entry.reclaimed = true;
        amount = entry.total - entry.redeemed;
        freeBalance[entry.payer] += amount;
        emit TrancheReclaimed(trancheId, entry.payer, amount);
    }

    // ---- session keys ----

    /// @inheritdoc IEscrow
    function authorizeSigner(address signer, uint128 cap, uint64 expiry) external {
        if (signer == address(0)) revert AddressIsZero();
        if (signer == msg.sender) revert SignerIsPayer();
        uint64 latest = uint64(block.timestamp) + MAX_DURATION;
        if (expiry <= block.timestamp || expiry > latest) {
            revert ExpiryOutOfRange(uint64(block.timestamp) + 1, latest, expiry);
        }
        Session storage key = _sessions[msg.sender][signer];
        (key.cap, key.expiry, key.thawedAt) = (cap, expiry, 0);
        emit SignerAuthorized(msg.sender, signer, cap, expiry);
    }

    /// @inheritdoc IEscrow
    function thawSigner(address signer) external {
        Session storage key = _sessions[msg.sender][signer];
        if (key.expiry == 0) revert SignerUnknown(msg.sender, signer);
        if (key.thawedAt != 0) revert SignerThawing(msg.sender, signer);
        key.thawedAt = uint64(block.timestamp) + _parameters.thawDelay;
        emit SignerThawed(msg.sender, signer, _revocableAt(key));
    }

    /// @inheritdoc IEscrow
    function revokeSigner(address signer) external {
        Session storage key = _sessions[msg.sender][signer];
        if (key.expiry == 0) revert SignerUnknown(msg.sender, signer);
        if (key.thawedAt == 0) revert SignerNotThawing(msg.sender, signer);
        uint64 at = _revocableAt(key);
        if (block.timestamp <= at) revert SignerNotRevocable(msg.sender, signer, at);
        delete _sessions[msg.sender][signer];
        emit SignerRevoked(msg.sender, signer);
    }

    // ---- fees and parameters ----

    /// @inheritdoc IEscrow
    function burnFees() external nonReentrant returns (uint256 amount) {
        amount = burnPending;
        burnPending = 0;
        emit FeesBurned(amount);
        ERC20Burnable(address(TOKEN)).burn(amount);
    }

    /// @inheritdoc IEscrow
    function setParameters(Parameters calldata parameters_) external onlyOwner {
        _setParameters(parameters_);
    }

    // ---- views ----

    /// @inheritdoc IEscrow
    function tranche(bytes32 trancheId) external view returns (Tranche memory) {
        return _tranches[trancheId];
    }

    /// @inheritdoc IEscrow
    function claimed(bytes32 trancheId, address payee) external view returns (uint128) {
        return _claims[trancheId][payee].amount;
    }

    /// @inheritdoc IEscrow
    function receiptHead(bytes32 trancheId, address payee) external view returns (bytes32) {
        return _claims[trancheId][payee].receiptHead;
    }

    /// @inheritdoc IEscrow
    function session(address payer, address signer) external view returns (Session memory) {
        return _sessions[payer][signer];
    }

    /// @inheritdoc IEscrow
    function parameters() external view returns (Parameters memory) {
        return _parameters;
    }

    /// @inheritdoc IEscrow
    function voucherDigest(Voucher calldata voucher) external view returns (bytes32) {
        return _hashTypedDataV4(voucher.structHash());
    }

    /// @inheritdoc IEscrow
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc IEscrow
    function trancheIdOf(address payer, uint256 nonce) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), payer, nonce));
    }

    // ---- internals ----

    function _deposit(address account, uint256 amount) private {
        if (amount == 0) revert AmountIsZero();
        freeBalance[account] += amount;
        emit Deposited(account, msg.sender, amount);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
    }

    function _withdrawPayee(address payee, address to) private returns (uint256 amount) {
        amount = payeeBalance[payee];
        if (amount == 0) revert NothingToWithdraw(payee);
        payeeBalance[payee] = 0;
        emit PayeeWithdrawn(payee, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    function _takeFree(address account, uint256 amount) private {
        uint256 free = freeBalance[account];
        if (free < amount) revert InsufficientFree(free, amount);
        freeBalance[account] = free - amount;
    }

    function _open(address payer, address signer, bytes32 root, uint128 total, uint64 expiry)
        private
        returns (bytes32 trancheId, uint64 closesAt)
    {
        if (total == 0) revert AmountIsZero();
        if (root == bytes32(0)) revert RootIsZero();
        uint64 latest = uint64(block.timestamp) + MAX_DURATION;
        if (expiry <= block.timestamp || expiry > latest) {
            revert ExpiryOutOfRange(uint64(block.timestamp) + 1, latest, expiry);
        }
        _takeFree(payer, total);
        trancheId = trancheIdOf(payer, trancheNonce[payer]++);
        closesAt = expiry + _parameters.grace;
        _tranches[trancheId] = Tranche({
            payer: payer,
            expiry: expiry,
            feeBps: _parameters.feeBps,
            signer: signer,
            closesAt: closesAt,
            reclaimed: false,
            total: total,
            redeemed: 0,
            root: root
        });
        emit TrancheOpened(trancheId, payer, signer, root, total, expiry, closesAt);
    }

    /// @dev Claims what the voucher adds to earlier claims; nothing when it adds nothing. Fee and lock are differences
    /// of a function of the cumulative amount, so that redeeming in one step or in many comes to the same.
    function _redeem(Redemption calldata item, uint256 lockBps)
        private
        returns (uint256 credit, uint256 fee, uint256 lock)
    {
        Voucher calldata voucher = item.voucher;
        bytes32 trancheId = voucher.trancheId;
        Tranche storage entry = _known(trancheId);
        Claim storage claim = _claims[trancheId][voucher.payee];
        (uint256 before, uint256 cumulative) = (claim.amount, voucher.cumulative);
        if (cumulative <= before) return (0, 0, 0);
        _check(item, entry);

        uint128 amount = uint128(cumulative - before);
        uint128 left = entry.total - entry.redeemed;
        if (amount > left) revert TrancheExhausted(trancheId, left, amount);
        entry.redeemed += amount;
        (claim.amount, claim.receiptHead) = (uint128(cumulative), voucher.receiptHead);

        uint256 feeBps = entry.feeBps;
        fee = cumulative * feeBps / BPS - before * feeBps / BPS;
        lock = cumulative * lockBps / BPS - before * lockBps / BPS;
        credit = amount - fee;
        emit Redeemed(trancheId, voucher.payee, amount, uint128(fee), uint128(cumulative), voucher.receiptHead);
    }

    function _setParameters(Parameters memory p) private {
        _checkBounds("feeBps", p.feeBps, 0, MAX_FEE_BPS);
        _checkBounds("lockBps", p.lockBps, 0, MAX_LOCK_BPS);
        _checkBounds("grace", p.grace, MIN_DELAY, MAX_DELAY);
        _checkBounds("auditWindow", p.auditWindow, MIN_DELAY, MAX_DELAY);
        _checkBounds("thawDelay", p.thawDelay, MIN_DELAY, MAX_DELAY);
        _parameters = p;
        emit ParametersSet(p);
    }

    function _known(bytes32 trancheId) private view returns (Tranche storage entry) {
        entry = _tranches[trancheId];
        if (entry.payer == address(0)) revert TrancheUnknown(trancheId);
    }

    function _check(Redemption calldata item, Tranche storage entry) private view {
        Voucher calldata voucher = item.voucher;
        (bytes32 trancheId, address payee) = (voucher.trancheId, voucher.payee);
        if (block.timestamp > entry.closesAt) revert TrancheClosed(trancheId, entry.closesAt);
        if (voucher.cumulative > item.cap) revert OverCap(trancheId, payee, item.cap, voucher.cumulative);
        address signer = ECDSA.recover(_hashTypedDataV4(voucher.structHash()), item.signature);
        if (signer != entry.payer && signer != entry.signer) revert SignerNotAccepted(trancheId, payee, signer);
        if (!SumTree.verify(entry.root, entry.total, payee, item.cap, item.index, item.siblings)) {
            revert ProofInvalid(trancheId, payee);
        }
    }

    function _revocableAt(Session storage key) private view returns (uint64) {
        return uint64(Math.max(key.thawedAt, key.lastClose));
    }

    function _checkBounds(bytes32 name, uint256 value, uint256 lowest, uint256 highest) private pure {
        if (value < lowest || value > highest) revert OutOfBounds(name, value, lowest, highest);
    }

    // slither-disable-end timestamp
}
