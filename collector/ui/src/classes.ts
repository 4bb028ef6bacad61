// Classes of thread time. Names, order and colours are those of the analysis; a test of the collector writes the list.

import list from "./classes.json";

export interface Class {
  name: string;
  group: string;
  colour: string;
}

/** All classes, in the order they are shown in. */
export const CLASSES: readonly Class[] = list;

const byName = new Map(CLASSES.map((known) => [known.name, known]));

/** Classes of newer agents look like time of which nothing is known. */
export function classOf(name: string): Class {
  return byName.get(name) ?? { name, group: "other", colour: "#cdcdcd" };
}

/** The class whose frame has this name: `[futex]`. */
export function classOfFrame(name: string): Class | undefined {
  return name.startsWith("[") && name.endsWith("]") ? byName.get(name.slice(1, -1)) : undefined;
}

const WORDS: Record<string, string> = {
  "cpu.user": "running, in the program",
  "cpu.kernel": "running, in the kernel",
  "cpu.stolen": "on a CPU that the hypervisor or interrupts had",
  "run-queue": "able to run, waiting for a CPU",
  throttled: "able to run, held back by a CPU quota",
  "io.read": "waiting for a read from a device",
  "io.write": "waiting for a write to a device",
  "io.sync": "waiting until data is safe on a device",
  "io.throttled-dirty": "held back until written data is on its device",
  "mem.reclaim": "waiting for memory to be reclaimed",
  "lock.kernel": "waiting for a lock of the kernel",
  "lock.file": "waiting for a lock on a file",
  futex: "waiting for another thread: a lock, a condition, work",
  "net.send": "waiting for room to send",
  "net.recv": "waiting for a peer's data",
  "net.connect": "waiting for a connection it opens",
  "net.accept": "waiting for connections of others",
  event: "waiting for any of several events",
  "wait.ipc": "waiting for a pipe, queue or semaphore",
  "wait.child": "waiting for a child process",
  "wait.timer": "waiting for a time",
  idle: "waiting for nothing",
  "wait.other": "blocked, of no known class",
};

/** What a class is, in words. */
export function meaning(name: string): string {
  return WORDS[name] ?? name;
}
