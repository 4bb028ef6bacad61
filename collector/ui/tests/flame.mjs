// The flame graph: what people do with it, and how fast it is with as many nodes as the collector may send.

import { readFileSync } from "node:fs";

const NODES = 200_000;
const FRAMES = 20_000;
/** What is to be reached on an idle machine; a busy one is only told. */
const DRAW_MS = 100;
const FRAME_MS = 1000 / 60;
/** Times as long as that are a failure whatever else the machine does. */
const SLACK = 6;

const encoded = (text) => encodeURIComponent(text);

/** A tree as large as the collector sends, from a seed: callers first, what has one caller by name. */
function largeTree(seed = 7) {
  let state = seed;
  const random = (most) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * most);
  };
  const strings = ["", "all", "/usr/bin/server"];
  for (let frame = 0; frame < FRAMES; frame++) strings.push(`module_${frame % 97}::function_${frame}`);
  const classes = ["[cpu.user]", "[futex]", "[io.read]", "[net.recv]"];
  strings.push(...classes);
  const name = [1, ...strings.slice(3).map((_, at) => at + 3)];
  const frames = { name, file: name.map(() => 0), module: name.map((at) => (at >= 3 && at < FRAMES + 3 ? 2 : 0)), kind: name.map((at) => (at === 1 ? 0 : at >= FRAMES + 3 ? 2 : 4)) };
  const nodes = { parent: [0], frame: [0] };
  const self = [0];
  const below = (parent, depth) => {
    for (let wanted = 1 + random(4); wanted > 0 && nodes.parent.length < NODES - 1; wanted--) {
      const node = nodes.parent.push(parent) - 1;
      nodes.frame.push(1 + random(FRAMES));
      self.push(0);
      if (depth < 6 + random(50)) below(node, depth + 1);
      if (nodes.parent.length < NODES) {
        nodes.parent.push(node);
        nodes.frame.push(FRAMES + 1 + random(classes.length));
        self.push(1e6 + random(1e7));
      }
    }
  };
  while (nodes.parent.length < NODES - 1) below(0, 1);
  const total = [...self];
  for (let node = total.length - 1; node > 0; node--) total[nodes.parent[node]] += total[node];
  const kinds = ["root", "label", "class", "activity", "user", "kernel", "jit", "interpreter", "no-symbol", "merged"];
  return { query: "wall", title: "Thread time", unit: "ns", from_unix_ms: 0, until_unix_ms: 1000, strings, kinds, frames, nodes, sides: [{ samples: 1e6, weight: total[0], self, total }], merged_nodes: 1234 };
}

/** Length of everything that is drawn while something happens. */
async function drawn(page, act) {
  await page.evaluate(() => {
    globalThis.draws = [];
    globalThis.watch?.disconnect();
    globalThis.watch = new PerformanceObserver((list) => globalThis.draws.push(...list.getEntries().map((entry) => entry.duration)));
    globalThis.watch.observe({ type: "measure" });
  });
  await act();
  await page.waitForFunction(() => globalThis.draws.length > 0);
  await page.waitForTimeout(200);
  return page.evaluate(() => globalThis.draws);
}

/** Lengths of all frames while something happens, milliseconds: what the whole page takes, not drawing alone. */
async function frames(page, act) {
  await page.evaluate(() => {
    const times = [];
    globalThis.frameTimes = times;
    const tick = (now) => {
      times.push(now);
      if (globalThis.frameTimes === times) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  await act();
  return page.evaluate(() => {
    const times = globalThis.frameTimes;
    globalThis.frameTimes = undefined;
    return times.slice(1).map((at, frame) => at - times[frame]);
  });
}

/** Runs in the page: zooms in and out again, one of them in each frame. */
function zoomEachFrame(times) {
  const canvas = document.querySelector(".flame canvas");
  const box = canvas.getBoundingClientRect();
  return new Promise((resolve) => {
    let done = 0;
    const next = () => {
      if (done === times) return resolve();
      const event = { clientX: box.left + box.width * ((done * 0.37) % 1), clientY: box.top + 9 + 18 * (1 + (done % 10)), bubbles: true, cancelable: true };
      if (done++ % 2) canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true }));
      else canvas.dispatchEvent(new MouseEvent("click", event));
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  });
}

const worst = (lengths) => Math.max(...lengths);
const median = (lengths) => [...lengths].sort((a, b) => a - b)[lengths.length >> 1];

export const tests = {
  "200,000 nodes are drawn, zoomed and searched at once": {
    async run(page, { visit, address, settled, assert, shot, url }) {
      const tree = JSON.stringify(largeTree());
      await page.route("**/api/v1/flamegraph**", (route) => route.fulfill({ contentType: "application/json", body: tree }));
      const start = Date.now();
      await visit(page, "/explore?query=wall&show=flame");
      await page.waitForSelector(".flame canvas");
      console.log(`  ${NODES} nodes, ${(tree.length / 1e6).toFixed(1)} MB of JSON, ${Date.now() - start} ms from the address to the picture`);
      await page.waitForSelector("text=1,234 of the lightest nodes are merged");
      await shot(page, "flame-200000", false);
      const box = await page.locator(".flame canvas").boundingBox();
      const report = (what, lengths, most) => {
        const reached = worst(lengths) <= most ? "" : `, above ${most.toFixed(1)} ms`;
        console.log(`  ${what}: median ${median(lengths).toFixed(1)} ms, worst ${worst(lengths).toFixed(1)} ms of ${lengths.length}${reached}`);
        assert(median(lengths) <= most * SLACK, `${what}: ${median(lengths)} ms`);
      };
      report("drawing all of it", await drawn(page, () => page.getByLabel("Turn").selectOption("flame")), DRAW_MS);
      await page.getByLabel("Turn").selectOption("icicle");
      await settled(page);
      // The pointer moves over it: each move draws.
      report(
        "each frame as the pointer moves",
        await drawn(page, async () => {
          for (let step = 0; step < 60; step++) await page.mouse.move(box.x + 5 + (step * (box.width - 10)) / 60, box.y + 9 + 18 * (1 + (step % 12)));
        }),
        FRAME_MS,
      );
      report(
        "zooming in and out",
        await drawn(page, async () => {
          for (let times = 0; times < 6; times++) {
            await page.mouse.click(box.x + box.width * 0.1 * (times + 1), box.y + 9 + 18 * (1 + times));
            await page.waitForTimeout(60);
            await page.locator(".flame canvas").press("Escape");
            await page.waitForTimeout(60);
          }
        }),
        FRAME_MS,
      );
      const smooth = (what, lengths) => {
        const rate = (1000 * lengths.length) / lengths.reduce((sum, length) => sum + length, 0);
        // A frame that begins at the next but one chance is one and a half as long at least.
        const late = lengths.filter((length) => length > FRAME_MS * 1.5).length;
        console.log(`  ${what}: ${rate.toFixed(1)} frames a second, ${late} of ${lengths.length} late, the longest ${worst(lengths).toFixed(1)} ms`);
        assert(rate >= 60 / SLACK, `${what}: ${rate} frames a second`);
      };
      // As few as browsers allow addresses to change.
      smooth("zooming, in or out in each frame", await frames(page, () => page.evaluate(zoomEachFrame, 90)));
      await page.locator(".flame canvas").press("Escape");
      const search = page.getByPlaceholder("Search frames");
      smooth(
        "searching, a letter every 150 ms",
        await frames(page, async () => {
          await search.focus();
          await page.keyboard.type("module_3.*function_12", { delay: 150 });
          await page.waitForTimeout(300);
        }),
      );
      await page.waitForSelector(".matched");
      await search.fill("");
      report(
        "drawing what matches",
        await drawn(page, async () => {
          for (const text of ["function_1", "function_12", "module_3::", "module_[0-9]+::function_.*7$"]) {
            await search.fill(text);
            await page.waitForTimeout(400);
          }
        }),
        FRAME_MS,
      );
      await page.waitForSelector(".matched");
      await search.fill("");
      const slow = [];
      for (const turn of ["inverted", "icicle"]) {
        const begin = Date.now();
        await drawn(page, () => page.getByLabel("Turn").selectOption(turn));
        slow.push(`${turn} ${Date.now() - begin} ms`);
      }
      console.log(`  turned: ${slow.join(", ")}`);
      assert((await address(page)).href.startsWith(url), "it is still there");
    },
  },

  "the flame graph zooms, searches, turns and is a link": {
    async run(page, { host, time, visit, address, settled, assert, equal, shot }) {
      await visit(page, `/explore?query=${encoded(`wall{host="${host}",class!="idle"}`)}&by=process&${time}`);
      const canvas = page.locator(".flame canvas");
      const zoomed = async () => (await address(page)).searchParams.get("zoom");
      // By keyboard: to the widest below, in, and out again.
      await canvas.focus();
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => new URL(location.href).searchParams.has("zoom"));
      assert((await page.locator(".flame [aria-live]").innerText()).includes("%"), "the frame is not told");
      const zoom = await zoomed();
      await page.reload();
      await settled(page);
      assert((await zoomed()) === zoom, "the zoom is no link");
      await page.locator(".flame canvas").press("Escape");
      await page.waitForFunction(() => !new URL(location.href).searchParams.has("zoom"));
      // Searching dims and sums.
      await page.keyboard.press("/");
      // Slower than the pause after which it is searched for.
      await page.keyboard.type("rebuild_index|look_up", { delay: 70 });
      await page.waitForFunction(() => new URL(location.href).searchParams.get("search") === "rebuild_index|look_up");
      await page.waitForSelector(".matched");
      assert(/^\d+(\.\d+)? % in \d+ frame/.test(await page.locator(".matched").innerText()), `matched: ${await page.locator(".matched").innerText()}`);
      await shot(page, "explore-search", false);
      await page.getByPlaceholder("Search frames").fill("(");
      await page.waitForSelector(".search [role=alert]");
      await page.getByPlaceholder("Search frames").fill("");
      await page.waitForFunction(() => !new URL(location.href).searchParams.has("search"));
      for (const [label, values] of [["Turn", ["flame", "inverted", "icicle"]], ["Colour", ["kind", "module", "package", "class"]], ["Frames", ["package", "module", ""]], ["Show", ["table", "flame", "both"]]]) {
        for (const value of values) {
          await page.getByLabel(label, { exact: true }).selectOption(value);
          await page.waitForTimeout(80);
          if (value === "inverted" || value === "package") await shot(page, `explore-${label.toLowerCase()}-${value}`, false);
        }
      }
      await page.getByLabel("No recursion").check();
      assert((await address(page)).searchParams.get("fold") === "recursion", "what is folded is not in the address");
      await page.getByLabel("No recursion").uncheck();
      // What the menu copies is the frame's name, and its stack with the frame first. The widest frames: below the root the process, and so on.
      await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
      const copied = () => page.evaluate(() => navigator.clipboard.readText());
      await page.locator(".flame canvas").focus();
      for (let depth = 0; depth < 4; depth++) await page.keyboard.press("ArrowDown");
      const told = await page.locator(".flame [aria-live]").innerText();
      const frame = told.slice(0, told.lastIndexOf(": "));
      await page.keyboard.press("Shift+F10");
      await page.getByRole("menu").waitFor();
      await shot(page, "explore-menu", false);
      await page.getByRole("menuitem", { name: "Copy the frame" }).click();
      equal(await copied(), frame, "what was copied of the frame");
      const box = await canvas.boundingBox();
      await page.mouse.click(box.x + box.width / 3, box.y + 9 + 18 * 4, { button: "right" });
      await page.getByRole("menuitem", { name: "Copy the frame" }).click();
      const below = await copied();
      await page.mouse.click(box.x + box.width / 3, box.y + 9 + 18 * 4, { button: "right" });
      await page.getByRole("menuitem", { name: "Copy the stack" }).click();
      const stack = (await copied()).split("\n");
      assert(stack.length >= 2 && stack[0] === below, `the stack is ${stack}`);
      // Only the stacks that a frame is in: the share is of all, and the address has it.
      const nodes = async () => Number((await page.locator(".facts").last().innerText()).match(/([\d,]+) nodes/)[1].replaceAll(",", ""));
      const all = await nodes();
      await page.mouse.click(box.x + box.width / 3, box.y + 9 + 18 * 4, { button: "right" });
      await page.getByRole("menuitem", { name: "Only stacks with it" }).click();
      await page.getByRole("button", { name: "All stacks" }).waitFor();
      assert((await nodes()) < all, "no stack was left out");
      equal((await address(page)).searchParams.get("only"), below, "what the address is filtered by");
      await shot(page, "explore-only", false);
      await page.getByRole("button", { name: "All stacks" }).click();
      await page.waitForFunction(() => !new URL(location.href).searchParams.has("only"));
      // A function from both sides.
      await page.mouse.click(box.x + box.width / 3, box.y + 9 + 18 * 3, { button: "right" });
      await page.getByRole("menuitem", { name: "Callers and callees" }).click();
      await page.waitForSelector(".sandwich canvas");
      await shot(page, "explore-sandwich");
      await page.getByRole("button", { name: "Back to the whole" }).click();
      await page.waitForSelector(".functions");
      // The table is linked: what is chosen there is found here.
      await page.locator(".functions td.name button").first().click();
      await page.waitForSelector(".matched");
    },
  },

  "what is missing of a graph is told on it": {
    async run(page, { url, host, from, until, visit, assert, shot, accessible }) {
      const agents = await (await fetch(`${url}/api/v1/agents`)).json();
      const lost = { from_unix_ms: from * 1000, until_unix_ms: until * 1000, signals: [{ name: "agent.lost_samples", labels: { host, instance: "ring buffer full" }, unit: "1", values: [{ start_unix_ms: from * 1000, value: 7, max: 7, level: 0 }] }] };
      const asked = [];
      await page.route("**/api/v1/signals**", (route) => {
        asked.push(new URL(route.request().url()).searchParams.get("query"));
        route.fulfill({ json: lost });
      });
      await page.route("**/api/v1/agents", (route) => route.fulfill({ json: { agents: agents.agents.map((agent) => ({ ...agent, last_window_unix_ms: (from + 1) * 1000, given_up: ["stacks of waits"] })) } }));
      await page.route("**/api/v1/flamegraph**", async (route) => {
        const answer = await (await route.fetch()).json();
        // The heaviest function stands for callers that nobody knows.
        const { total } = answer.sides[0];
        const isUser = (node) => answer.kinds[answer.frames.kind[answer.nodes.frame[node]]] === "user";
        const frame = answer.nodes.frame[total.reduce((most, weight, node) => (isUser(node) && (most < 0 || weight > total[most]) ? node : most), -1)];
        answer.strings.push("[incomplete: stack depth limit]");
        answer.frames.name[frame] = answer.strings.length - 1;
        route.fulfill({ json: { ...answer, merged_nodes: 5 } });
      });
      await visit(page, `/explore?query=${encoded(`wall{host="${host}",service!="x"}`)}&from=${from}&until=${until + 600}`);
      for (const said of ["of the lightest nodes are merged", "the callers are not all known (stack depth limit", `Samples were lost in this time on ${host}, up to 7 of a window (ring buffer full)`, "Nothing is stored of the end of this time", "agents gave up some of it"]) {
        await page.waitForSelector(`[role=note]:has-text("${said}")`);
      }
      // Agents know nothing of services.
      assert(asked.every((query) => query === `agent.lost_samples{host="${host}"}`), `asked for ${asked}`);
      await shot(page, "explore-gaps", false);
      await accessible(page, "gaps");
    },
  },

  "a profile is kept in every form": {
    async run(page, { host, time, visit, assert }) {
      await visit(page, `/explore?query=${encoded(`cpu{host="${host}"}`)}&${time}`);
      const forms = [
        ["pprof", "pb.gz", /^\u001f/],
        ["folded", "folded", /^[^\n]+;[^\n]+ \d+\n/],
        ["SVG", "svg", /<svg /],
        ["speedscope", "speedscope.json", /"\$schema":"https:\/\/www.speedscope.app\/file-format-schema.json"/],
      ];
      for (const [name, end, has] of forms) {
        const download = page.waitForEvent("download");
        await page.getByRole("button", { name, exact: true }).click();
        const file = await download;
        assert(file.suggestedFilename() === `profile.${end}`, `${name}: ${file.suggestedFilename()}`);
        const text = readFileSync(await file.path(), "latin1");
        assert(has.test(text), `${name} begins with ${text.slice(0, 200)}`);
      }
    },
  },
};
