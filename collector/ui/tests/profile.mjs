// Profiles on demand, of a real agent, at a collector that asks for tokens: a reader looks, an operator has them made.

const { READER_TOKEN: READER, OPERATOR_TOKEN: OPERATOR, TARGET_PID: PID, TARGET_NAME: NAME, TARGET_POD: POD, TARGET_CONTAINER: CONTAINER } = process.env;
/** An unoptimized agent loads its programs and names what they saw, on a machine that has other things to do. */
const MADE_MS = 240_000;

const encoded = (text) => encodeURIComponent(text);

/** Has the page come up with this token. */
async function as(page, token) {
  await page.addInitScript((token) => sessionStorage.setItem("chokepoint.token", token), token);
}

/** The finished profile that the tests after the first one look at. */
async function finished(url) {
  const answer = await fetch(`${url}/api/v1/profile`, { headers: { authorization: `Bearer ${READER}` } });
  const { profiles } = await answer.json();
  return profiles.find((profile) => profile.state === "done");
}

async function result(page, tools, name) {
  const { url, visit, shot, accessible, equal, assert } = tools;
  const made = await finished(url);
  assert(made, "no profile was made");
  await as(page, READER);
  await visit(page, `/profile?id=${encoded(made.id)}`);
  for (const there of [".heat canvas", ".flame canvas", ".lanes canvas"]) await page.locator(there).first().waitFor();
  await page.waitForTimeout(300);
  await shot(page, `profile-${name}`);
  await shot(page, `profile-${name}-screen`, false);
  await accessible(page, `profile, ${name}`);
  equal(Math.max(0, await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)), 0, `profile, ${name}: pixels that the page is too wide`);
}

/** A pod's view, from its host's. */
async function pod(page, { host, visit, settled, shot, accessible, address, assert, equal }, name) {
  if (!POD) return console.log("  TARGET_POD is not set: there is no container runtime");
  await as(page, READER);
  await visit(page, `/host?host=${encoded(host)}`);
  await page.getByRole("region", { name: "Pods" }).getByRole("link", { name: POD }).click();
  await page.waitForURL(/\/pod\?pod=/);
  await settled(page);
  const text = await page.locator("main").innerText();
  for (const told of [POD, host, "limited by", "Containers", CONTAINER, "Run-queue latency", "Retransmits by peer"]) assert(text.includes(told), `${told} is missing: ${text}`);
  const cpus = Number(await page.getByRole("region", { name: "Containers" }).locator("tbody tr", { hasText: CONTAINER }).locator("td.number").first().innerText());
  assert(cpus > 0, "a container that computes has used no CPU");
  await shot(page, `pod-${name}`);
  if (name === "light") await shot(page, "docs-pod", false);
  await accessible(page, `pod, ${name}`);
  equal(Math.max(0, await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)), 0, `pod, ${name}: pixels that the page is too wide`);
  await page.getByRole("link", { name: "Profile now" }).last().click();
  await page.waitForURL(/\/profile\?/);
  equal((await address(page)).searchParams.get("which"), POD, "what is to be profiled");
}

export const tests = {
  "a token is asked for, and a reader is told why they cannot have a profile made": {
    expected: /401 \(Unauthorized\)/,
    async run(page, { url, host, address, assert, accessible, shot }) {
      await page.goto(`${url}/profile?host=${encoded(host)}`);
      await page.waitForSelector("dialog[open]");
      await accessible(page, "token");
      const field = page.getByRole("textbox", { name: "Token" });
      await field.fill("chokepoint-wrong");
      await page.keyboard.press("Enter");
      await page.waitForSelector("dialog[open] >> text=does not accept");
      await field.fill(READER);
      await page.keyboard.press("Enter");
      await page.waitForSelector("text=is a reader's");
      const button = page.getByRole("button", { name: "Profile now" });
      assert(await button.isDisabled(), "a reader can press it");
      await accessible(page, "profile, reader");
      await shot(page, "profile-reader", false);
      // The collector does not rely on the page.
      const answer = await fetch(`${url}/api/v1/profile`, { method: "POST", headers: { authorization: `Bearer ${READER}`, "content-type": "application/json" }, body: JSON.stringify({ host }) });
      assert(answer.status === 403, `a reader is answered ${answer.status}`);
      await page.getByRole("button", { name: "Give an operator's token" }).click();
      await page.waitForSelector("dialog[open] >> text=Its operator has it");
      await field.fill(OPERATOR);
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => !document.querySelector("button.main").disabled);
      assert(!(await address(page)).href.includes(OPERATOR), "the token is in the address");
      assert((await page.evaluate(() => localStorage.length + document.cookie.length)) === 0, "the token is kept for longer than the tab");
    },
  },

  "an operator profiles a process, and sees what limits it, when, and in which stacks": {
    async run(page, { host, visit, address, settled, shot, accessible, assert, equal }) {
      await as(page, OPERATOR);
      await visit(page, "/profile");
      await page.getByLabel("Host", { exact: true }).selectOption(host);
      await page.getByLabel("Profile", { exact: true }).selectOption("pid");
      // It is chosen among those that its agent has seen running, sought by a part of its name.
      const listed = page.getByRole("region", { name: `Processes of ${host}` }).locator("tbody tr");
      await listed.nth(1).waitFor({ timeout: MADE_MS });
      await page.getByLabel("Which").fill(NAME.slice(2));
      await page.waitForFunction((name) => [...document.querySelectorAll(".processes td.name")].every((cell) => cell.textContent.includes(name)), NAME);
      const row = listed.filter({ has: page.getByRole("button", { name: `Profile process ${PID}, ${NAME}` }) });
      assert(Number((await row.locator("td").first().innerText())) > 0, `it uses no CPU: ${await row.innerText()}`);
      await shot(page, "profile-processes", false);
      await accessible(page, "processes");
      await row.getByRole("button").click();
      equal(await page.getByLabel("Which").inputValue(), PID, "the process that was chosen");
      equal((await address(page)).searchParams.get("which"), PID, "the process in the address");
      await page.getByLabel("Samples a second").selectOption("199");
      await page.getByLabel("For", { exact: true }).selectOption("5s");
      await page.getByRole("button", { name: "Profile now" }).click();
      await page.locator("progress").waitFor();
      await page.waitForURL(/[?&]id=/);
      await page.getByText("What this rests on").waitFor({ timeout: MADE_MS });
      await settled(page);
      const text = await page.locator("main").innerText();
      for (const told of [`pid ${PID}`, "Evidence", "What to do", "Threads over time", "Within seconds"]) assert(text.includes(told), `${told} is missing: ${text}`);
      await shot(page, "docs-profile", false);
      const param = async (name) => (await address(page)).searchParams.get(name);
      // A burst is chosen by pulling, and its stacks are shown.
      const all = await page.locator(".facts").last().innerText();
      const box = await page.locator(".heat canvas").boundingBox();
      await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.6);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.3, { steps: 4 });
      await page.mouse.up();
      await page.waitForFunction(() => new URL(location.href).searchParams.has("from_ms"));
      await settled(page);
      const length = Number(await param("until_ms")) - Number(await param("from_ms"));
      assert(length >= 200 && length <= 500, `${length} ms were chosen of a third of a second`);
      await page.getByText("alone, as sampled").waitFor();
      assert((await page.locator(".facts").last().innerText()) !== all, "the flame graph is of all of it");
      // It is a link.
      const shown = (await address(page)).href;
      await page.reload();
      await settled(page);
      equal((await address(page)).href, shown, "the address");
      await page.getByRole("button", { name: "All of it" }).click();
      await page.waitForFunction(() => !new URL(location.href).searchParams.has("from_ms"));
      // By keyboard, too.
      await page.locator(".heat canvas").focus();
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowRight");
      assert(/threads at a time/.test(await page.locator(".heat output").innerText()), "the cell is not told");
      await page.keyboard.press("Shift+ArrowUp");
      await page.keyboard.press("Shift+ArrowUp");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => new URL(location.href).searchParams.has("from_ms"));
      equal(Number(await param("until_ms")) - Number(await param("from_ms")), 60, "milliseconds of three cells");
      await page.getByRole("button", { name: "All of it" }).click();
      // Every thread of the program has a lane.
      await settled(page);
      assert((await page.locator(".lanes tbody tr").count()) >= 4, "threads are missing");
      await page.locator(".lanes canvas").first().scrollIntoViewIfNeeded();
      const lane = await page.locator(".lanes canvas").first().boundingBox();
      await page.mouse.move(lane.x + lane.width * 0.2, lane.y + 5);
      await page.mouse.down();
      await page.mouse.move(lane.x + lane.width * 0.6, lane.y + 5, { steps: 4 });
      await page.mouse.up();
      await page.waitForFunction(() => new URL(location.href).searchParams.has("from_ms"));
      await page.getByRole("button", { name: "All of it" }).click();
      await page.waitForFunction(() => !new URL(location.href).searchParams.has("from_ms"));
      await settled(page);
      // By keyboard: from moment to moment, to the next thread, and along its lane.
      await page.locator(".lanes canvas").first().focus();
      await page.keyboard.press("ArrowRight");
      assert(/ at .+s: /.test(await page.locator(".told").innerText()), `the moment says ${await page.locator(".told").innerText()}`);
      await page.keyboard.press("ArrowDown");
      assert(await page.locator(".lanes canvas").nth(1).evaluate((canvas) => canvas === document.activeElement), "the next lane is not come to");
      for (let step = 0; step < 3; step++) await page.keyboard.press("Shift+ArrowRight");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => new URL(location.href).searchParams.has("from_ms"));
      await page.getByLabel("of", { exact: true }).selectOption("lock");
      await settled(page);
      assert((await param("type")) === "lock", "the type is not in the address");
      for (const [name, end] of [["pprof", "pb.gz"], ["folded", "folded"], ["SVG", "svg"], ["speedscope", "speedscope.json"]]) {
        const download = page.waitForEvent("download");
        await page.getByRole("button", { name, exact: true }).click();
        equal((await download).suggestedFilename(), `profile.${end}`, name);
      }
    },
  },

  "an operator profiles a pod and a container, which the page offers by their names": {
    async run(page, { visit, assert, equal, settled }) {
      if (!POD) return console.log("  TARGET_POD is not set: there is no container runtime");
      await as(page, OPERATOR);
      for (const [kind, name] of [["pod", POD], ["container", CONTAINER]]) {
        await visit(page, "/profile");
        await page.getByLabel("Profile", { exact: true }).selectOption(kind);
        await page.locator(`#targets option[value="${name}"]`).waitFor({ state: "attached" });
        await page.getByLabel("Which").fill(name);
        await page.getByLabel("Samples a second").selectOption("199");
        await page.getByLabel("For", { exact: true }).selectOption("5s");
        await page.getByRole("button", { name: "Profile now" }).click();
        await page.locator("progress").waitFor();
        await page.getByText("What this rests on").waitFor({ timeout: MADE_MS });
        await settled(page);
        const title = await page.getByRole("heading", { level: 1 }).innerText();
        assert(title.includes(name), `the title is ${title}`);
        // Its containers run busybox and nothing else; a process of the host runs beside them.
        const threads = await page.locator(".lanes tbody th").allInnerTexts();
        assert(threads.length >= 1 && threads.every((thread) => /^(sh|busybox|sleep)\b/.test(thread)), `threads of the ${kind}: ${threads}`);
        equal(await page.locator(".lanes tbody tr").count(), threads.length, "lanes");
      }
    },
  },

  "a pod has a view, light": { run: (page, tools) => pod(page, tools, "light") },
  "a pod has a view, dark": { options: { colorScheme: "dark" }, run: (page, tools) => pod(page, tools, "dark") },
  "a pod has a view, 400 px": { options: { viewport: { width: 400, height: 800 } }, run: (page, tools) => pod(page, tools, "narrow") },

  "a profile, light": { run: (page, tools) => result(page, tools, "light") },
  "a profile, dark": { options: { colorScheme: "dark" }, run: (page, tools) => result(page, tools, "dark") },
  "a profile, 400 px": { options: { viewport: { width: 400, height: 800 } }, run: (page, tools) => result(page, tools, "narrow") },

  "a profile is cancelled, and what does not exist is told": {
    expected: /404 \(Not Found\)/,
    async run(page, { host, visit, shot }) {
      await as(page, OPERATOR);
      await visit(page, `/profile?host=${encoded(host)}&length=60s`);
      await page.getByRole("button", { name: "Profile now" }).click();
      await page.locator("progress").waitFor();
      await shot(page, "profile-progress", false);
      await page.getByRole("button", { name: "Cancel" }).click();
      await page.getByText("It was cancelled.").waitFor();
      await visit(page, `/profile?host=${encoded(host)}&what=pod&which=no%2Fwhere`);
      await page.getByRole("button", { name: "Profile now" }).click();
      await page.locator("[role=alert]").waitFor();
      await visit(page, "/profile?id=1-00000000");
      await page.waitForSelector("[role=alert]:has-text('there is no profile')");
    },
  },
};
