#!/usr/bin/env node
// Writes the contracts' reference, docs/reference/contracts.md, from the interfaces' NatSpec.
//   node contracts/scripts/natspec.mjs           write it
//   node contracts/scripts/natspec.mjs --check   fail if what is committed differs from what the sources give
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { compile, root, settings, sources } from "./standard-json.mjs";

const target = join(root, "..", "docs", "reference", "contracts.md");
const outputSelection = { "*": { "*": ["abi", "devdoc", "userdoc"] } };
const { contracts } = compile({
  language: "Solidity",
  sources: sources("interfaces"),
  settings: { ...settings, outputSelection },
});

const type = (input) => (input.internalType ?? input.type).replace(/^(struct|enum|contract) /, "");
const list = (inputs) => inputs.map((input) => `${type(input)}${input.name ? " " + input.name : ""}`).join(", ");
const plain = ({ type, components }) =>
  type.startsWith("tuple") ? `(${components.map(plain).join(",")})${type.slice(5)}` : type;
const selector = (entry) => `${entry.name}(${entry.inputs.map(plain).join(",")})`;
const line = (text) => (text ?? "").replace(/\s+/g, " ").trim();
const named = (docs = {}) => Object.entries(docs).map(([name, text]) => `- \`${name}\`: ${line(text)}`);

function entry(item, user = {}, dev = {}) {
  const returns = item.outputs?.length ? ` returns (${list(item.outputs)})` : "";
  const view = ["view", "pure"].includes(item.stateMutability) ? ` ${item.stateMutability}` : "";
  const said = [line(user.notice), line(dev.details)].filter(Boolean);
  const given = [...named(dev.params), ...named(dev.returns).map((text) => text.replace("- `", "- returns `"))];
  return [`#### ${item.name}`, "```solidity", `${item.type} ${item.name}(${list(item.inputs)})${view}${returns}`, "```", ...said, ...(given.length ? ["", ...given] : []), ""];
}

const lines = [
  "# Contracts",
  "",
  "Written by `node contracts/scripts/natspec.mjs` from [the interfaces](../../contracts/interfaces). Amounts are base units of",
  "Nectar (10⁻¹⁸), times are seconds.",
  "",
];
for (const path of Object.keys(contracts).sort()) {
  if (!path.startsWith("interfaces/")) continue;
  for (const [name, { abi, devdoc, userdoc }] of Object.entries(contracts[path])) {
    lines.push(`## ${name}`, "", line(devdoc.title), "", line(userdoc.notice), "");
    for (const [kind, title] of [["function", "Functions"], ["event", "Events"], ["error", "Errors"]]) {
      const items = abi.filter((item) => item.type === kind).sort((a, b) => (a.name < b.name ? -1 : 1));
      if (!items.length) continue;
      lines.push(`### ${title} of ${name}`, "");
      const users = userdoc[{ function: "methods", event: "events", error: "errors" }[kind]] ?? {};
      const devs = devdoc[{ function: "methods", event: "events", error: "errors" }[kind]] ?? {};
      for (const item of items) {
        const one = (docs) => [docs[selector(item)] ?? {}].flat()[0];
        lines.push(...entry(item, one(users), one(devs)));
      }
    }
  }
}
const text = lines.join("\n").replace(/\n{3,}/g, "\n\n").trimEnd() + "\n";
if (process.argv.includes("--check")) {
  const same = existsSync(target) && readFileSync(target, "utf8") === text;
  if (!same) process.stderr.write(`${target} differs from the sources: run node contracts/scripts/natspec.mjs\n`);
  process.exitCode = same ? 0 : 1;
} else {
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, text);
}
