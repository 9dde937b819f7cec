// The heat map: blocks from left to right, a line for each node, red where nobody serves.

import { el, reconcile, setText } from "./dom.js";
import { short, span } from "./format.js";

export function showCoverage(coverage, openNode) {
  const heat = document.getElementById("heat");
  heat.style.setProperty("--n", coverage.num_blocks);
  const rows = [
    { key: "axis", num: coverage.num_blocks },
    { key: "servers", servers: coverage.servers },
    ...coverage.rows.map((row) => ({ key: row.account, ...row, gaps: coverage.gaps })),
  ];
  reconcile(heat, rows, (row) => row.key, (row) => (row.key === "axis" ? axis(row.num) : row.key === "servers" ? totals(row.servers) : line(row, openNode)));
  const gaps = coverage.gaps.map(span).join(", ");
  const words = gaps ? `Blocks ${gaps}: served by nobody` : `All ${coverage.num_blocks} blocks are served`;
  setText("gaps", words);
  document.getElementById("gaps").dataset.state = gaps ? "down" : "serving";
}

function axis(num) {
  const step = Math.max(1, 5 * Math.ceil(num / 40));
  const marks = [];
  for (let block = 0; block < num; block += step) marks.push(el("span", { vars: { "grid-column": String(block + 1) } }, String(block)));
  return el("li", { class: "axis", "aria-hidden": "true" }, el("span", { class: "who" }, "block"), el("span", { class: "track" }, ...marks));
}

function totals(servers) {
  const cells = servers.map((count, block) => el("span", { class: "cell", "data-servers": Math.min(count, 3), "data-block": block, title: `block ${block}: ${count} ${count === 1 ? "node" : "nodes"}` }));
  const fewest = servers.length ? Math.min(...servers) : 0;
  return el(
    "li",
    { class: "servers" },
    el("span", { class: "who" }, "usable nodes"),
    el("span", { class: "sr" }, `at least ${fewest} for every block`),
    el("span", { class: "track", "aria-hidden": "true" }, ...cells),
  );
}

function line(row, openNode) {
  const { start, end } = row.blocks;
  const column = (from, to) => ({ "grid-column": `${from + 1} / ${to + 1}` });
  const gaps = row.gaps.map((gap) => el("span", { class: "gap", vars: column(gap.start, gap.end) }));
  const bar = el("span", { class: "bar", "data-state": row.state, vars: { ...column(start, end), "--len": String(end - start) } });
  return el(
    "li",
    { "data-account": row.account, "data-state": row.state },
    el("button", { type: "button", class: "who hash", title: row.account, on: { click: () => openNode(row.account) } }, short(row.account)),
    el("span", { class: "sr" }, `blocks ${span(row.blocks)}, ${row.state}`),
    el("span", { class: "track", "aria-hidden": "true" }, ...gaps, bar),
  );
}
