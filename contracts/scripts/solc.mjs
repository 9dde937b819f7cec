#!/usr/bin/env node
// A `solc` executable over npm's solc, for Brownie and Slither: standard JSON from stdin (or a file), nothing else.
// setup.sh links it as .solc/solc-v0.8.30 and .solc/solc. Imports come from the project and node_modules.
import { readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { findImport, root } from "./standard-json.mjs";

const solc = createRequire(join(root, "package.json"))("solc");

/** All of it: process.exit after console.log cuts a pipe off at 64 KiB. */
function print(text) {
  const bytes = Buffer.from(text);
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += writeSync(1, bytes, sent);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

const args = process.argv.slice(2);
if (args.includes("--version")) {
  print(`solc, the solidity compiler commandline interface\nVersion: ${solc.version().replace("Emscripten.clang", "Linux.js")}\n`);
} else if (args.includes("--standard-json")) {
  const file = args[args.indexOf("--standard-json") + 1];
  const input = readFileSync(file && !file.startsWith("-") && args.at(-1) === file ? file : 0, "utf8");
  print(solc.compile(input, { import: findImport }));
} else {
  process.stderr.write("this solc speaks --standard-json only\n");
  process.exitCode = 1;
}
