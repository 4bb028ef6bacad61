// The flame graph: what people do with it, and how fast it is with as many nodes as the collector may send.

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
      const search = page.getByPlaceholder("Search frames");
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
    async run(page, { host, time, visit, address, settled, assert, shot }) {
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
      for (const [label, values] of [["Turn", ["flame", "inverted", "icicle"]], ["Colour", ["kind", "module", "class"]], ["Show", ["table", "flame", "both"]]]) {
        for (const value of values) {
          await page.getByLabel(label, { exact: true }).selectOption(value);
          await page.waitForTimeout(80);
          if (value === "inverted") await shot(page, "explore-inverted", false);
        }
      }
      await page.getByLabel("No recursion").check();
      await page.getByLabel("Modules").check();
      await page.waitForTimeout(100);
      await page.getByLabel("Modules").uncheck();
      // The menu copies, and shows a function from both sides.
      const box = await canvas.boundingBox();
      await page.mouse.click(box.x + box.width / 3, box.y + 9 + 18 * 4, { button: "right" });
      await page.getByRole("menu").waitFor();
      await shot(page, "explore-menu", false);
      await page.getByRole("menuitem", { name: "Copy the stack" }).click();
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

  "a profile is kept in every form": {
    async run(page, { host, time, visit, assert }) {
      await visit(page, `/explore?query=${encoded(`cpu{host="${host}"}`)}&${time}`);
      for (const [name, end] of [["pprof", "pb.gz"], ["folded", "folded"], ["SVG", "svg"], ["speedscope", "speedscope.json"]]) {
        const download = page.waitForEvent("download");
        await page.getByRole("button", { name, exact: true }).click();
        const file = await download;
        assert(file.suggestedFilename() === `profile.${end}`, `${name}: ${file.suggestedFilename()}`);
      }
    },
  },
};
