/// <reference types="node" />
import assert from "node:assert/strict";
import { test } from "node:test";
import { admits, against, and, escapeRegex, is, oneOf, onlyOf, quote, selector, split, typing, valueOf } from "./selector";
import { bytes, count, duration, measured, percent, points, span } from "./units";
import { address, read } from "./url";
import { earlier, lengthMs, shownTime, stepFor, typedTime } from "./time";

test("numbers have three digits that matter and a unit", () => {
  assert.deepEqual([0, 999, 1500, 2.5e6, 12_340_000_000, 90e9, 7200e9].map(duration), ["0 ns", "999 ns", "1.50 µs", "2.50 ms", "12.3 s", "1.50 min", "2.00 h"]);
  assert.deepEqual([0, 7, 9999, 12_345, 2_500_000].map(count), ["0", "7", "9999", "12.3 k", "2.50 M"]);
  assert.deepEqual([999, 1234, 5_600_000].map(bytes), ["999 B", "1.23 kB", "5.60 MB"]);
  assert.deepEqual([0, 0.5, 0.0123, 0.00001, 1].map(percent), ["0.00 %", "50.0 %", "1.23 %", "< 0.01 %", "100 %"]);
  assert.deepEqual([0.05, -0.05].map(points), ["+5.00 %", "−5.00 %"]);
  assert.deepEqual([measured(12.3, "%"), measured(1500, "B/s"), measured(0.5, "ms"), measured(3, "1")], ["12.3 %", "1.50 kB/s", "500 µs", "3"]);
  assert.deepEqual([5e3, 65e3, 3600e3, 90_000e3].map(span), ["5 s", "1 min 5 s", "1 h", "1 d 1 h"]);
});

test("what processes chose cannot leave a selector's string", () => {
  assert.equal(quote('a"b\\c\u001b'), '"a\\"b\\\\c\\u001b"');
  assert.equal(selector("cpu", [is("host", "a"), is("app.kubernetes.io/name", 'x"}')]), 'cpu{host="a","app.kubernetes.io/name"="x\\"}"}');
  assert.equal(escapeRegex("a+b(c)|d"), "a\\+b\\(c\\)\\|d");
  assert.deepEqual(oneOf("process", ["a.b", "c"]), { label: "process", operator: "=~", value: "a\\.b|c" });
  assert.equal(selector("", [oneOf("process", ["a.b", "c"])]), '{process=~"a\\\\.b|c"}');
  assert.deepEqual(split('wall{host="a}"}'), { type: "wall", matchers: 'host="a}"' });
  assert.equal(and('host="a",', is("pod", "b")), 'host="a",pod="b"');
});

test("a label's values are set against each other in one query", () => {
  assert.equal(against('cpu{service="web",version="1"}', "version", "2"), 'cpu{service="web",version="2"}');
  assert.equal(against('cpu{version=~"1|2",zone="a,}"}', "version", "2"), 'cpu{zone="a,}",version="2"}');
  assert.equal(against("wall{}", "app.kubernetes.io/name", 'x"y'), 'wall{"app.kubernetes.io/name"="x\\"y"}');
});

test("what is asked of hosts alone is told from the rest", () => {
  const matchers = 'host=~"a|b",class!="idle",zone!="z,1","app.kubernetes.io/name"="x\\"y"';
  assert.equal(onlyOf(matchers, new Set(["host", "zone"])), 'host=~"a|b",zone!="z,1"');
  const hosts = onlyOf(matchers, new Set(["host", "zone", "app.kubernetes.io/name"]));
  const named = { "app.kubernetes.io/name": 'x"y' };
  assert.deepEqual([{ host: "a", zone: "z2", ...named }, { host: "ab", ...named }, { host: "b", zone: "z,1", ...named }, { host: "b" }].map((labels) => admits(hosts, labels)), [true, false, false, false]);
  assert.equal(admits('host=~"(?x)a"', { host: "b" }), true);
  assert.equal(admits("", {}), true);
});

test("completion knows what is being typed", () => {
  const at = (text: string) => typing(text, text.length);
  assert.deepEqual(at(""), { what: "label", prefix: "", from: 0 });
  assert.deepEqual(at("ho"), { what: "label", prefix: "ho", from: 0 });
  assert.deepEqual(at('host="a", se'), { what: "label", prefix: "se", from: 10 });
  assert.deepEqual(at('host="a,b'), { what: "value", label: "host", prefix: "a,b", from: 5 });
  assert.deepEqual(at('"a.b"=~"x'), { what: "value", label: "a.b", prefix: "x", from: 7 });
  assert.deepEqual(at("host="), { what: "value", label: "host", prefix: "", from: 5 });
});

test("an address says what is shown, and nothing that is as usual", () => {
  assert.equal(address("/explore", { query: 'cpu{a="b&c"}', from: "now-1h", until: "now", by: undefined }), "/explore?query=cpu%7Ba%3D%22b%26c%22%7D");
  assert.deepEqual(read({ pathname: "/explore", search: "?query=cpu%7Ba%3D%22b%26c%22%7D&from=5" }), { view: "/explore", params: { query: 'cpu{a="b&c"}', from: "5" } });
  assert.equal(read({ pathname: "/other", search: "" }).view, "/");
});

test("steps are as long as a graph has room for", () => {
  assert.equal(stepFor(lengthMs("now-1h", "now")), "30s");
  assert.equal(stepFor(lengthMs("now-5m", "now")), "10s");
  assert.equal(stepFor(lengthMs("1000", "87400")), "600s");
  assert.equal(lengthMs("yesterday", "now"), 3600e3);
  assert.equal(lengthMs("now-1h30m", "now-30m"), 3600e3);
});

test("times are shown and typed by this browser's clock, and stay as they are where they were not touched", () => {
  const at = new Date(2026, 0, 31, 9, 5, 7).getTime() / 1000;
  assert.equal(shownTime(String(at)), "2026-01-31 09:05:07");
  assert.deepEqual(["now-1h", "2026-01-31T12:00:00Z"].map(shownTime), ["now-1h", "2026-01-31T12:00:00Z"]);
  const typed = (text: string, before = "now") => typedTime(text, before, at * 1000);
  assert.equal(typed("2026-01-31 09:05:07"), String(at));
  assert.deepEqual(["2026-01-31T09:05", " 9:05 ", "09:05:07"].map((text) => Number(typed(text)) - at), [-7, -7, 0]);
  assert.equal(typed(shownTime(`${at}.25`), `${at}.25`), `${at}.25`);
  assert.deepEqual(["now-1h", "2026-01-31T12:00:00Z", "99:99", ""].map((text) => typed(text)), ["now-1h", "2026-01-31T12:00:00Z", "99:99", ""]);
});

test("a baseline is as long a time, so much earlier", () => {
  assert.deepEqual(earlier("now-1h", "now", 3600e3), { from: "now-7200s", until: "now-3600s" });
  assert.deepEqual(earlier("100000", "100600", 600e3), { from: "99400", until: "100000" });
});

test("what a selection is of is read from its labels", () => {
  const matchers = 'host="a",pod=~"web-.*", process = "x\\"=y","app.kubernetes.io/name"="b"';
  assert.deepEqual(["host", "pod", "process", "app.kubernetes.io/name", "none"].map((label) => valueOf(matchers, label)), ["a", undefined, 'x"=y', "b", undefined]);
});
