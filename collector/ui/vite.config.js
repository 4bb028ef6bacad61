// The page's build: files with hashes in their names, and beside each a compressed one, which the collector has in its program.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { defineConfig } from "vite";

/** Writes NAME.gz beside every file that it makes shorter. */
function compress() {
  let out = "";
  return {
    name: "compress",
    apply: "build",
    configResolved(config) {
      out = join(config.root, config.build.outDir);
    },
    closeBundle() {
      for (const entry of readdirSync(out, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile()) continue;
        const path = join(entry.parentPath ?? entry.path, entry.name);
        const plain = readFileSync(path);
        const packed = gzipSync(plain, { level: 9 });
        if (packed.length < plain.length) writeFileSync(`${path}.gz`, packed);
      }
    },
  };
}

/** While the page is worked on (`npx vite`), a collector that runs answers its questions. */
const proxy = { "/api": process.env.CHOKEPOINT_URL ?? "http://127.0.0.1:4041" };

export default defineConfig({
  server: { proxy },
  preview: { proxy },
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    target: "es2022",
    // Nothing is written into the markup: its policy lets no inline script run.
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
  },
  plugins: [compress()],
});
