// One compiler input for everything: the exported artifacts, Brownie and Slither see the same settings.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(join(root, "package.json"));

export const settings = {
  evmVersion: "shanghai",
  optimizer: { enabled: true, runs: 10000 },
  // No metadata hash: the same sources give the same bytes on any machine.
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
};

/** The text of an import, from the project or from node_modules. */
export function findImport(path) {
  for (const base of [root, join(root, "node_modules")]) {
    const file = join(base, path);
    if (existsSync(file)) return { contents: readFileSync(file, "utf8") };
  }
  return { error: `not found: ${path}` };
}

/** `{path: {content}}` of every .sol file under the given folders of the project. */
export function sources(...folders) {
  const found = {};
  const walk = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (entry.name.endsWith(".sol")) {
        found[relative(root, path).split(sep).join("/")] = { content: readFileSync(path, "utf8") };
      }
    }
  };
  folders.forEach((folder) => walk(join(root, folder)));
  return found;
}

/** Compiles a standard-JSON input; prints warnings, throws on errors. */
export function compile(input) {
  const solc = require("solc");
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: findImport }));
  const problems = output.errors ?? [];
  problems.forEach((problem) => process.stderr.write(problem.formattedMessage));
  if (problems.some((problem) => problem.severity === "error")) throw new Error("compilation failed");
  return output;
}
