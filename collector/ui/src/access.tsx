// The token that a collector may ask for. It is kept for this tab only, and never in an address.

import { useEffect, useRef, useState } from "preact/hooks";

const KEY = "chokepoint.token";

export function token(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Has the dialog ask for another token. */
export function askForToken(): void {
  dispatchEvent(new CustomEvent("tokenwanted"));
}

/** Asks for a token, once the collector has refused an answer without one. */
export function TokenDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const [wasRefused, setRefused] = useState(false);
  useEffect(() => {
    const wanted = (event: Event) => {
      // A reader who wants to be somebody else was not refused.
      setRefused(token() !== "" && !(event instanceof CustomEvent));
      if (!dialog.current?.open) dialog.current?.showModal();
    };
    addEventListener("tokenwanted", wanted);
    return () => removeEventListener("tokenwanted", wanted);
  }, []);
  const give = (event: SubmitEvent) => {
    event.preventDefault();
    const field = (event.target as HTMLFormElement).elements.namedItem("token") as HTMLInputElement;
    sessionStorage.setItem(KEY, field.value.trim());
    field.value = "";
    dialog.current?.close();
    dispatchEvent(new Event("tokengiven"));
  };
  return (
    <dialog ref={dialog} aria-labelledby="token-title">
      <form onSubmit={give}>
        <h2 id="token-title">This collector asks for a token</h2>
        <p>{wasRefused ? "It does not accept the one that was given." : "Its operator has it. It is kept until this tab is closed."}</p>
        <label for="token">Token</label>
        <input id="token" name="token" type="password" autocomplete="off" required />
        <p>
          <button type="submit">Continue</button>{" "}
          <button type="button" class="link" onClick={() => dialog.current?.close()}>
            Not now
          </button>
        </p>
      </form>
    </dialog>
  );
}
