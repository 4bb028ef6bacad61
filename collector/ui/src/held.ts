// State that is about something, and gone when that is another: an effect that resets it would come some time after the next key or frame.

import { useState } from "preact/hooks";

/** What was last set while `of` was the same; before, and for another, `initial`. */
export function useHeld<T>(of: unknown, initial: T): [T, (next: T) => void] {
  const [held, setHeld] = useState({ of, value: initial });
  return [held.of === of ? held.value : initial, (value) => setHeld({ of, value })];
}
