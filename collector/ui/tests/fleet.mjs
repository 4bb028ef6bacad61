// A fleet's overview, of a collector with windows of many hosts: how soon it is there, and how a host is found in it.

import { firstView } from "./first-view.mjs";

const { FLEET: HOSTS, LIMITED, CONSTRAINT, ZONE, IN_ZONE } = process.env;
/** What is to be reached on an idle machine, and how much longer is a failure whatever else the machine does. */
const FIRST_MS = 1000;
const SLACK = 6;
/** What the page may weigh, compressed. */
const MOST_BYTES = 300_000;

async function fleet(page, { url, time, visit, settled, shot, accessible, address, assert, equal }, name) {
  await visit(page, `/?${time}`);
  const rows = page.locator(".hosts tbody tr");
  equal(await rows.count(), Number(HOSTS), "hosts");
  const headline = await page.getByRole("heading", { level: 1 }).innerText();
  equal(headline, `${LIMITED} of ${HOSTS} hosts are limited: ${CONSTRAINT}.`, "the headline");
  // The worst are first, and what share of hosts they are is told.
  assert((await rows.first().innerText()).includes(CONSTRAINT), await rows.first().innerText());
  await page.getByRole("button", { name: `${CONSTRAINT} ${LIMITED} of ${HOSTS}` }).click();
  await page.waitForFunction((count) => document.querySelectorAll(".hosts tbody tr").length === count, Number(LIMITED));
  await page.getByRole("button", { name: `${CONSTRAINT} ${LIMITED} of ${HOSTS}` }).click();
  await page.getByPlaceholder("Find hosts").fill(ZONE);
  await page.waitForFunction((count) => document.querySelectorAll(".hosts tbody tr").length === count, Number(IN_ZONE));
  equal((await address(page)).searchParams.get("find"), ZONE, "what is sought in the address");
  // Where columns have no heads, a list has their names.
  const head = page.locator(".hosts").getByRole("button", { name: "CPU free" });
  if (await head.isVisible()) await head.click();
  else await page.getByLabel("Sort by").selectOption("cpu");
  equal((await address(page)).searchParams.get("sort"), "cpu", "what is sorted by in the address");
  await page.getByPlaceholder("Find hosts").fill("");
  await page.waitForFunction((count) => document.querySelectorAll(".hosts tbody tr").length === count, Number(HOSTS));
  // By a label, with completion: hosts and services of a zone alone.
  const [label, value] = ZONE.split("=");
  const field = page.getByRole("combobox", { name: "Only these: labels" });
  await field.fill(`${label}="${value}"`);
  await field.press("Escape");
  await field.press("Enter");
  await page.waitForFunction((count) => document.querySelectorAll(".hosts tbody tr").length === count, Number(IN_ZONE));
  equal((await address(page)).searchParams.get("query"), `{${label}="${value}"}`, "the labels in the address");
  await field.fill("");
  await field.press("Escape");
  await field.press("Enter");
  await page.waitForFunction((count) => document.querySelectorAll(".hosts tbody tr").length === count, Number(HOSTS));
  await settled(page);
  await shot(page, `fleet-${name}`, false);
  await accessible(page, `fleet, ${name}`);
  equal(Math.max(0, await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)), 0, `fleet, ${name}: pixels that the page is too wide`);
  assert((await address(page)).href.startsWith(url), "it is still there");
}

export const tests = {
  "a fleet is there at once": {
    async run(page, { url, time, assert, equal }) {
      const { hosts_ms, all_ms, hosts, page_bytes } = await firstView(page.context().browser(), `${url}/?${time}`);
      console.log(`  first view of ${hosts} hosts after ${hosts_ms.toFixed(0)} ms, all of it after ${all_ms.toFixed(0)} ms${hosts_ms > FIRST_MS ? `, above ${FIRST_MS} ms` : ""}`);
      console.log(`  the page weighs ${(page_bytes / 1000).toFixed(1)} kB, compressed`);
      assert(page_bytes > 1000 && page_bytes < MOST_BYTES, `the page weighs ${page_bytes} bytes`);
      equal(hosts, Number(HOSTS), "hosts");
      assert(hosts_ms < FIRST_MS * SLACK, `${hosts_ms} ms`);
    },
  },
  "a fleet is sorted, filtered and sought in, light": { run: (page, tools) => fleet(page, tools, "light") },
  "a fleet is sorted, filtered and sought in, dark": { options: { colorScheme: "dark" }, run: (page, tools) => fleet(page, tools, "dark") },
  "a fleet is sorted, filtered and sought in, 400 px": { options: { viewport: { width: 400, height: 800 } }, run: (page, tools) => fleet(page, tools, "narrow") },
};
