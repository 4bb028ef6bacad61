// Asks the collector. What it refuses is an error with the collector's own words; what is busy is asked again.

import { useEffect, useState } from "preact/hooks";
import { token } from "../access";

const BASE = "/api/v1";
/** Times that a busy collector is asked again, and how long it is left alone before, milliseconds. */
const TRIES = 3;
const PAUSE_MS = 1500;
/** The status of what took the collector too long: it will the next time, too, and is asked for again so many times less often. */
const TOO_SLOW = 504;
const SLOWER = 10;
/** The header of an answer that is not of all of the store. Answers in JSON have it as the field `partial`, too. */
const PARTIAL = "x-chokepoint-partial";

/** Why there is no answer. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** The address of an answer. */
export function url(path: string, params: Record<string, string | undefined>): string {
  const kept = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value) kept.set(name, value);
  const text = kept.toString();
  return `${BASE}${path}${text ? `?${text}` : ""}`;
}

async function refused(answer: Response): Promise<Refused> {
  try {
    const { error } = (await answer.json()) as { error: { code: string; message: string } };
    return new Refused(answer.status, error.code, error.message);
  } catch {
    return new Refused(answer.status, "failed", `the collector answers ${answer.status}`);
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** What is asked for beside looking. */
interface Sent {
  method: "POST" | "DELETE";
  body?: unknown;
}

/** Asks, with the token that was given. What changes something is asked once: it may have been done though no answer came. */
async function request(address: string, signal?: AbortSignal, sent?: Sent): Promise<Response> {
  const known = token();
  const headers: Record<string, string> = known ? { authorization: `Bearer ${known}` } : {};
  if (sent?.body !== undefined) headers["content-type"] = "application/json";
  const body = sent?.body === undefined ? undefined : JSON.stringify(sent.body);
  for (let tries = 1; ; tries++) {
    let answer: Response;
    try {
      answer = await fetch(address, { method: sent?.method, body, headers, signal, credentials: "omit" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused(0, "away", "the collector does not answer: is it running, and can this browser reach it?");
    }
    if (answer.ok) return answer;
    const why = await refused(answer);
    if (why.status === 401) dispatchEvent(new Event("tokenwanted"));
    if (why.status !== 503 || tries >= TRIES || sent) throw why;
    await pause(PAUSE_MS);
  }
}

export async function ask<T>(address: string, signal?: AbortSignal): Promise<T> {
  return (await (await request(address, signal)).json()) as T;
}

/** Has something done. */
export async function have<T>(address: string, sent: Sent): Promise<T> {
  return (await (await request(address, undefined, sent)).json()) as T;
}

/** Has the browser keep an answer as a file, and says what is missing of it. A link would not send the token. */
export async function download(address: string, name: string): Promise<string> {
  const answer = await request(address);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  const lacking = answer.headers.get(PARTIAL);
  return lacking ? `The file lacks what a part of the store did not tell: ${lacking}` : "";
}

/** What answers lack because a part of the collector's store did not answer, each a sentence and once. */
export function lacking(...answers: unknown[]): string[] {
  const told = answers.flatMap((answer) => (answer as { partial?: string[] } | undefined)?.partial ?? []);
  return [...new Set(told)];
}

/** An answer that is on its way, came, or does not come. While the next is on its way, the last stays. */
export interface Asked<T> {
  answer?: T;
  error?: Refused;
  isLoading: boolean;
  /** When the answer came. */
  atMs: number;
}

/** Asks whenever the address changes, and again each `everyMs` while the page is seen. `undefined` asks nothing. */
export function useAnswer<T>(address: string | undefined, everyMs?: number): Asked<T> {
  const [asked, setAsked] = useState<Asked<T> & { address?: string }>({ isLoading: true, atMs: 0 });
  const [access, setAccess] = useState(0);
  useEffect(() => {
    const again = () => setAccess((count) => count + 1);
    addEventListener("tokengiven", again);
    return () => removeEventListener("tokengiven", again);
  }, []);
  useEffect(() => {
    if (!address) {
      setAsked({ isLoading: false, atMs: 0 });
      return undefined;
    }
    const stop = new AbortController();
    let timer: number | undefined;
    const begin = async () => {
      let pauseMs = everyMs ?? 0;
      try {
        const answer = await ask<T>(address, stop.signal);
        setAsked({ answer, isLoading: false, atMs: Date.now(), address });
      } catch (error) {
        if (stop.signal.aborted) return;
        const why = error instanceof Refused ? error : new Refused(0, "failed", String(error));
        // An answer of the same address is better than none: it stays, with the error beside it.
        setAsked((before) => ({ ...before, answer: before.address === address ? before.answer : undefined, error: why, isLoading: false }));
        if (why.status === TOO_SLOW) pauseMs *= SLOWER;
      }
      if (everyMs) timer = window.setTimeout(onTime, pauseMs);
    };
    const onTime = () => {
      if (document.visibilityState === "visible") void begin();
      else timer = window.setTimeout(onTime, everyMs);
    };
    setAsked((before) => ({ ...before, error: undefined, isLoading: true }));
    void begin();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [address, everyMs, access]);
  return asked;
}
