#!/usr/bin/env node
// Writes ABI and bytecode of the deployed contracts to core/corolla_core/chain/abi/, where the product ships them.
//   node contracts/scripts/compile.mjs           write them
//   node contracts/scripts/compile.mjs --check   fail if what is committed differs from what the sources give
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile, root, settings, sources } from "./standard-json.mjs";

const EXPORTED = {
  NectarToken: "contracts/NectarToken.sol",
  NodeRegistry: "contracts/NodeRegistry.sol",
  ModelRegistry: "contracts/ModelRegistry.sol",
  Escrow: "contracts/Escrow.sol",
  Faults: "contracts/Faults.sol",
  NectarGovernor: "contracts/NectarGovernor.sol",
  ReputationOracle: "contracts/ReputationOracle.sol",
  Disputes: "contracts/Disputes.sol",
  JurorPool: "contracts/JurorPool.sol",
  Cooperative: "contracts/Cooperative.sol",
  CooperativeFactory: "contracts/CooperativeFactory.sol",
  OperatorRegistry: "contracts/OperatorRegistry.sol",
  TimelockController: "@openzeppelin/contracts/governance/TimelockController.sol",
};
const target = join(root, "..", "core", "corolla_core", "chain", "abi");
const MAX_CODE = 24576; // EIP-170

const input = {
  language: "Solidity",
  sources: {
    ...sources("contracts", "interfaces"),
    "export.sol": { content: `// SPDX-License-Identifier: Apache-2.0\npragma solidity 0.8.30;\nimport "${EXPORTED.TimelockController}";\n` },
  },
  settings,
};
if (process.argv.includes("--slither-input")) {
  // The same sources and settings for another reader, which wants paths that exist.
  const remappings = ["@openzeppelin=node_modules/@openzeppelin"];
  const product = { ...sources("contracts", "interfaces") };
  for (const path of Object.keys(product)) if (path.startsWith("contracts/test/")) delete product[path];
  const text = JSON.stringify({ ...input, sources: product, settings: { ...settings, remappings, outputSelection: undefined } });
  process.stdout.write(text, () => process.exit(0));
  await new Promise(() => {});
}
const output = compile(input);

let stale = 0;
mkdirSync(target, { recursive: true });
for (const [contractName, path] of Object.entries(EXPORTED)) {
  const { abi, evm } = output.contracts[path][contractName];
  const size = evm.deployedBytecode.object.length / 2;
  if (size > MAX_CODE) throw new Error(`${contractName} has ${size} bytes of code, more than a chain accepts`);
  const text = JSON.stringify({ contractName, abi, bytecode: "0x" + evm.bytecode.object }, null, 1) + "\n";
  const file = join(target, `${contractName}.json`);
  const same = existsSync(file) && readFileSync(file, "utf8") === text;
  if (process.argv.includes("--check")) {
    if (!same) process.stderr.write(`${file} differs from the sources: run node contracts/scripts/compile.mjs\n`);
    stale += same ? 0 : 1;
  } else if (!same) writeFileSync(file, text);
  process.stdout.write(`${contractName} ${size} bytes${same ? "" : " (changed)"}\n`);
}
process.exitCode = stale ? 1 : 0;
