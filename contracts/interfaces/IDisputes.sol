// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title The jury: faults that no contract can recompute
/// @notice A challenger accuses a node over a receipt the node signed. A jury drawn by stake recomputes and votes; the
/// side that lost may call for a larger jury, twice. Every step that is due may be taken by anyone, and every dispute
/// ends: a jury that is not drawn in time, or does not vote, is a draw.
///
///     accuse → draw → commit → reveal → (appeal → draw → …)? → conclude → settle
interface IDisputes {
    /// @dev In the order of `Outcome`.
    enum Vote {
        None,
        Correct,
        Faulty,
        Unavailable
    }

    /// @param Open not concluded yet
    /// @param Correct the node is acquitted, for good as far as this receipt goes
    /// @param Faulty the node is slashed
    /// @param Unavailable the jurors could not fetch what the receipt commits to; nobody is slashed for its numbers
    /// @param Draw no option had a majority of the revealed seats
    enum Outcome {
        Open,
        Correct,
        Faulty,
        Unavailable,
        Draw
    }

    enum Phase {
        Unknown,
        Drawing,
        Committing,
        Revealing,
        Appealing,
        Concludable,
        Concluded
    }

    /// @notice What a challenger says.
    /// @param node the accused, which signed the receipt
    /// @param receiptHash `Receipt.hash()`, see corolla_core/protocol/receipt.py
    /// @param signature the node's, over `receiptHash` itself (no EIP-191 prefix): 65 bytes `r ‖ s ‖ v`, low s
    /// @param evidenceHash SHA-256 of the evidence: the receipt and its openings
    /// @param evidenceUri where jurors find it; at most MAX_URI bytes, kept in the log only
    /// @param trancheId the tranche the work was paid from, whose payer is the harmed client; zero when nobody is
    /// @param harm what the client should get back, at most
    struct Accusation {
        address node;
        bytes32 receiptHash;
        bytes signature;
        bytes32 evidenceHash;
        string evidenceUri;
        bytes32 trancheId;
        uint96 harm;
    }

    /// @param snapshot the frozen moment of the stake tree that all its juries are drawn from
    /// @param leaves how many leaves the tree had then
    /// @param seatReward what each winning seat earns; set when concluded
    /// @param nodeOwner the node's owner
    /// @param client the payer of `trancheId`, or zero
    /// @param terms which set of parameters holds for this dispute
    /// @param round 0, or how often it was appealed
    /// @param challengerOwner the owner of the challenger's own juror stake, or zero
    struct Dispute {
        address node;
        uint64 snapshot;
        uint32 leaves;
        address challenger;
        uint96 seatReward;
        address nodeOwner;
        uint96 harm;
        address client;
        uint32 terms;
        uint8 round;
        Outcome outcome;
        address challengerOwner;
        bytes32 receiptHash;
        bytes32 evidenceHash;
        bytes32 trancheId;
    }

    /// @param patron who called for this jury and put up `bond`
    /// @param seedBlock the block whose hash draws it
    /// @param drawUntil up to when it may be drawn; the other deadlines are 0 until it is
    /// @param forNode whether the patron is on the node's side
    /// @param seats by `Vote`: all that were drawn under None, the revealed ones under their votes
    /// @param penalties by `Vote`: what the jurors in those seats forfeit if they turn out wrong
    struct Round {
        address patron;
        uint96 bond;
        uint64 seedBlock;
        uint32 drawUntil;
        uint32 commitUntil;
        uint32 revealUntil;
        bool forNode;
        uint16[4] seats;
        uint96[4] penalties;
    }

    /// @notice A juror's seats in one round.
    /// @param locked stake that stands behind them until settled
    /// @param penalty the part of it that a wrong or missing vote costs
    struct Ballot {
        uint16 seats;
        Vote vote;
        bool settled;
        uint96 locked;
        uint96 penalty;
        bytes32 commitment;
    }

    /// @notice What governance may set, each within hard-coded bounds, for disputes opened from now on.
    /// @param bond a challenger's; an appeal's grows with its jury (× 11 / 5, × 23 / 5)
    /// @param minJurorStake the least a juror stakes, and what stands behind each seat
    /// @param drawPeriod seconds to draw a jury in; likewise the others
    /// @param jailPeriod seconds that a faulty node is jailed for
    /// @param slashBps part of the node's stake that is slashed, in 1/10,000
    /// @param challengerBps part of the slash that is the challenger's
    /// @param juryBps part of the slash that is the winning seats'
    /// @param penaltyBps part of the stake behind a seat that a wrong or missing vote costs
    struct Parameters {
        uint96 bond;
        uint96 minJurorStake;
        uint32 drawPeriod;
        uint32 commitPeriod;
        uint32 revealPeriod;
        uint32 appealPeriod;
        uint32 jailPeriod;
        uint16 slashBps;
        uint16 challengerBps;
        uint16 juryBps;
        uint16 penaltyBps;
    }

    event Accused(
        uint256 indexed id,
        address indexed node,
        address indexed challenger,
        bytes32 receiptHash,
        bytes32 evidenceHash,
        string evidenceUri
    );
    /// @notice A jury of `seats` was called; `patron` put up `bond`.
    event JuryCalled(uint256 indexed id, uint8 indexed round, address indexed patron, uint256 bond, uint256 seats);
    /// @notice The jury may be drawn once `seedBlock` is past, for 256 blocks.
    event SeedArmed(uint256 indexed id, uint8 indexed round, uint64 seedBlock);
    event JurorDrawn(uint256 indexed id, uint8 indexed round, address indexed juror, uint16 seats);
    event JuryDrawn(uint256 indexed id, uint8 indexed round, uint256 seats, uint32 commitUntil, uint32 revealUntil);
    event Committed(uint256 indexed id, uint8 indexed round, address indexed juror, bytes32 commitment);
    event Revealed(uint256 indexed id, uint8 indexed round, address indexed juror, Vote vote, uint16 seats);
    /// @notice The last word. `slashed` of the node's stake was taken, of which the client got `refund`.
    event Concluded(uint256 indexed id, Outcome indexed outcome, uint256 slashed, uint256 refund, uint256 seatReward);
    event Settled(
        uint256 indexed id, uint8 indexed round, address indexed juror, uint256 reward, uint256 penalty
    );
    event Credited(address indexed account, uint256 indexed id, uint256 amount);
    event CreditWithdrawn(address indexed account, address indexed to, uint256 amount);
    event ParametersSet(uint32 indexed terms, Parameters parameters);

    error AddressIsZero();
    error NothingToWithdraw(address account);
    /// @notice A parameter outside its hard-coded bounds; governance cannot widen them.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);
    error NodeUnknown(address node);
    error NothingAtStake(address node);
    error SelfAccusation(address account);
    /// @notice The signature is not the node's over this receipt hash.
    error NotSignedByNode(address node, bytes32 receiptHash);
    error EvidenceMissing();
    error UriTooLong(uint256 length);
    error TrancheUnknown(bytes32 trancheId);
    /// @notice The receipt is or was before a jury, in a dispute that is open, convicted or acquitted.
    error AlreadyAccused(uint256 id);
    error WrongPhase(uint256 id, Phase phase);
    error SeedNotMined(uint64 seedBlock);
    error NotDrawn(uint256 id, address account);
    error CommitmentIsZero();
    error CommitmentMismatch(uint256 id, address juror);
    error AlreadyRevealed(uint256 id, address juror);
    error VoteIsNone();
    error NotTheLosingSide(uint256 id, address account);

    /// @notice Opens a dispute; pulls the bond from the caller. The stakes that jurors are drawn by are frozen here.
    function accuse(Accusation calldata accusation) external returns (uint256 id);

    /// @notice Draws the jury of the current round. Anyone may call, once the seed block is past.
    /// @dev Where its hash is not to be had any more, a new seed block is set instead, and `drawn` is false.
    function draw(uint256 id) external returns (bool drawn);

    /// @notice Files the caller's sealed vote, see `commitmentOf`. May be replaced until the deadline.
    function commit(uint256 id, bytes32 commitment) external;

    /// @notice Opens the caller's sealed vote; it counts once for each of its seats.
    function reveal(uint256 id, Vote vote, bytes32 salt) external;

    /// @notice Calls for a larger jury; pulls the bond from the caller. The challenger may when the node was found
    /// correct, the node or its owner when it was found faulty.
    function appeal(uint256 id) external;

    /// @notice Makes the last jury's verdict final: slashes, jails, and credits bonds and rewards. Anyone may call.
    function conclude(uint256 id) external;

    /// @notice Pays or penalises jurors of a concluded dispute and releases their stake. Anyone may call, at any time.
    function settle(uint256 id, address[] calldata jurors) external;

    /// @notice Sends all that the caller was credited, over all disputes, to `to`.
    function withdraw(address to) external returns (uint256 amount);

    /// @notice Sets the parameters, each within its bounds. Governance only.
    function setParameters(Parameters calldata parameters_) external;

    /// @notice What an account may `withdraw`.
    function credit(address account) external view returns (uint256);

    function dispute(uint256 id) external view returns (Dispute memory);

    function roundOf(uint256 id, uint8 round) external view returns (Round memory);

    function ballotOf(uint256 id, uint8 round, address juror) external view returns (Ballot memory);

    function phaseOf(uint256 id) external view returns (Phase);

    /// @notice What the round's revealed seats say so far.
    function verdictOf(uint256 id, uint8 round) external view returns (Outcome);

    /// @notice The last dispute over a receipt of a node, 0 for none.
    function disputeOver(address node, bytes32 receiptHash) external view returns (uint256 id);

    /// @notice How many disputes there were; ids start at 1.
    function disputes() external view returns (uint256);

    /// @notice The bond that calls for the jury of a round, for disputes opened now.
    function bondOf(uint8 round) external view returns (uint256);

    /// @notice How many seats the jury of a round has.
    function seatsOf(uint8 round) external pure returns (uint256);

    /// @notice `keccak256(abi.encode(id, round, juror, vote, salt))`.
    function commitmentOf(uint256 id, uint8 round, address juror, Vote vote, bytes32 salt)
        external
        pure
        returns (bytes32);

    function parameters() external view returns (Parameters memory);

    /// @notice Seconds from an accusation until it can be concluded, all deadlines and appeals used to the full.
    function longestDispute() external view returns (uint256);
}
