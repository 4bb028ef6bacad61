// The views, each opened, clicked and typed into.

import { readFileSync } from "node:fs";
import { firstView } from "./first-view.mjs";

const HOSTILE = "onerror";

/** No markup was made of what processes chose. */
async function harmless(page, { assert }) {
  const found = await page.evaluate(() => ({ images: document.querySelectorAll("img, script:not([src])").length, owned: globalThis.owned }));
  assert(found.images === 0 && found.owned === undefined, `markup was made of a name: ${JSON.stringify(found)}`);
}

const encoded = (text) => encodeURIComponent(text);

/** What a collector may answer of latencies and retransmits: known numbers, of devices and peers that this host does not have. */
async function withLatencies(page, { from, until }) {
  const bounds = [...Array.from({ length: 24 }, (_, at) => 1000 * 2 ** at), null];
  const steps = Math.max(2, Math.floor((until - from) / 10));
  const instances = (names) =>
    names.map((instance, kind) => ({
      instance,
      labels: {},
      times: Array.from({ length: steps }, (_, step) => (from + step * 10) * 1000),
      counts: Array.from({ length: steps }, (_, step) => bounds.map((_, at) => Math.max(0, Math.round(400 * Math.exp(-(((at - 8 - 3 * kind - (step % 5)) / 2) ** 2)))))),
    }));
  await page.route("**/api/v1/latencies**", (route) => {
    const of = new URL(route.request().url()).searchParams.get("of");
    return route.fulfill({ json: { of, unit: "ns", bounds, instances: instances(of === "disk" ? ["vda read", "vda write"] : ["web.service"]) } });
  });
  const peers = [{ local: "10.0.0.1", remote: "10.0.0.5:5432", count: 1212, labels: { host: "a" } }, { local: "10.0.0.1", remote: "[fd00::7]:443", count: 3, labels: { host: "a" } }];
  await page.route("**/api/v1/retransmits**", (route) => route.fulfill({ json: { peers, others: 7 } }));
}

/** Addresses of all views, of what is stored. */
function pathsOf({ host, time, from, until }) {
  const middle = Math.round((from + until) / 2);
  const query = `wall{host="${host}",class!="idle"}`;
  return {
    overview: `/?${time}`,
    verdict: `/verdict?host=${encoded(host)}&${time}`,
    explore: `/explore?query=${encoded(query)}&by=process&${time}`,
    host: `/host?host=${encoded(host)}&${time}`,
    "profile-empty": `/profile?host=${encoded(host)}`,
    compare: `/compare?query=${encoded(query)}&by=process&from=${middle}&until=${until}&before_from=${from}&before_until=${middle}`,
  };
}

async function everyView(page, tools, name) {
  const { visit, settled, shot, accessible, equal } = tools;
  for (const [view, path] of Object.entries(pathsOf(tools))) {
    await visit(page, path);
    // Answers that depend on others come later.
    await page.waitForTimeout(300);
    await settled(page);
    await harmless(page, tools);
    await shot(page, `${view}-${name}`);
    // What a screen shows of it.
    await shot(page, `${view}-${name}-screen`, false);
    await accessible(page, `${view}, ${name}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    equal(Math.max(0, wide), 0, `${view}, ${name}: pixels that the page is too wide`);
  }
}

/** What an agent may say of a host at its worst for a layout: words without a place to break, many of everything, and nothing of what may be absent. */
function verdictsOfAllKinds(real, classes) {
  const word = "std::collections::hash_map::HashMap<K,V,S>::".repeat(4);
  const many = Array.from({ length: 12 }, (_, at) => `${word}${at}`);
  const fact = { what: `of the time, ${word}`, value: 1234567.891, unit: "%", source: `signal ${word}` };
  const step = { action: `let ${word} be shorter`, impact: "high", effort: "low", risk: "medium" };
  const found = real.diagnosis.verdict;
  const large = {
    ...found,
    culprits: many,
    processes: many,
    functions: many,
    path: many,
    evidence: [fact, fact],
    counter_evidence: [fact],
    next_steps: [step, step],
    hypothesis: `If ${word} is short`,
    experiment: `Halve ${word}`,
    shown_by: `chokepoint record -e ${word}`,
  };
  const small = { code: found.code, summary: found.summary };
  const kinds = [];
  /** Some of the classes at a time, so that each has room for its name. */
  const some = (at) => Object.fromEntries(classes.filter((_, number) => number % 4 === at).map((name) => [name, 1]));
  for (const severity of [0, 1, 2, 3]) {
    const ranked = [large, { ...large, summary: word, severity: "warning" }, { ...large, summary: word, severity: "none" }];
    const coverage = { ...real.diagnosis.coverage, lost: 12, missing: [word, "requests of block devices were not watched"] };
    kinds.push({ ...real, severity, summary: `threads wait for ${word}`, diagnosis: { ...real.diagnosis, verdict: large, ranked, coverage, decomposition: some(severity) } });
    kinds.push({ ...real, severity, summary: "healthy", diagnosis: { verdict: small } });
  }
  kinds.push({ ...real, code: "unknown", severity: 0, summary: "", diagnosis: "damaged", shows_in: [] });
  return kinds;
}

async function everyVerdict(page, { url, host, time, visit, shot, accessible, equal }) {
  const asked = async (path) => (await fetch(`${url}/api/v1/${path}`)).json();
  const overview = await asked(`overview?${time}`);
  const constraints = await asked(`constraints?query=${encoded(`{host="${host}"}`)}&by=host&diagnosis=true&${time}`);
  const classes = JSON.parse(readFileSync(new URL("../src/classes.json", import.meta.url), "utf8")).map((known) => known.name);
  let shown;
  await page.route("**/api/v1/constraints?**", (route) => route.fulfill({ json: { ...constraints, scopes: [{ ...constraints.scopes[0], constraints: [shown, { ...shown, code: "io.device" }] }] } }));
  await page.route("**/api/v1/overview?**", (route) => {
    const [first] = overview.hosts;
    const found = shown.diagnosis.verdict ?? {};
    const verdict = { ...first.verdict, code: shown.code, severity: shown.severity, summary: shown.summary, processes: found.processes ?? [], culprits: found.culprits ?? [], next_step: found.next_steps?.[0]?.action ?? "" };
    route.fulfill({ json: { ...overview, hosts: [{ ...first, verdict }, { ...first, labels: { ...first.labels, host: "a-host.with-a-long-name.".repeat(6) }, verdict }, { ...first, verdict: undefined }] } });
  });
  for (const [at, kind] of verdictsOfAllKinds(constraints.scopes[0].constraints[0], classes).entries()) {
    shown = kind;
    for (const [view, path] of [["overview", `/?${time}`], ["verdict", `/verdict?host=${encoded(host)}&${time}`]]) {
      const where = `${view} of kind ${at}`;
      await visit(page, path);
      await shot(page, `${view}-kind-${at}-${page.viewportSize().width}`);
      await accessible(page, where);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      equal(Math.max(0, wide), 0, `${where}: pixels that the page is too wide`);
    }
  }
}

/** Every name that processes, people and devices chose, made long; what the collector itself calls by name stays. */
function withLongNames(value, key) {
  if (Array.isArray(value)) return value.map((item) => withLongNames(item, key));
  if (typeof value === "object" && value !== null) {
    const isLabels = key === "labels";
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, isLabels && name !== "class" && name !== "host" ? `${item}${"/kubepods.slice-".repeat(8)}` : withLongNames(item, name)]));
  }
  const isChosen = key === "strings" || key === "module" || key === "kernel" || key === "program";
  return isChosen && typeof value === "string" && value && !value.startsWith("[") ? `${value}::a_function<of, long, names>`.repeat(5) : value;
}

async function everyLongName(page, tools) {
  await page.route(/\/api\/v1\/(overview|decomposition|series|signals|flamegraph|diff|constraints)\?/, async (route) => {
    const answer = await route.fetch();
    route.fulfill({ response: answer, json: withLongNames(await answer.json()) });
  });
  await everyView(page, tools, `long-${page.viewportSize().width}`);
}

/** Runs in the page: takes the first completion of a label, and the first of its values by keys that come as soon as there are any. */
async function takeFirstValueAtOnce(field) {
  const options = () => document.querySelectorAll(".combo [role=option]");
  const press = (key) => field.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const label = options()[0];
  const hasValues = new Promise((resolve) => {
    const watch = new MutationObserver(() => {
      if (!options().length || options()[0] === label) return;
      watch.disconnect();
      resolve();
    });
    watch.observe(document.querySelector(".combo"), { childList: true, subtree: true, attributes: true });
  });
  label.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true, cancelable: true }));
  await hasValues;
  press("ArrowDown");
  // What a key changes is shown before the next one comes, but nothing else needs to have happened.
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  press("Enter");
}

export const tests = {
  "long names have room in every view, 1280 px": { run: everyLongName },
  "long names have room in every view, 400 px": { options: { viewport: { width: 400, height: 800 } }, run: everyLongName },
  "verdicts of every kind have room, 1280 px": { run: everyVerdict },
  "verdicts of every kind have room, 400 px, dark": { options: { viewport: { width: 400, height: 800 }, colorScheme: "dark" }, run: everyVerdict },
  "every view, light": { run: (page, tools) => everyView(page, tools, "light") },
  "every view, dark": { options: { colorScheme: "dark" }, run: (page, tools) => everyView(page, tools, "dark") },
  "every view, 400 px": { options: { viewport: { width: 400, height: 800 } }, run: (page, tools) => everyView(page, tools, "narrow") },

  "what the documentation shows": {
    async run(page, { host, pictured, visit, settled, shot }) {
      if (!pictured) return console.log("  SHOWN is not set: no pictures are made");
      const [from, until] = pictured;
      const of = pathsOf({ host, time: `from=${from}&until=${until}`, from, until });
      const explored = encoded(`wall{host="${host}",process=~"checkout|inventory",class!="idle"}`);
      const paths = { ...of, explore: `/explore?query=${explored}&by=process&from=${from}&until=${until}` };
      for (const view of ["overview", "verdict", "explore", "host"]) {
        await visit(page, paths[view]);
        await page.waitForTimeout(300);
        await settled(page);
        await shot(page, `docs-${view}`, false);
      }
    },
  },

  "the overview answers what limits, where, since when, and what to do": {
    async run(page, { url, host, time, address, settled, assert, equal }) {
      const answer = await (await fetch(`${url}/api/v1/overview?${time}`)).json();
      const { verdict } = answer.hosts.find((known) => known.labels.host === host);
      const { hosts_ms, all_ms } = await firstView(page.context().browser(), `${url}/?${time}`);
      console.log(`  first view after ${hosts_ms.toFixed(0)} ms, all of it after ${all_ms.toFixed(0)} ms`);
      await page.goto(`${url}/?${time}`);
      await page.waitForSelector(".hosts tbody tr");
      await settled(page);
      const row = await page.locator(".hosts tbody tr", { hasText: host }).innerText();
      for (const told of [verdict.code, verdict.summary]) assert(row.includes(told), `the row does not say ${told}: ${row}`);
      // By keyboard alone.
      await page.getByPlaceholder("Find hosts").fill("no such host");
      await page.waitForSelector("text=No host matches");
      assert((await address(page)).searchParams.get("find") === "no such host", "what is sought is not in the address");
      await page.getByPlaceholder("Find hosts").fill(host.slice(0, 4));
      await page.waitForSelector(".hosts tbody tr");
      await page.locator(".code-count").first().click();
      assert((await address(page)).searchParams.get("code"), "the constraint is not in the address");
      await page.getByRole("button", { name: "Since" }).click();
      equal(await page.locator(".hosts th[aria-sort=descending]").innerText(), "Since ↓".slice(0, 5), "sorted by");
      await page.locator(".hosts tbody tr").first().locator("a").first().focus();
      await page.keyboard.press("Enter");
      await page.waitForURL(/\/verdict\?host=/);
      await page.goBack();
      await page.waitForSelector(".hosts tbody tr");
    },
  },

  "services are told by what limits them on their hosts": {
    async run(page, { url, host, time, visit, address, assert, equal }) {
      const { scopes } = await (await fetch(`${url}/api/v1/decomposition?query=${encoded('wall{class!="idle"}')}&by=service&limit=40&${time}`)).json();
      // Some service that waits: what computes most would be first anyway.
      const cpu = ({ weights }) => weights[0] + weights[1];
      const service = scopes.slice(0, 10).reduce((least, scope) => (cpu(scope) < cpu(least) ? scope : least)).labels;
      const behind = { labels: { service: "store" }, address: "10.0.0.5:5432", hosts: ["b"], code: "io.read" };
      const constraint = { code: "net.downstream", hosts: 6, share_of_hosts: 0.3, named_hosts: ["a"], severity: 3, confidence: 0.9, share: 0.5, summary: "it waits for another service", since_unix_ms: 1, since_is_earlier: true, waits_for: [behind], next_step: "mend that one" };
      const told = { hosts: 20, healthy: 0, idle: 0, unknown: 0, cpu_free_pct: 12.5, constraints: [], exceptions: [], missing: [] };
      const outlier = { host, among: service, hosts: 20, code: "io.read", differences: [{ name: "block.utilization", unit: "%", value: 99, median: 10 }] };
      await page.route("**/api/v1/fleet?**", (route) => route.fulfill({ json: { from_unix_ms: 0, until_unix_ms: 9e12, services: [{ ...told, labels: service, constraints: [constraint] }], left_out: 0, outliers: [outlier], neighbours: [], missing: ["stacks of one service"] } }));
      await visit(page, `/?${time}`);
      // What is worst comes first, however little CPU it uses.
      const row = await page.getByRole("region", { name: "Services" }).locator("tbody tr").first().innerText();
      for (const has of ["critical", "net.downstream", "on 6 of 20 hosts", "it waits for another service", "behind it: store, limited by io.read", "mend that one", "12.5 %", service.service]) assert(row.includes(has), `${has} is missing: ${row}`);
      await page.waitForSelector(`li:has-text("${host}, of 20 of")`);
      await page.waitForSelector("[role=note]:has-text('stacks of one service')");
      // Sorted, and sought in by what limits them.
      const rows = page.getByRole("region", { name: "Services" }).locator("tbody tr");
      await page.getByPlaceholder("Find services").fill("net.downstream");
      await page.waitForFunction(() => document.querySelectorAll(".limited tbody tr").length === 1);
      await page.getByPlaceholder("Find services").fill("no such service");
      await page.waitForSelector("text=No service matches");
      await page.getByPlaceholder("Find services").fill("");
      await page.getByRole("button", { name: "Service", exact: true }).click();
      equal((await address(page)).searchParams.get("sort_services"), "name", "what services are sorted by in the address");
      const names = await rows.locator("td.name").allInnerTexts();
      equal(names, [...names].sort((a, b) => a.localeCompare(b)), "services by name");
      await page.getByRole("button", { name: "CPU free", exact: true }).last().click();
      assert((await rows.first().innerText()).includes("12.5 %"), "the service with the least headroom is not first");
    },
  },

  "services whose constraints take too long are shown all the same": {
    expected: /504 \(Gateway Timeout\)/,
    async run(page, { time, visit, assert }) {
      await page.route("**/api/v1/fleet?**", (route) => route.fulfill({ status: 504, json: { error: { code: "too_slow", message: "the query took too long: ask for less time" } } }));
      await visit(page, `/?${time}`);
      await page.waitForSelector("[role=alert]:has-text('What limits services: the query took too long')");
      const rows = page.getByRole("region", { name: "Services" }).locator("tbody tr");
      assert((await rows.count()) > 0 && (await rows.first().innerText()).includes("not judged"), `services: ${await rows.allInnerTexts()}`);
    },
  },

  "a store of which a part does not answer is told on every view, and of files": {
    async run(page, tools) {
      const { host, time, visit, settled, shot, accessible } = tools;
      const silent = "the shard 10.0.0.7:8123 does not answer";
      await page.route("**/api/v1/**", async (route) => {
        const answer = await route.fetch().catch(() => undefined);
        // The view that asked has been left.
        if (!answer) return route.abort().catch(() => {});
        const isJson = answer.headers()["content-type"] === "application/json" && !route.request().url().includes("/speedscope");
        const headers = { ...answer.headers(), "x-chokepoint-partial": silent };
        if (isJson) return route.fulfill({ response: answer, headers, json: { partial: [silent], ...(await answer.json()) } });
        return route.fulfill({ response: answer, headers });
      });
      // What each view says it of.
      const of = {
        overview: ["What limits the fleet", "Time by service", "What limits services"],
        verdict: [`What limits ${host}`, "What limited it over time", "The flame graph", "What was lost"],
        explore: ["Over time", "The flame graph", "What was lost"],
        host: [host, "Thread time", "Run-queue latency", "Disk latency", "Retransmits", "Signals"],
        compare: ["Whether it is real", "The flame graph of both", "Before: What was lost"],
        "profile-empty": ["Profiles"],
      };
      for (const [view, path] of Object.entries(pathsOf(tools))) {
        await visit(page, path);
        await page.waitForTimeout(300);
        await settled(page);
        for (const what of of[view]) await page.waitForSelector(`[role=note]:has-text("${what}: a part of the store did not answer"):has-text("${silent}")`);
        await shot(page, `partial-${view}`, false);
        await accessible(page, `partial, ${view}`);
      }
      await visit(page, `/explore?query=${encoded(`cpu{host="${host}"}`)}&${time}`);
      const download = page.waitForEvent("download");
      await page.getByRole("button", { name: "folded", exact: true }).click();
      await download;
      await page.waitForSelector(`[role=alert]:has-text("The file lacks"):has-text("${silent}")`);
    },
  },

  "the proof is zoomed to the function that the verdict names": {
    async run(page, { url, host, time, visit, address, equal }) {
      const asked = await fetch(`${url}/api/v1/constraints?query=${encoded(`{host="${host}"}`)}&by=host&diagnosis=true&${time}`);
      const answer = await asked.json();
      const [constraint] = answer.scopes[0].constraints;
      Object.assign(constraint.diagnosis.verdict, { processes: ["web"], culprits: [], functions: ["rebuild"] });
      await page.route("**/api/v1/constraints?**", (route) => route.fulfill({ json: answer }));
      const strings = ["", "all", "web", "main", "rebuild", "other", "[futex]"];
      const kinds = ["root", "label", "class", "activity", "user", "kernel", "jit", "interpreter", "no-symbol", "merged"];
      const frames = { name: [1, 2, 3, 4, 5, 6], file: [0, 0, 0, 0, 0, 0], module: [0, 0, 0, 0, 0, 0], kind: [0, 1, 4, 4, 4, 2] };
      // In web, main calls other and rebuild, which waits.
      const nodes = { parent: [0, 0, 1, 2, 2, 4], frame: [0, 1, 2, 4, 3, 5] };
      const side = { samples: 1000, weight: 100, self: [0, 0, 0, 40, 0, 60], total: [100, 100, 100, 40, 60, 60] };
      await page.route("**/api/v1/flamegraph?**", (route) => route.fulfill({ json: { query: "wall", title: "", unit: "ns", from_unix_ms: 0, until_unix_ms: 1, strings, kinds, frames, nodes, sides: [side], merged_nodes: 0 } }));
      await visit(page, `/verdict?host=${encoded(host)}&${time}`);
      const canvas = page.locator(".flame canvas");
      await canvas.focus();
      // From what is zoomed to, down is what it called.
      await page.keyboard.press("ArrowDown");
      equal((await page.locator(".flame [aria-live]").innerText()).split(":")[0], "[futex]", "what the zoomed function is told to call");
      await page.getByRole("button", { name: "Show all" }).click();
      equal((await address(page)).searchParams.get("zoom"), "all", "the zoom in the address");
    },
  },

  "nothing but the page's own files runs": {
    expected: /Content Security Policy|Trusted/i,
    async run(page, { url, visit, assert }) {
      const answer = await fetch(`${url}/`);
      const policy = answer.headers.get("content-security-policy") ?? "";
      for (const said of ["default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'", "frame-ancestors 'none'"]) assert(policy.includes(said), `the policy is ${policy}`);
      assert(!policy.includes("unsafe"), `the policy is ${policy}`);
      await visit(page, "/");
      const owned = await page.evaluate(async () => {
        const tries = [
          () => document.body.append(Object.assign(document.createElement("script"), { textContent: "globalThis.owned = 1" })),
          () => (document.body.innerHTML += "<img src=x onerror='globalThis.owned = 1'>"),
          () => document.body.setAttribute("onclick", "globalThis.owned = 1"),
        ];
        for (const attempt of tries) {
          try {
            attempt();
          } catch {
            // It is refused, as it should be.
          }
        }
        document.body.click();
        await new Promise((resolve) => setTimeout(resolve, 200));
        return globalThis.owned;
      });
      assert(owned === undefined, "what was put into the page ran");
    },
  },

  "times are read and typed as people have them": {
    async run(page, { from, until, visit, address, settled, assert, equal }) {
      await visit(page, `/?from=${from}&until=${until}`);
      const field = page.getByLabel(/^From:/);
      const shown = await field.inputValue();
      assert(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(shown), `the time is shown as ${shown}`);
      // What was not touched stays as it is.
      await page.getByRole("button", { name: "Show" }).click();
      equal((await address(page)).searchParams.get("from"), String(from), "the begin");
      const [day, time] = shown.split(" ");
      await field.fill(`${day} ${time.slice(0, 5)}`);
      await page.getByRole("button", { name: "Show" }).click();
      await settled(page);
      equal((await address(page)).searchParams.get("from"), String(from - (from % 60)), "the begin of the minute");
      // A baseline is as long a time, earlier.
      await visit(page, `/compare?from=${from}&until=${until}`);
      equal(await page.getByLabel("Baseline").inputValue(), "just", "the baseline where none was chosen");
      await page.getByLabel("Baseline").selectOption("day");
      const params = (await address(page)).searchParams;
      equal([params.get("before_from"), params.get("before_until")], [from - 86_400, until - 86_400].map(String), "a day earlier");
    },
  },

  "a host's resources have levels, and its agent's cost is told": {
    // Its agent has ended by now, so that nobody tells its processes.
    expected: /404/,
    async run(page, { host, time, visit, assert, address, settled }) {
      await visit(page, `/host?host=${encoded(host)}&${time}`);
      const resources = await page.getByRole("region", { name: "Resources" }).innerText();
      for (const told of ["Utilization", "Saturation", "Errors", "CPU", "Memory", "Block devices", "Network", "TCP", "Limits"]) assert(resources.includes(told), `${told} is missing: ${resources}`);
      // More threads want to run than there are CPUs.
      assert((await page.locator(".use .value.critical, .use .value.warning").count()) > 0, "nothing has a level");
      const text = await page.locator("main").innerText();
      for (const told of ["The agent itself: what it costs, and what it lost", "resident", "program cpu", "samples"]) assert(text.includes(told), `${told} is missing`);
      // What is chosen is in the address.
      const queue = page.getByRole("region", { name: "Run-queue latency" }).getByLabel("of", { exact: true });
      const chosen = await queue.locator("option").nth(1).getAttribute("value");
      await queue.selectOption(chosen);
      assert((await address(page)).searchParams.get("run-queue") === chosen, "the latency that is shown is not in the address");
      await page.reload();
      await settled(page);
      assert((await queue.inputValue()) === chosen, "the latency is no link");
      // From a selection to a profile of what its labels name.
      await visit(page, `/explore?query=${encoded(`cpu{host="${host}",process="checkout"}`)}&${time}`);
      await page.locator(".asked").getByRole("link", { name: "Profile now" }).click();
      await page.waitForURL(/\/profile\?/);
      const { searchParams } = await address(page);
      assert(searchParams.get("host") === host && searchParams.get("what") === "pid" && searchParams.get("which") === "checkout", `asked for ${searchParams}`);
    },
  },

  "the verdict proves what it says": {
    async run(page, { url, host, time, visit, address, settled, assert }) {
      await visit(page, `/verdict?host=${encoded(host)}&${time}`);
      const query = encoded(`{host="${host}"}`);
      const answer = await (await fetch(`${url}/api/v1/constraints?query=${query}&by=host&diagnosis=true&${time}`)).json();
      const constraint = answer.scopes[0].constraints[0];
      const text = await page.locator("main").innerText();
      const { evidence, next_steps, hypothesis } = constraint.diagnosis.verdict;
      for (const told of [constraint.code, constraint.summary.slice(1), ...evidence.map((fact) => fact.what), ...next_steps.map((step) => step.action), hypothesis]) {
        assert(text.includes(told), `${told} is missing: ${text}`);
      }
      for (const part of ["Evidence", "What to do", "Where the threads' time went", "The proof", "What this rests on"]) {
        assert(text.includes(part), `${part} is missing`);
      }
      await page.getByRole("button", { name: "All threads" }).click();
      await settled(page);
      await page.waitForSelector(".flame canvas");
      assert((await address(page)).searchParams.get("all") === "true", "that all is shown is not in the address");
      await page.getByRole("link", { name: "Explore" }).last().click();
      await page.waitForURL(/\/explore\?query=/);
    },
  },

  "a query is completed, a time is chosen by pulling, and both are in the address": {
    async run(page, { host, time, visit, address, settled, assert }) {
      await visit(page, `/explore?${time}`);
      const field = page.getByRole("combobox", { name: "Query: labels" });
      const options = page.locator(".combo");
      await field.fill("ho");
      await options.getByRole("option", { name: "host", exact: true }).waitFor();
      await field.evaluate(takeFirstValueAtOnce);
      await settled(page);
      const query = (await address(page)).searchParams.get("query");
      assert(query === `wall{host="${host}"}`, `the address has ${query}`);
      await page.getByLabel("Query: type of profile").selectOption("cpu");
      await settled(page);
      await page.getByLabel("Group by").selectOption("process");
      await settled(page);
      const chart = await page.locator(".u-over").boundingBox();
      await page.mouse.move(chart.x + chart.width * 0.4, chart.y + 40);
      await page.mouse.down();
      await page.mouse.move(chart.x + chart.width * 0.95, chart.y + 40, { steps: 5 });
      await page.mouse.up();
      await page.waitForFunction((before) => !location.search.includes(before), time);
      await settled(page);
      const shown = (await address(page)).href;
      await page.reload();
      await settled(page);
      assert((await address(page)).href === shown, "the address does not stay");
      await page.getByLabel("Time", { exact: true }).selectOption("now-5m");
      await page.waitForURL(/from=now-5m/);
    },
  },

  "a moment is clicked, or chosen by keys, and its stacks are shown": {
    async run(page, { host, time, visit, address, settled, assert }) {
      await visit(page, `/host?host=${encoded(host)}&${time}`);
      const plot = page.getByRole("application", { name: /^Thread time/ });
      const box = await page.locator(".u-over").boundingBox();
      await page.mouse.move(box.x + box.width * 0.5, box.y + 60);
      assert(/threads · .+ \d/.test(await page.locator(".chart output").innerText()), `the moment says ${await page.locator(".chart output").innerText()}`);
      await page.mouse.click(box.x + box.width * 0.5, box.y + 60);
      await page.waitForURL(/\/explore\?query=/);
      await settled(page);
      const length = async () => {
        const { searchParams } = await address(page);
        return Number(searchParams.get("until")) - Number(searchParams.get("from"));
      };
      assert((await length()) === 10, `a step has ${await length()} s`);
      await page.goBack();
      await settled(page);
      await plot.focus();
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("Shift+ArrowRight");
      await page.keyboard.press("Enter");
      await page.waitForURL(/\/explore\?query=/);
      assert((await length()) === 20, `two steps have ${await length()} s`);
    },
  },

  "a query that makes no sense is told in the collector's words": {
    // It completes what is typed meanwhile, of labels that may not be there.
    expected: /40[04] \((Bad Request|Not Found)\)/,
    async run(page, { visit, settled, shot }) {
      await visit(page, "/explore?from=now-5m");
      const field = page.getByRole("combobox", { name: "Query: labels" });
      await field.fill('host="a');
      await field.press("Escape");
      await field.press("Enter");
      await page.waitForSelector("[role=alert]:has-text('bad query')");
      await shot(page, "error", false);
    },
  },

  "what is empty says so, and what to do": {
    async run(page, { visit, shot, accessible }) {
      await visit(page, `/explore?query=${encoded('wall{host="nobody"}')}&from=now-5m`);
      await page.waitForSelector("text=Nothing is stored of this");
      await visit(page, "/verdict?host=nobody");
      await page.waitForSelector("text=Nothing was diagnosed of nobody");
      await shot(page, "empty", false);
      await accessible(page, "empty");
    },
  },

  "names that processes chose are text": {
    async run(page, tools) {
      const { host, time, visit, settled, assert } = tools;
      await visit(page, `/explore?query=${encoded(`cpu{host="${host}"}`)}&by=process&${time}`);
      await page.getByPlaceholder("Search frames").fill(HOSTILE);
      await page.waitForSelector(".matched");
      const row = page.locator(".functions button.code", { hasText: "<img src=x onerror=" });
      await row.first().waitFor();
      await row.first().hover();
      await harmless(page, tools);
      await row.first().dblclick();
      await page.waitForSelector("text=Callers and callees of");
      await settled(page);
      await harmless(page, tools);
      await visit(page, `/?${time}`);
      assert((await page.locator("main").innerText()).includes("<img src=x>"), "the service's name is not shown");
      await harmless(page, tools);
    },
  },

  "run-queue latencies of the agent's threads are a heatmap": {
    async run(page, { host, time, visit, assert }) {
      await visit(page, `/host?host=${encoded(host)}&${time}`);
      const map = page.getByRole("region", { name: "Run-queue latency" });
      // More threads want to run than there are CPUs: they queue.
      await map.locator("canvas").focus();
      await page.keyboard.press("ArrowRight");
      const told = await map.locator("output").innerText();
      assert(/: \d+ of .+ to .+s/.test(told), `the cell says ${told}`);
    },
  },

  "latencies are heatmaps, retransmits are told by peer, and what does not answer says so": {
    expected: /404 \(Not Found\)/,
    async run(page, tools) {
      const { host, time, visit, settled, assert } = tools;
      await withLatencies(page, tools);
      const path = `/host?host=${encoded(host)}&${time}`;
      await visit(page, path);
      const disk = page.getByRole("region", { name: "Disk latency" });
      await disk.getByLabel("of", { exact: true }).selectOption("vda write");
      await disk.locator("canvas").focus();
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowUp");
      const told = await disk.locator("output").innerText();
      assert(/: \d+ of .+ to .+s/.test(told), `the cell says ${told}`);
      const peers = await page.getByRole("region", { name: "Retransmits by peer" }).innerText();
      for (const text of ["1,212", "10.0.0.5:5432", "7 more segments"]) assert(peers.includes(text), `${text} is missing: ${peers}`);
      await page.unrouteAll();
      await page.route(/\/api\/v1\/(latencies|retransmits)/, (route) => route.fulfill({ status: 404, json: { error: { code: "not_found", message: "there is no such path" } } }));
      await visit(page, path);
      await settled(page);
      for (const what of ["Run-queue latency", "Disk latency", "Retransmits"]) await page.waitForSelector(`[role=alert]:has-text("${what}: there is no such path")`);
      assert((await page.locator(".use tbody tr").count()) > 0, "the rest of the view is gone");
    },
  },

  "two selections are compared, label with label too, and the report is kept": {
    async run(page, { from, until, time, visit, address, settled, assert, equal }) {
      const short = [`from=${from}`, `until=${from + 30}`];
      await visit(page, `/compare?query=${encoded("wall{class!=\"idle\"}")}&${short.join("&")}&before_${short.join("&before_")}`);
      await page.getByRole("heading", { name: "What changed, and whether it is real" }).waitFor();
      // So short a time has too few steps, and the page says so instead of guessing.
      await page.getByText("whole steps of").waitFor();
      assert((await page.getByRole("region", { name: "Classes of time" }).innerText()).includes("too few steps"), "chance is told of too few steps");
      for (const [name, end] of [["HTML", "html"], ["Markdown", "md"]]) {
        const download = page.waitForEvent("download");
        await page.getByRole("button", { name, exact: true }).click();
        equal((await download).suggestedFilename(), `comparison.${end}`, name);
      }
      await visit(page, `/compare?${time}`);
      await page.getByLabel("Or label against label").selectOption("service");
      await page.getByLabel("before", { exact: true }).locator("option").nth(2).waitFor({ state: "attached" });
      const values = await page.getByLabel("before", { exact: true }).locator("option").allInnerTexts();
      assert(values.length > 2, `services: ${values}`);
      await page.getByLabel("before", { exact: true }).selectOption(values[1]);
      await page.getByLabel("after", { exact: true }).selectOption(values[2]);
      await page.getByRole("button", { name: "Compare, of the same time" }).click();
      await settled(page);
      const params = (await address(page)).searchParams;
      assert(params.get("query") !== params.get("before_query") && params.get("before_from") === String(from), `the address has ${params}`);
      const sides = await page.getByRole("region", { name: "Sides" }).innerText();
      assert(sides.includes(`service="${values[1]}"`) && sides.includes(`service="${values[2]}"`), sides);
    },
  },

  "what really changed between two periods is told, and what did not is not": {
    async run(page, { changed, from, until, visit, settled, assert, shot, accessible }) {
      if (!changed) return console.log("  CHANGED_AT is not set: nobody knows what changed");
      // The second of the change is neither before nor after.
      const times = `from=${changed + 1}&until=${until}&before_from=${from}&before_until=${changed - 1}`;
      await visit(page, `/compare?query=${encoded('cpu{process="checkout"}')}&${times}&step=1s`);
      const functions = page.getByRole("region", { name: "Functions, without what they called" });
      const row = (name) => functions.locator("tbody tr", { hasText: name }).innerText();
      assert((await row("price_order")).includes("▲ grew"), `the function that takes twice the time: ${await functions.innerText()}`);
      assert(!(await row("parse_order")).includes("▲ grew"), `the function that takes the same: ${await functions.innerText()}`);
      // In the graph, too: the share that it has now against the one that it had.
      const inTable = page.locator(".functions tbody tr", { hasText: "price_order" });
      assert((await inTable.locator(".grew").innerText()).startsWith("+"), await inTable.innerText());
      await shot(page, "compare-changed");
      await accessible(page, "compare, changed");
      for (const [name, has] of [["HTML", /price_order[^]*grew|grew[^]*price_order/], ["Markdown", /grew.*price_order|price_order.*grew/]]) {
        const download = page.waitForEvent("download");
        await page.getByRole("button", { name, exact: true }).click();
        const text = readFileSync(await (await download).path(), "utf8");
        assert(has.test(text), `the report as ${name} does not tell it: ${text}`);
      }
      await functions.getByRole("button", { name: "price_order" }).click();
      await page.waitForSelector("text=Callers and callees of");
      // The same time twice has not changed.
      await visit(page, `/compare?query=${encoded('cpu{process="checkout"}')}&from=${from}&until=${changed - 1}&before_from=${from}&before_until=${changed - 1}&step=1s`);
      await settled(page);
      assert((await page.locator("td.grew, td.shrank").filter({ hasText: /grew|shrank/ }).count()) === 0, "a change is found where there is none");
    },
  },

  "a fleet of which too much was diagnosed says of which time it tells": {
    async run(page, { time, visit }) {
      await page.route("**/api/v1/overview**", async (route) => {
        const answer = await (await route.fetch()).json();
        await route.fulfill({ json: { ...answer, told_from_unix_ms: answer.from_unix_ms + 1000 } });
      });
      await visit(page, `/?${time}`);
      await page.waitForSelector("[role=note]:has-text('is not shown')");
    },
  },

  "what is on its way says so, and hosts do not wait for services": {
    async run(page, { time, host, visit, assert }) {
      let answer;
      const held = new Promise((resolve) => (answer = resolve));
      await page.route("**/api/v1/overview**", async (route) => {
        await held;
        await route.continue();
      });
      const asked = [];
      page.on("request", (request) => asked.push(new URL(request.url()).pathname));
      const visited = visit(page, `/?${time}`);
      await page.waitForSelector("text=What limits the fleet: on its way");
      assert((await page.locator('[aria-busy="true"]').count()) > 0, "nothing is told to be busy");
      assert(!asked.includes("/api/v1/fleet"), "services are asked for before hosts are there");
      answer();
      await visited;
      await page.waitForSelector(`.hosts tbody tr:has-text("${host}")`);
      assert(asked.includes("/api/v1/fleet"), "services are not asked for");
    },
  },

  "light and dark are chosen and kept": {
    async run(page, { visit, assert }) {
      await visit(page, "/");
      await page.getByRole("button", { name: "Dark colours" }).click();
      const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
      assert((await theme()) === "dark", "it is not dark");
      await page.reload();
      assert((await theme()) === "dark", "it does not stay dark");
    },
  },

  "a collector that is away is told, and what was shown stays": {
    expected: /ERR_FAILED/,
    async run(page, { visit, assert }) {
      await visit(page, "/");
      await page.route("**/api/v1/overview**", (route) => route.abort());
      await page.waitForSelector("[role=alert]:has-text('does not answer')");
      assert((await page.locator(".hosts tbody tr").count()) > 0, "what was shown is gone");
    },
  },
};
