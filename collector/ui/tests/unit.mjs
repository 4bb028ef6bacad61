// Runs the page's unit tests: those beside its sources, each made into one file that node can read.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const sources = join(dirname(fileURLToPath(import.meta.url)), "..", "src");
const tests = readdirSync(sources, { recursive: true })
  .filter((name) => name.endsWith(".test.ts"))
  .map((name) => join(sources, name));
const out = mkdtempSync(join(tmpdir(), "chokepoint-page-"));
try {
  await build({ entryPoints: tests, outdir: out, outbase: sources, bundle: true, platform: "node", format: "esm", outExtension: { ".js": ".mjs" }, external: ["node:*"], logLevel: "warning" });
  const files = readdirSync(out, { recursive: true })
    .filter((name) => name.endsWith(".test.mjs"))
    .map((name) => join(out, name));
  process.exitCode = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" }).status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
