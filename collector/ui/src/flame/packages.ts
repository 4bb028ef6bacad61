// Which package a function is of, by its name: a crate, a namespace, a Go package, a Java package; else the module that holds its code.

import type { FrameTable } from "./graph";
import { isCode } from "./transform";

/** Before the first path of a Rust or C++ name stand references, brackets, and words that are no part of it. */
const BEFORE = /^(?:[<&*(\s]|dyn |impl |mut |const |unsigned |non-virtual thunk to |virtual thunk to |vtable for )+/;
/** `crate::path`, `namespace::Type<T>::f`. */
const SCOPED = /^([A-Za-z_][\w$]*)(?:<[^:]*>)?::/;
/** `github.com/a/b.(*T).M`, `runtime.mallocgc`: what follows the last slash up to the first dot. */
const GO = /^((?:[\w.~-]+\/)*[\w~-]+)\.[(\w·]/;
/** `java.util.HashMap.put`, `java/util/HashMap.put`, `Ljava/util/HashMap;::put`: up to the first part that begins with a capital letter. */
const JAVA = /^L?((?:[a-z_][\w$]*[./])+)[A-Z][\w$]*[.;:]/;
/** `py::f:/srv/app/views.py`, as CPython writes it into maps. */
const PYTHON = /^py::[^:]*:(.*)\/[^/]*$/;

/** The last part of a path. */
export const fileName = (path: string): string => path.replace(/^.*\//, "") || path;

/** A function's package; that of a name that says nothing is its module's file. */
export function packageOf(name: string, module: string): string {
  const python = PYTHON.exec(name);
  if (python) return fileName(python[1]);
  const java = JAVA.exec(name);
  if (java) return java[1].slice(0, -1).replaceAll("/", ".");
  const plain = name.replace(BEFORE, "");
  const scoped = SCOPED.exec(plain);
  if (scoped) return scoped[1];
  const go = GO.exec(plain);
  // What compilers append to names in C is no package: `f.constprop.0`, `f.isra.0`, `f.part.0`, `f.cold`, `f.llvm.1`.
  if (go && !/\.(?:constprop|isra|part|cold|llvm|lto_priv|localalias|\d+)\b/.test(plain)) return go[1];
  return fileName(module);
}

/** Each frame's package; that of what is no code is empty. */
export function packages(frames: FrameTable): string[] {
  return frames.name.map((name, frame) => (isCode(frames.kind[frame]) && frames.module[frame] !== "" ? packageOf(name, frames.module[frame]) : ""));
}
