// How long the overview takes from its address to the first hosts that are seen, and to all that it shows, in a browser that was never there.
//
//     node tests/first-view.mjs URL PATH...
//
// For each path a line of JSON. `cargo xtask bench page` runs it with a fleet's day; the browser test has it measure what there is.

import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

/** On a machine that has other things to do, an unoptimized collector takes its time. */
const PATIENCE_MS = 60_000;

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"],
  });
}

/** Runs in the page before its own scripts: notes when the first row of hosts, and when all that was asked for, has been painted. */
function watch() {
  globalThis.seen = {};
  const painted = (what) => {
    if (what in globalThis.seen) return;
    globalThis.seen[what] = undefined;
    // The frame after the one that is made next has it on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => (globalThis.seen[what] = performance.now())));
  };
  const look = () => {
    if (document.querySelector(".hosts tbody tr")) painted("hosts_ms");
    if (document.querySelector("main") && document.querySelector("#services") && !document.querySelector('[aria-busy="true"]')) painted("all_ms");
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true, attributes: true });
}

/** Bytes of the page's own files as they came, compressed: all but answers. */
export function weight(page) {
  return page.evaluate(() => {
    const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    return entries.filter(({ name }) => !new URL(name).pathname.startsWith("/api/")).reduce((sum, entry) => sum + entry.encodedBodySize, 0);
  });
}

/** Milliseconds since the address was given, the hosts that are shown, and what the page weighs. */
export async function firstView(browser, address) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.addInitScript(watch);
  await page.goto(address, { waitUntil: "commit" });
  await page.waitForFunction(() => globalThis.seen.hosts_ms && globalThis.seen.all_ms);
  const { hosts_ms, all_ms } = await page.evaluate(() => globalThis.seen);
  const hosts = await page.locator(".hosts tbody tr").count();
  const page_bytes = await weight(page);
  await context.close();
  return { hosts_ms, all_ms, hosts, page_bytes };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [url, ...paths] = process.argv.slice(2);
  if (!paths.length) throw new Error("usage: first-view.mjs URL PATH...");
  const browser = await launch();
  for (const path of paths) console.log(JSON.stringify({ path, ...(await firstView(browser, `${url}${path}`)) }));
  await browser.close();
}
