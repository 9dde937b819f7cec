// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Manifest} from "../contracts/libraries/ManifestLib.sol";
import {Receipt} from "../contracts/libraries/ReceiptLib.sol";

/// @title Faults that a node's own signature proves
/// @notice Anyone may bring the proof and is rewarded out of the stake it costs the node; the client that paid for the
/// session is refunded out of it, as far as that goes; the rest of what is taken is burned. Nothing here takes a vote or a word of the accuser's: a proof is made of receipts that the node signed, of
/// hashes, and of what the chain itself recorded. A receipt of another chain, or an old one, proves nothing.
interface IFaults {
    /// @notice Which rows of a receipt are to be opened: those under its `inRoot` or those under its `outRoot`.
    enum Side {
        Input,
        Output
    }

    /// @notice What became of a challenge. `Expired` challenges were punished.
    enum State {
        None,
        Open,
        Answered,
        Expired
    }

    /// @notice What a client paid for the session that a proof is about. All zero where nobody is to be refunded.
    /// @param trancheId the tranche it was paid from, whose payer is refunded
    /// @param head the receipt that the node redeemed with on it: of the same session and nonce as the proof's
    struct Payment {
        bytes32 trancheId;
        Receipt head;
    }

    /// @notice A demand that a node open one row it signed for and was paid for.
    /// @param challenger who gets the bond back, and a reward, when the node stays silent
    /// @param deadline the last second for an answer
    /// @param node who signed the receipt
    /// @param openedAt when it was made (Unix seconds)
    /// @param sessionId of the receipt
    /// @param position of the row in the session
    /// @param root over the receipt's rows
    /// @param index of the row's leaf under `root`
    /// @param size leaves under `root`
    /// @param bond what the challenger put up
    /// @param trancheId the tranche the work was paid from, whose payer is refunded
    struct Challenge {
        address challenger;
        uint64 deadline;
        State state;
        address node;
        uint64 openedAt;
        bytes16 sessionId;
        uint64 position;
        bytes32 root;
        uint64 index;
        uint64 size;
        uint128 bond;
        bytes32 trancheId;
    }

    /// @notice What governance may set, each within hard-coded bounds.
    /// @param maxAge seconds after its `tOut` that a receipt proves a fault
    /// @param openingAge seconds after its `tOut` that a receipt's rows may be asked for
    /// @param responseTime seconds a node has to open a row
    /// @param jail seconds that a false weight root or a withheld opening keeps a node out of service
    /// @param rewardBps part of what is taken that the challenger gets, in 1/10,000
    /// @param weightsBps part of a node's stake that a false weight root costs it
    /// @param openingBps part of a node's stake that a withheld opening costs it
    /// @param openingBond what a challenge for an opening must put up, in base units; the node's for its answer
    struct Parameters {
        uint32 maxAge;
        uint32 openingAge;
        uint32 responseTime;
        uint32 jail;
        uint16 rewardBps;
        uint16 weightsBps;
        uint16 openingBps;
        uint128 openingBond;
    }

    /// @notice `node` was punished. `amount` was taken from its stake, of which `challenger` got `reward`; what the client
    /// got of it is in `ClientRefunded`.
    /// @param key what is not punished again before `until` is over, see `punishedUntil`
    event FaultPunished(
        address indexed node,
        bytes32 indexed fault,
        address indexed challenger,
        bytes32 key,
        uint64 until,
        uint256 amount,
        uint256 reward
    );
    /// @notice Out of what a fault just cost `node`, `client` got back `amount` of what it paid it from the tranche.
    event ClientRefunded(bytes32 indexed trancheId, address indexed node, address indexed client, uint256 amount);
    event OpeningChallenged(
        bytes32 indexed challengeId,
        address indexed node,
        address indexed challenger,
        bytes32 receiptHash,
        uint64 position,
        Side side,
        uint64 deadline
    );
    event OpeningAnswered(bytes32 indexed challengeId, address indexed node, bytes row);
    /// @notice Nobody answered in time. Not `punished` when it falls into an outage that was punished already.
    event OpeningExpired(bytes32 indexed challengeId, address indexed node, bool punished);
    event ParametersSet(Parameters parameters);

    error AddressIsZero();
    /// @notice The proof does not show this fault.
    error NoFault(bytes32 fault);
    error AlreadyPunished(bytes32 key, uint64 until);
    error WrongChain(uint256 expected, uint256 found);
    error ReceiptTooOld(uint256 endedAt, uint256 oldest);
    /// @notice The version named is not of the model in the receipt.
    error ModelMismatch(bytes32 expected, bytes32 found);
    /// @notice The version's block roots and the manifest given do not make up the version's manifest root.
    error ManifestMismatch(bytes32 expected, bytes32 found);
    /// @notice Nothing with a receipt was redeemed by this node on this tranche.
    error NotRedeemed(bytes32 trancheId, address node);
    /// @notice The receipts do not lead from the head the node redeemed with to the challenged one.
    error ChainBroken(bytes32 expected, bytes32 found);
    error ChainTooLong(uint256 highest, uint256 found);
    error PositionOutOfRange(uint64 position);
    error ChallengeExists(bytes32 challengeId, State state);
    error ChallengeNotOpen(bytes32 challengeId, State state);
    error DeadlinePassed(bytes32 challengeId, uint64 deadline);
    error DeadlineNotPassed(bytes32 challengeId, uint64 deadline);
    error RowTooLarge(uint256 highest, uint256 found);
    /// @notice The row and its branch do not lead to the root the node signed.
    error OpeningInvalid(bytes32 challengeId);
    /// @notice A parameter outside its hard-coded bounds; governance cannot widen them.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);

    // ---- proofs ----
    //
    // A proof may name a payment for its session. The payer then gets back what the node was paid from that tranche, net
    // of the fee: what nobody refunded before, and at most `REFUND_BPS` of what is taken. A payment that does not hold is
    // ignored: a node that redeems anew while the proof is on its way must not make it fail.

    /// @notice Two different receipts of one node continue one receipt of one session: its chain of receipts forks.
    /// Costs all of the node's stake and its place for good.
    /// @return taken what was there to take
    function proveEquivocation(
        Receipt calldata a,
        bytes calldata signatureA,
        Receipt calldata b,
        bytes calldata signatureB,
        Payment calldata payment
    ) external returns (uint256 taken);

    /// @notice `receipt` names `upstream` as where its input came from (same session and positions, adjacent span), but
    /// its `inRoot` is not `upstream`'s `outRoot`. Costs the signer of `receipt` all of its stake and its place for good.
    /// @param upstreamSignature of whoever made the upstream receipt, registered or not
    function proveBrokenLink(
        Receipt calldata receipt,
        bytes calldata signature,
        Receipt calldata upstream,
        bytes calldata upstreamSignature,
        Payment calldata payment
    ) external returns (uint256 taken);

    /// @notice `receipt` claims weights or a numeric class that its model does not have: a span beyond the model's
    /// blocks, a weight root that is not the root over the span's block roots, or a class that was not published.
    /// @dev The block roots are proven by the manifest root that the node signed, not by who published them: another
    /// model that was published under the same root convicts nobody. A class counts as published when
    /// any version of the manifest's name has it with that root; work begun before `version` is not held against it.
    /// @param version of the model `manifest.name`
    function proveWeights(
        Receipt calldata receipt,
        bytes calldata signature,
        uint256 version,
        Manifest calldata manifest,
        Payment calldata payment
    ) external returns (uint256 taken);

    // ---- openings ----

    /// @notice Demands that the signer of `receipt` open its row at `position`; pulls the bond from the caller.
    /// @dev Only for work that was paid for: the head of receipts that the node redeemed with on `trancheId` must be
    /// `receipt` or follow from it. One challenge for each (receipt, position, side); one that expired without
    /// punishment may be made again.
    /// @param later the receipts after `receipt`, newest first: the first is the redeemed head. At most `MAX_CHAIN`.
    function challengeOpening(
        Receipt calldata receipt,
        bytes calldata signature,
        uint64 position,
        Side side,
        bytes32 trancheId,
        Receipt[] calldata later
    ) external returns (bytes32 challengeId);

    /// @notice Answers a challenge. Anyone may call, up to and including the deadline; the bond goes to the node.
    /// @param row the exact bytes, at most `MAX_ROW`
    /// @param branch the siblings of the row's leaf, from the leaf up
    function open(bytes32 challengeId, bytes calldata row, bytes32[] calldata branch) external;

    /// @notice Ends a challenge that was not answered by its deadline: the bond goes back, and the node loses
    /// `openingBps` of its stake and is jailed; the tranche's payer is refunded as with proofs. Anyone may call.
    /// @dev Challenges made before the end of a jailing for a withheld opening are one outage with it, punished once.
    /// @return taken what was there to take
    function expireOpening(bytes32 challengeId) external returns (uint256 taken);

    /// @notice Sets the parameters, each within its bounds. Governance only.
    function setParameters(Parameters calldata parameters_) external;

    // ---- views ----

    function parameters() external view returns (Parameters memory);

    /// @notice All zero when there is no such challenge.
    function challenge(bytes32 challengeId) external view returns (Challenge memory);

    /// @notice When the punishment of a fault is over (Unix seconds): until then it is not punished again. The largest
    /// number where the node is out for good, 0 where it was never punished.
    /// @param key `faultKey(fault, node, evidence)`
    function punishedUntil(bytes32 key) external view returns (uint64);

    /// @notice `keccak256(abi.encode(fault, node, evidence))`.
    /// @param evidence of an equivocation: `keccak256(abi.encode(sessionId, clientNonce, prevReceiptHash))`; of a broken
    /// link: the receipt's hash; of false weights: `keccak256(abi.encode(modelRoot, spanStart, spanEnd, weightRoot,
    /// numericClass))`; of a withheld opening: zero
    function faultKey(bytes32 fault, address node, bytes32 evidence) external pure returns (bytes32);

    /// @notice `keccak256(abi.encode(hash, position, side))`, with the hash of the receipt.
    function challengeIdOf(bytes32 hash, uint64 position, Side side) external pure returns (bytes32);

    function receiptHash(Receipt calldata receipt) external pure returns (bytes32);
}
