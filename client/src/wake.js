// Reports when the connection should be checked: the page is hidden and kept for the back
// button, it is shown again, the network has changed, or the time between two ticks shows
// that the computer was asleep.

const tick = 5000;

/**
 * @param {(why: "tick" | "woke" | "offline" | "cached") => void} look
 * @returns {() => void} stops it
 */
export function watch(look) {
  let last = Date.now();
  const woke = () => look("woke");
  const shown = () => document.visibilityState === "visible" && woke();
  const timer = setInterval(() => {
    const now = Date.now();
    look(Math.abs(now - last) > 3 * tick ? "woke" : "tick");
    last = now;
  }, tick);
  /** @type {[EventTarget | undefined, string, (event: any) => void][]} */
  const all = [
    [globalThis, "online", woke],
    [globalThis, "offline", () => look("offline")],
    [globalThis, "pageshow", woke],
    [globalThis, "pagehide", () => look("cached")],
    [globalThis.document, "visibilitychange", shown],
  ];
  const aborter = new AbortController();
  for (const [target, event, listener] of all) target?.addEventListener?.(event, listener, aborter);
  return () => {
    clearInterval(timer);
    aborter.abort();
  };
}
