// Opens the page of a running collector in a real browser and uses it as people do. Fails on anything that a user would see, on any error in the
// console, on any request that leaves the collector, and on serious findings of axe.
//
//     node tests/browser.mjs URL DIRECTORY HOST FROM UNTIL
//
// Where READER_TOKEN and OPERATOR_TOKEN are set, its collector asks for tokens, its agent runs, and profiles of the process TARGET_PID, which is called TARGET_NAME, are made.
//
// Where FLEET is set, to a number of hosts, its collector has these and no agent. TARGET_POD and TARGET_CONTAINER are profiled, too, where they are set. Where CHANGED_AT is, the program checkout changed then.
// Where SHOWN is, as FROM-UNTIL, pictures for the documentation are made of that time.
//
// FROM and UNTIL are Unix seconds of what is looked at. Screenshots go into the directory. `tests/tests/page.rs` starts this, with data from a real agent.

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { launch } from "./first-view.mjs";
import * as fleet from "./fleet.mjs";
import * as flame from "./flame.mjs";
import * as profile from "./profile.mjs";
import * as views from "./views.mjs";

const [url, directory, host, from, until] = process.argv.slice(2);
if (!until) throw new Error("usage: browser.mjs URL DIRECTORY HOST FROM UNTIL");
mkdirSync(directory, { recursive: true });
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** On a machine that has other things to do, an unoptimized collector takes its time. */
const PATIENCE_MS = 60_000;
/** Findings of these impacts fail the test. */
const SERIOUS = new Set(["serious", "critical"]);

const browser = await launch();
console.log(`Chromium ${browser.version()}`);
/** What failed, and why. */
const failed = [];

/** A tab with everything that may go wrong in it. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light", acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const problems = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) problems.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => problems.push(`uncaught: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(blob|data):/.test(request.url())) problems.push(`asked elsewhere: ${request.url()}`);
  });
  return { context, page, problems };
}

/** What a test has to work with. */
const tools = {
  url,
  host,
  /** The time of all that is stored, as addresses have it. */
  time: `from=${from}&until=${until}`,
  from: Number(from),
  until: Number(until),
  /** When the program checkout changed in between, where it did. */
  changed: Number(process.env.CHANGED_AT) || undefined,
  /** The time of which the documentation has pictures, where it is to have any. */
  pictured: process.env.SHOWN?.split("-").map(Number),
  /** Goes to a view and waits until all of it is there. */
  async visit(page, path) {
    await page.goto(`${url}${path}`);
    await tools.settled(page);
  },
  async settled(page) {
    await page.waitForFunction(() => document.querySelector("main h1, main .panel, main .empty") && !document.querySelector('[aria-busy="true"]'));
  },
  /** The address as the page has it: the browser tells changes of it to this side later than what else happens, and the page changes it five
   * times a second at most. */
  async address(page) {
    await page.waitForTimeout(300);
    return new URL(await page.evaluate(() => location.href));
  },
  async shot(page, name, fullPage = true) {
    await page.screenshot({ path: join(directory, `${name}.png`), fullPage });
  },
  assert(condition, message) {
    if (!condition) throw new Error(message);
  },
  equal(actual, expected, message) {
    if (JSON.stringify(actual) !== JSON.stringify(expected)) throw new Error(`${message}: ${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`);
  },
  /** What axe has to say of what is shown. */
  async accessible(page, where) {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    for (const { id, impact, help, nodes } of violations) {
      const shown = `${where}: axe, ${impact}: ${help} (${id}) at ${nodes.slice(0, 3).map((node) => `${node.target.join(" ")} ${node.any.map((check) => check.message).join("; ")}`).join(" | ")}`;
      if (SERIOUS.has(impact)) throw new Error(shown);
      console.log(`  ${shown}`);
    }
  },
};

const only = process.env.ONLY;
const tests = process.env.OPERATOR_TOKEN ? profile.tests : process.env.FLEET ? fleet.tests : { ...views.tests, ...flame.tests };
for (const [name, { options, run, expected }] of Object.entries(tests)) {
  if (only && !new RegExp(only).test(name)) continue;
  const { context, page, problems } = await open(options);
  const start = Date.now();
  let problem;
  try {
    await run(page, tools);
  } catch (error) {
    problem = error.stack;
    await tools.shot(page, `failed ${name.replaceAll("/", " ")}`).catch(() => {});
  }
  const unexpected = problems.filter((text) => !expected?.test(text));
  const reasons = [...(problem ? [problem] : []), ...unexpected].map((reason) => `  ${reason}`);
  console.log([`${reasons.length ? "FAILED" : "ok    "} ${name} (${Date.now() - start} ms)`, ...reasons].join("\n"));
  if (reasons.length) failed.push([name, ...reasons].join("\n"));
  await context.close();
}
await browser.close();
if (failed.length) console.error(failed.join("\n"));
process.exitCode = failed.length ? 1 : 0;
