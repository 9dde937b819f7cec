"""One epoch after another: churn, sessions, audits of what was committed the epoch before, disputes, and the books."""

from __future__ import annotations

import numpy as np

from benchmarks.market.books import Books
from benchmarks.market.court import Dispute, Role, Validators, owner_of
from benchmarks.market.detection import CLASSES, Detection
from benchmarks.market.kinds import EARLY_EXIT, HONEST, KINDS, Fault
from benchmarks.market.population import NEVER, Bools, Floats, Ints, Population, Status
from benchmarks.market.routing import Clients, Offers, route
from benchmarks.market.rules import Rules
from benchmarks.market.work import Tally, Work, nothing
from corolla_core.protocol.beacon import is_audited
from corolla_core.protocol.ids import Address, Hash32, SessionId
from corolla_core.protocol.jury import Outcome, Vote, bond_split, pay_jury, slash_split
from corolla_core.protocol.suspicion import Standing, Suspicion
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.verdict import Outcome as Audited
from corolla_core.protocol.verdict import Verdict

VISIBLE = 0.25
"""The detection power from which a cheat counts as seen in a class: in one audit of four."""


class World:
    """Everything random comes from `seed`: the same seed and rules give the same history."""

    def __init__(self, rules: Rules, detection: Detection, seed: int) -> None:
        self.rules, self.seed, self.epoch = rules, seed, 0
        # A stream each: what happens to machines and clients is the same however audits go or an owner splits.
        found, churn, clients, self.rng = (
            np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(4)
        )
        joining = int(rules.joins * rules.epochs + 6 * (rules.joins * rules.epochs + 1) ** 0.5) + 1
        self.machines = rules.nodes + rules.machines + joining
        self.nodes = Population(rules, detection, found, self.machines + rules.machines * (rules.identities - 1))
        self.nodes.found()
        self.churn, self.clients, self.offers = churn, Clients(self.nodes, clients), Offers(self.nodes)
        self.validators, self.books, self.tally = Validators(rules), Books(), Tally()
        self.suspicions: dict[int, Suspicion] = {}
        self.disputes: list[Dispute] = []
        self.committed, self.sessions = nothing(), np.zeros(0, np.int64)
        self.ids: list[SessionId] = []
        self.pending = nothing()
        # [kind, class], a last row of zeros for honest nodes (kind -1)
        self.power = np.zeros((len(KINDS) + 1, len(CLASSES)))
        for k, kind in enumerate(KINDS):
            for name in detection.possible(kind.behaviour, CLASSES):
                self.power[k, CLASSES.index(name)] = float(detection.power(kind.behaviour, name))
        self.visible: Bools = self.power >= VISIBLE
        self.saved = np.array([*(kind.saved for kind in KINDS), 0])
        self.bribe = np.array([*(kind.bribe for kind in KINDS), 0])
        self.wary = np.array([*(kind.wary for kind in KINDS), False])
        self.withholds = np.array([*(kind.fault is Fault.WITHHELD for kind in KINDS), False])
        self.books.total = self.books.held() + self._owned()

    def run(self) -> World:
        for _ in range(self.rules.epochs):
            self.step()
        return self

    def step(self) -> None:
        """One epoch. Raises MoneyLost if it did not conserve money."""
        self._churn()
        if self.epoch and self.epoch % self.rules.settled_every == 0:
            self.nodes.settle()
            self.offers = Offers(self.nodes)
        served, sessions, ids = self._serve()
        # The beacon over the last epoch's sessions is a block of this one: drawn after their receipts were committed.
        beacon = Hash32(self.rng.bytes(32))
        self._audit(beacon)
        self.committed, self.sessions, self.ids = served, sessions, ids
        self._accuse_falsely()
        self._judge(beacon)
        self.nodes.forget()
        self.books.check(self._owned())
        self.epoch += 1

    # --- churn

    def _churn(self) -> None:
        nodes, rules, rng, now = self.nodes, self.rules, self.churn, self.epoch
        slot = now % rules.fee_lock
        nodes.wallet += nodes.locked[slot]
        nodes.locked[slot] = 0
        # What befalls a machine befalls every node on it.
        crashed = (rng.random(self.machines) < rules.crash)[nodes.machine] & (nodes.status == Status.ACTIVE)
        down = np.minimum(1 + rng.geometric(1 / 3, self.machines), rules.max_down)[nodes.machine]
        nodes.down_until[crashed] = now + down[crashed]
        leaving = (rng.random(self.machines) < rules.leave)[nodes.machine] & (nodes.status == Status.ACTIVE)
        nodes.status[leaving], nodes.released_at[leaving] = Status.LEAVING, now + rules.unbonding
        released = (nodes.status == Status.LEAVING) & (nodes.released_at <= now)
        self._release(np.nonzero(released)[0])
        for _ in range(int(rng.poisson(rules.joins))):
            if nodes.count < len(nodes.stake):
                row = nodes.join()
                self.offers.add(nodes, row)
                self.clients.meet(nodes, row)
                self.books.total += int(nodes.endowed[row])
        self.clients.change(nodes)

    def _release(self, rows: Ints) -> None:
        self.nodes.wallet[rows] += self.nodes.stake[rows]
        self.nodes.stake[rows] = 0
        self.nodes.status[rows] = Status.GONE

    # --- sessions

    def _serve(self) -> tuple[Work, Ints, list[SessionId]]:
        nodes, rules, rng = self.nodes, self.rules, self.clients.rng
        chosen = route(nodes, self.clients, self.offers, self.epoch)
        tokens = np.maximum(1, rng.lognormal(np.log(rules.mean_tokens) - 0.32, 0.8, rules.sessions)).astype(np.int64)
        node = chosen.ravel()
        # Patient adversaries: on probation, where everything is audited, all of them behave.
        cheated = (nodes.kind[node] != HONEST) & ~nodes.on_probation()[node] & ~self._wary(node)
        fee = self._earn(node, np.tile(tokens, rules.stages), cheated)
        nodes.sessions += np.bincount(node, minlength=len(nodes.stake))
        seen = self.visible[nodes.kind[node], nodes.numerics[node]]
        self.tally.traffic.append((float((cheated & seen).mean()), float((cheated & ~seen).mean())))
        raw = rng.bytes(16 * rules.sessions)
        ids = [SessionId(raw[i : i + 16]) for i in range(0, len(raw), 16)]
        since = np.full(len(node), self.epoch, np.int64)
        served = Work(node, cheated, np.zeros(len(node), np.bool_), self._evidence(fee), since)
        return served, np.tile(np.arange(rules.sessions), rules.stages), ids

    def _evidence(self, fees: Ints) -> Floats:
        """What an audited event counts: what is left of the fee when the share to burn is."""
        return fees * float(1 - self.rules.fee_burnt) / self.rules.terms.evidence_unit

    def _held(self, rows: Ints) -> Bools:
        """Against whom a failure stands."""
        against = np.zeros(len(self.nodes.stake), np.bool_)
        against[[row for row, each in self.suspicions.items() if each.standing is not Standing.CLEAR]] = True
        held: Bools = against[rows]
        return held

    def _wary(self, rows: Ints) -> Bools:
        wary: Bools = self.wary[self.nodes.kind[rows]] & self._held(rows)
        return wary

    def _earn(self, node: Ints, tokens: Ints, cheated: Bools) -> Ints:
        """Pay for hops and book what computing them cost; returns the fees."""
        nodes, rules, books = self.nodes, self.rules, self.books
        size = len(nodes.stake)
        work = tokens * rules.blocks
        fee: Ints = work * nodes.price[node]
        burnt = fee * rules.fee_burnt.numerator // rules.fee_burnt.denominator
        audits = fee * rules.fee_audits.numerator // rules.fee_audits.denominator
        full = work * nodes.cost[node]
        saved = np.where(cheated, full * self.saved[nodes.kind[node]] // 1000, 0)
        bribe = np.where(cheated, self.bribe[nodes.kind[node]], 0)
        books.clients -= int(fee.sum())
        books.burned += int(burnt.sum())
        books.pot += int(audits.sum())
        books.outside -= int(bribe.sum())
        books.spent += int((full - saved).sum())
        nodes.locked[self.epoch % rules.fee_lock] += _add_up(fee - burnt - audits, node, size)
        nodes.wallet += _add_up(bribe - (full - saved), node, size)
        nodes.revenue += _add_up(fee - burnt - audits, node, size)
        nodes.gained += _add_up(saved + bribe, node, size)
        nodes.owed += _add_up(np.where(cheated, fee, 0), node, size)
        nodes.cheated += _add_up(cheated.astype(np.int64), node, size)
        fresh = np.unique(node[cheated])
        fresh = fresh[nodes.first_cheat[fresh] == NEVER]
        nodes.first_cheat[fresh] = self.epoch
        return fee

    # --- audits

    def _audit(self, beacon: Hash32) -> None:
        nodes, rules, now = self.nodes, self.rules, self.epoch
        drawn = np.array([is_audited(beacon, each, rules.audit) for each in self.ids], np.bool_)
        real = nothing()
        if len(drawn):
            node = self.committed.node
            always = nodes.on_probation()[node] | self._held(node)
            real = self.committed.where(drawn[self.sessions] | always)
        work = self.pending + real + self._probe()
        work = work.where(nodes.status[work.node] != Status.GONE)
        up = nodes.down_until[work.node] <= now
        late = ~up & (now - work.since > rules.opening_deadline)
        for row in np.unique(work.node[late]):
            self._opening_withheld(int(row), self._some_validator())
        self.pending = work.where(~up & ~late)
        self._recompute(work.where(up))

    def _probe(self) -> Work:
        """Paid sessions of the validators' own, which top up what the beacon left out: drawn by stake, for whoever is
        probed is paid, and being many must not be."""
        nodes, rules, now = self.nodes, self.rules, self.epoch
        weights = np.where(nodes.serving(now), nodes.stake, 0).astype(np.float64)
        count = int(rules.probed * rules.nodes)
        rows = self.rng.choice(len(weights), size=count, p=weights / weights.sum()) if count else np.zeros(0, np.int64)
        cheated = (nodes.kind[rows] != HONEST) & ~nodes.on_probation()[rows] & ~self.wary[nodes.kind[rows]]
        fee = self._earn(rows, np.full(len(rows), rules.mean_tokens, np.int64), cheated)
        since = np.full(len(rows), now, np.int64)
        return Work(rows, cheated, np.ones(len(rows), np.bool_), self._evidence(fee), since)

    def _recompute(self, work: Work) -> None:
        nodes, rng, validators = self.nodes, self.rng, self.validators
        count = len(work.node)
        if not count:
            return
        auditor = validators.draw(rng, count)
        diligent = validators.role[auditor] != Role.LAZY
        self._pay_audits(auditor, diligent)
        kind, numerics = nodes.kind[work.node], nodes.numerics[work.node]
        # A probe's rows are in the validator's hands: withholding an opening hides nothing of what it computed.
        power = np.where(
            work.probe & self.withholds[kind], self.power[EARLY_EXIT, numerics], self.power[kind, numerics]
        )
        chance = np.where(work.cheated, power, nodes.false_positive[work.node])
        failed = diligent & (rng.random(count) < chance)
        honest = diligent & ~work.cheated
        self.tally.audits += count
        self.tally.honest_audits += int((honest & (kind == HONEST)).sum())
        self.tally.honest_flagged += int((failed & (kind == HONEST)).sum())
        size = len(nodes.stake)
        nodes.passed += np.bincount(work.node[~failed], work.weight[~failed], size)
        nodes.failed += np.bincount(work.node[failed], work.weight[failed], size)
        watched = np.isin(work.node, list(self.suspicions)) if self.suspicions else np.zeros(count, np.bool_)
        for i in np.nonzero(failed | watched)[0]:
            self._heed(int(work.node[i]), int(auditor[i]), failed=bool(failed[i]), probe=bool(work.probe[i]))

    def _heed(self, row: int, auditor: int, *, failed: bool, probe: bool) -> None:
        """What follows from one audit's result."""
        nodes = self.nodes
        if nodes.status[row] == Status.GONE:
            return
        if failed and nodes.first_flag[row] == NEVER:
            nodes.first_flag[row], nodes.cheated_at_flag[row] = self.epoch, nodes.cheated[row]
        fault = KINDS[nodes.kind[row]].fault if nodes.kind[row] != HONEST else Fault.NUMERICS
        if failed and fault is Fault.PROVEN:
            self._convict(row, int(nodes.stake[row]), auditor)
            return
        if failed and fault is Fault.WITHHELD and not probe:
            self._opening_withheld(row, auditor)
            return
        before = self.suspicions.get(row, Suspicion())
        verdict = Verdict(Audited.FAILED if failed else Audited.PASSED)
        after = self.suspicions[row] = before.after(verdict, Hash32(self.rng.bytes(32)))
        if after.standing is Standing.DISPUTED and before.standing is not Standing.DISPUTED:
            self._dispute(row, auditor, faulty=True)

    def _pay_audits(self, auditor: Ints, diligent: Bools) -> None:
        """Rewards from the pot; the cost of computing, which the lazy save; and the planted faults they miss."""
        rules, books, validators = self.rules, self.books, self.validators
        reward = min(rules.audit_reward, books.pot // len(auditor))
        held = np.bincount(auditor, minlength=rules.validators)
        worked = np.bincount(auditor[diligent], minlength=rules.validators)
        books.pot -= reward * len(auditor)
        books.spent += rules.audit_cost * int(worked.sum())
        validators.wallet += reward * held - rules.audit_cost * worked
        planted = self.rng.random(len(auditor)) < float(rules.planted)
        for row in auditor[planted & ~diligent]:
            self._fine(int(row), int(validators.stake[row] * rules.slash_missed))

    def _fine(self, validator: int, amount: int) -> None:
        self.validators.stake[validator] -= amount
        self.books.burned += amount

    def _some_validator(self) -> int:
        return int(self.validators.draw(self.rng, 1)[0])

    # --- disputes

    def _accuse_falsely(self) -> None:
        validators, rules = self.validators, self.rules
        for row in np.nonzero(validators.active & (validators.role == Role.FALSE_ACCUSER))[0]:
            if validators.wallet[row] >= rules.bond and self.rng.random() < rules.accusations:
                honest = (self.nodes.kind == HONEST) & (self.nodes.status == Status.ACTIVE)
                honest[[dispute.accused for dispute in self.disputes]] = False
                # By stake, which is what there is to win.
                weights = np.where(honest, self.nodes.stake, 0) / self.nodes.stake[honest].sum()
                self._dispute(int(self.rng.choice(len(weights), p=weights)), int(row), faulty=False)

    def _dispute(self, accused: int, challenger: int, *, faulty: bool) -> None:
        """The challenger posts its bond; the accused may serve until the jury has spoken."""
        bond = self.rules.bond
        self.validators.wallet[challenger] -= bond
        self.books.bonds += bond
        if self.nodes.status[accused] == Status.LEAVING:
            # Stake under dispute stays bonded, however long the appeals take.
            self.nodes.released_at[accused] += self.rules.unbonding
        self.tally.disputes += 1
        self.tally.false_disputes += not faulty
        self.disputes.append(Dispute(self.tally.disputes, accused, challenger, faulty))

    def _judge(self, beacon: bytes) -> None:
        for dispute in list(self.disputes):
            owner = owner_of(int(self.nodes.machine[dispute.accused]))
            outcome = dispute.sit(self.validators, owner, beacon, self.rng, self.rules)
            truth = Outcome.FAULTY if dispute.faulty else Outcome.CORRECT
            if not dispute.over:
                self.tally.overturned += outcome not in (truth, Outcome.DRAW)
                continue
            self.disputes.remove(dispute)
            self._settle(dispute, outcome)

    def _settle(self, dispute: Dispute, outcome: Outcome) -> None:
        nodes, validators, books, bond = self.nodes, self.validators, self.books, self.rules.bond
        row, challenger = dispute.accused, dispute.challenger
        books.bonds -= bond
        self.suspicions.pop(row, None)
        if outcome is Outcome.FAULTY:
            validators.wallet[challenger] += bond
            jury = self._convict(row, int(nodes.stake[row] * self.rules.slash_numerics), challenger)
            self._pay_jurors(dispute, dispute.coherent[Vote.FAULTY], jury)
        elif outcome is Outcome.CORRECT:
            split = bond_split(Nectar(bond))
            nodes.wallet[row] += split.node
            self._pay_jurors(dispute, dispute.coherent[Vote.CORRECT], split.jury)
        else:
            self.tally.draws += 1
            validators.wallet[challenger] += bond
        if outcome is not Outcome.DRAW:
            wrong = Vote.CORRECT if outcome is Outcome.FAULTY else Vote.FAULTY
            self._fine_jurors(dispute, dispute.coherent[wrong])

    def _pay_jurors(self, dispute: Dispute, coherent: set[Address], pot: int) -> None:
        """`pot` is no longer anybody's: to the jurors who voted as the last jury decided, the rest burned."""
        paid, rest = pay_jury(Nectar(pot), dispute.seats, coherent)
        for account, amount in paid.items():
            self.validators.wallet[self.validators.row[account]] += amount
        self.books.burned += rest

    def _fine_jurors(self, dispute: Dispute, wrong: set[Address]) -> None:
        validators = self.validators
        for account in dict.fromkeys(dispute.seats):
            row = validators.row[account]
            if account in wrong:
                self._fine(row, int(validators.stake[row] * self.rules.juror_wrong))
            elif account in dispute.absent:
                self._fine(row, int(validators.stake[row] * self.rules.juror_absent))

    # --- penalties

    def _opening_withheld(self, row: int, challenger: int) -> None:
        """The deadline passed on chain: a small slash, and jail."""
        amount = int(self.nodes.stake[row] * self.rules.slash_withheld)
        jury = self._slash(row, amount, challenger)
        self.books.burned += jury
        self.nodes.jailed_until[row] = self.epoch + self.rules.jail

    def _convict(self, row: int, amount: int, challenger: int) -> int:
        """Slash, forfeit the locked fees, tombstone. Returns the jury's share, which the caller pays out."""
        nodes, books = self.nodes, self.books
        locked = int(nodes.locked[:, row].sum())
        nodes.locked[:, row] = 0
        refund = min(locked, int(nodes.owed[row]))
        books.clients += refund
        books.refunded += refund
        books.burned += locked - refund
        nodes.owed[row] -= refund
        nodes.slashed[row] += locked
        jury = self._slash(row, amount, challenger)
        self._release(np.array([row]))
        self.suspicions.pop(row, None)
        if KINDS[nodes.kind[row]].fault is Fault.PROVEN and nodes.kind[row] != HONEST:
            books.burned += jury
            return 0
        return jury

    def _slash(self, row: int, amount: int, challenger: int) -> int:
        """Take `amount` of a node's stake and hand it out, but for the jury's share, which is returned."""
        nodes, books = self.nodes, self.books
        split = slash_split(Nectar(amount), owed=Nectar(int(nodes.owed[row])))
        nodes.stake[row] -= amount
        nodes.owed[row] -= split.refund
        nodes.slashed[row] += amount
        if nodes.convicted[row] == NEVER:
            nodes.convicted[row] = self.epoch
        self.tally.honest_slashed += int(nodes.kind[row] == HONEST)
        self.validators.wallet[challenger] += split.challenger
        books.clients += split.refund
        books.refunded += split.refund
        books.burned += split.burned
        return split.jury

    def _owned(self) -> int:
        return int(self.nodes.worth().sum() + self.validators.stake.sum() + self.validators.wallet.sum())


def _add_up(amounts: Ints, rows: Ints, size: int) -> Ints:
    """Exact integer sums by row; bincount's weights would pass through floats."""
    out = np.zeros(size, np.int64)
    np.add.at(out, rows, amounts)
    return out
