// The page put together.

import { el, reconcile, setText } from "./dom.js";
import { account, ago, amount, percent, pill, refreshTimes, short, span, transaction } from "./format.js";
import { showCoverage } from "./heat.js";
import { List } from "./list.js";
import { Live } from "./live.js";
import { startPlayground } from "./playground.js";
import { startTheme } from "./theme.js";

const SECTIONS = ["overview", "sessions", "audits", "justice", "earnings", "playground"];
const $ = (id) => document.getElementById(id);
const shown = () => SECTIONS.find((name) => `#${name}` === location.hash) ?? "overview";
let overview = null, open = null;

startTheme($("theme"));
const live = new Live((up) => {
  $("live").dataset.live = up ? "yes" : "no";
  setText("live", up ? "live" : "reconnecting");
});

const tx = (place) => transaction(place, overview?.tx_url);
const who = (address) => el("button", { type: "button", class: "plain hash", title: address, on: { click: () => openNode(address) } }, short(address));
const juries = (rounds) => rounds.map((r) => `${r.faulty} faulty, ${r.correct} correct${r.unavailable ? `, ${r.unavailable} unavailable` : ""} of ${r.seats}`).join("; then ") || "–";

function list(topic, panel, section, options) {
  const made = new List($(panel), { ...options, onTurn: () => live.refresh() });
  live.watch(topic, {
    url: () => `api/${topic}?${made.query}`,
    show: (page) => made.show(page),
    wanted: () => overview !== null && shown() === section,
  });
}

live.watch("overview", { url: () => "api/overview", show: showOverview });
live.watch("nodes", { url: () => `api/nodes/${open}`, show: showDetails, wanted: () => open !== null });
live.watch("coverage", { url: () => "api/coverage", show: (found) => showCoverage(found, openNode), wanted: () => shown() === "overview" });
list("nodes", "nodes", "overview", {
  label: "Nodes",
  keyOf: (node) => node.account,
  empty: "No node has announced itself or registered yet.",
  columns: [
    ["Node", (n) => who(n.account)],
    ["State", (n) => el("span", { class: "states" }, pill(n.state), n.slashed !== "0" ? pill("slashed", "slashed") : null)],
    ["Blocks", (n) => span(n.blocks), "num"],
    ["Tokens/s", (n) => (n.tokens_per_second === null ? "–" : n.tokens_per_second.toFixed(1)), "num"],
    ["Price per 1,000", (n) => (n.price_per_1000 === null ? "–" : amount(n.price_per_1000)), "num"],
    ["Stake", (n) => amount(n.stake), "num"],
    ["Score", (n) => percent(n.score ?? n.own_score), "num"],
    ["Last audit", (n) => (n.last_audit ? el("span", {}, pill(n.last_audit.outcome), " ", ago(n.last_audit.at)) : "–")],
    ["Earned", (n) => amount(n.earned), "num"],
  ],
});
list("sessions", "sessions-list", "sessions", {
  label: "Audited sessions",
  keyOf: (s) => s.session,
  empty: "No session has been audited yet.",
  columns: [
    ["Session", (s) => el("span", { class: "hash", title: s.session }, short(s.session))],
    ["Outcome", (s) => pill(s.outcome)],
    ["Nodes", (s) => el("ul", { class: "parts" }, ...s.parts.map((p) => el("li", {}, `${span(p.blocks)} `, who(p.node), " ", pill(p.outcome))))],
    ["Positions", (s) => String(Math.max(...s.parts.map((p) => p.positions))), "num"],
    ["Audited", (s) => ago(s.at)],
  ],
});
list("audits", "audits-list", "audits", {
  label: "Audits",
  keyOf: (a) => a.evidence,
  empty: "Nothing has been audited yet.",
  columns: [
    ["Node", (a) => who(a.node)],
    ["Outcome", (a) => pill(a.outcome)],
    ["Blocks", (a) => span(a.blocks), "num"],
    ["Positions", (a) => String(a.positions), "num"],
    ["w16", (a) => (a.w16 === null ? "not finite" : a.w16.toExponential(1)), "num"],
    ["Why", (a) => a.reasons.join("; ") || "–"],
    ["Session", (a) => el("span", { class: "hash", title: a.session }, short(a.session))],
    ["Evidence", (a) => el("span", { class: "hash", title: a.evidence }, short(a.evidence))],
    ["When", (a) => ago(a.at)],
  ],
});
list("penalties", "penalties", "justice", {
  label: "Stake taken",
  keyOf: (p) => `${p.place.block} ${p.place.tx} ${p.node} ${p.amount} ${p.reason}`,
  empty: "No node has lost stake.",
  columns: [
    ["Node", (p) => who(p.node)],
    ["For", (p) => p.reason],
    ["Taken", (p) => amount(p.amount), "num"],
    ["Transaction", (p) => tx(p.place)],
  ],
});
list("disputes", "disputes", "justice", {
  label: "Disputes",
  keyOf: (d) => d.id,
  empty: "Nobody was accused.",
  columns: [
    ["No.", (d) => String(d.id), "num"],
    ["Node", (d) => who(d.node)],
    ["Outcome", (d) => pill(d.outcome)],
    ["Jury", (d) => juries(d.rounds)],
    ["Taken", (d) => amount(d.slashed), "num"],
    ["Refunded", (d) => amount(d.refund), "num"],
    ["Challenger", (d) => account(d.challenger)],
    ["Opened", (d) => tx(d.opened)],
    ["Concluded", (d) => tx(d.concluded)],
  ],
});
list("challenges", "challenges", "justice", {
  label: "Rows demanded",
  keyOf: (c) => `${c.place?.block} ${c.place?.tx} ${c.node} ${c.deadline}`,
  empty: "No row was demanded on chain.",
  columns: [
    ["Node", (c) => who(c.node)],
    ["State", (c) => pill(c.state)],
    ["Deadline", (c) => ago(c.deadline)],
    ["Challenger", (c) => account(c.challenger)],
    ["Transaction", (c) => tx(c.place)],
  ],
});
list("earnings", "earnings-list", "earnings", {
  label: "Earnings",
  keyOf: (e) => e.node,
  empty: "Nothing was redeemed yet.",
  columns: [
    ["Node", (e) => who(e.node)],
    ["Net", (e) => amount(e.net), "num"],
    ["Burned", (e) => amount(e.burned), "num"],
    ["Unclaimed", (e) => amount(e.unclaimed), "num"],
    ["Redemptions", (e) => String(e.redemptions), "num"],
    ["Last", (e) => tx(e.last)],
  ],
});

function showOverview(found) {
  const first = overview === null, { counts } = found;
  overview = found;
  setText("network", `${found.network}: ${found.model}, ${found.num_blocks} blocks`);
  const tiles = [
    ["Serving", String(counts.serving), `of ${counts.nodes} nodes`],
    ["Blocks covered", String(counts.covered), `of ${found.num_blocks}`, counts.covered < found.num_blocks ? "down" : ""],
    ["Down", String(counts.down), counts.down ? "announced, silent" : "all answer", counts.down ? "down" : ""],
    ["Audits", String(counts.audits), `${counts.failed_audits} failed, ${counts.sessions} sessions`],
    ["Slashed", String(counts.slashed_nodes), `${Number(counts.slashed).toLocaleString("en", { maximumSignificantDigits: 4 })} NECT, ${counts.disputes} ${counts.disputes === 1 ? "dispute" : "disputes"}`, counts.slashed_nodes ? "expelled" : ""],
    ["Earned", Number(counts.earned).toLocaleString("en", { maximumSignificantDigits: 4 }), "NECT"],
  ];
  reconcile($("tiles"), tiles, ([name]) => name, ([name, value, note, state]) =>
    el("div", { class: "tile", "data-tile": name, "data-state": state || null }, el("dt", {}, name), el("dd", {}, el("strong", {}, value), " ", el("span", {}, note))),
  );
  const stale = found.health.filter((source) => !source.fresh);
  $("trouble").hidden = stale.length === 0;
  setText("trouble", stale.map((source) => `${source.name} is out of reach (${source.why})`).join("; "));
  setText("foot", `chain ${found.chain_id}, block ${found.head}; model ${found.model_root.slice(0, 16)}…; as this validator sees it`);
  if (first) {
    startPlayground($("play"), found.playground);
    live.refresh();
  }
}

function openNode(address) {
  open = address;
  $("details-facts").replaceChildren();
  $("details-facts").known?.clear();
  live.refresh();
  if (!$("details").open) $("details").showModal();
}

function showDetails(node) {
  reconcile($("details-facts"), factsOf(node), ([name]) => name, ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}

function factsOf(node) {
  const { audits } = node;
  return [
    ["Account", node.account],
    ["State", node.state + (node.jailed_until ? ` until ${new Date(node.jailed_until * 1000).toLocaleString()}` : "")],
    ["Blocks", span(node.blocks)],
    ["Address", node.host || "–"],
    ["Peer", node.peer_id || "–"],
    ["Class", node.numeric_class || "–"],
    ["Wire", node.wires.join(", ") || "–"],
    ["Announced speed", node.tokens_per_second === null ? "–" : `${node.tokens_per_second} tokens/s`],
    ["Open sessions", node.sessions === null ? "–" : String(node.sessions)],
    ["Price per 1,000 tokens", node.price_per_1000 === null ? "–" : `${node.price_per_1000} NECT`],
    ["Stake", `${node.stake} NECT`],
    ["Unbonding", `${node.unbonding} NECT`],
    ["Slashed", `${node.slashed} NECT`],
    ["Earned", `${node.earned} NECT`],
    ["Settled score", percent(node.score)],
    ["This validator's score", percent(node.own_score) + (node.probation ? ", on probation" : "")],
    ["Audits", `${audits.passed} passed, ${audits.failed} failed, ${audits.undecided} undecided`],
    ["Standing", node.standing],
    ["Weights", node.weights],
  ];
}

function navigate() {
  const section = shown();
  for (const name of SECTIONS) $(name).hidden = name !== section;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  live.refresh();
}

$("details-close").addEventListener("click", () => $("details").close());
$("details").addEventListener("close", () => (open = null));
addEventListener("hashchange", navigate);
navigate();
setInterval(refreshTimes, 5000);
