// Reports when the connection should be checked: the page is hidden and kept for the back
// button, it is shown again, the network has changed, or the time between two ticks shows
// that the computer was asleep.

const tick = 5000;

/**
 * @param {(why: string) => void} look receives "tick", "woke", or the type of the event
 * @returns {() => void} stops it
 */
export function watch(look) {
  let last = Date.now();
  const timer = setInterval(() => {
    const now = Date.now();
    look(Math.abs(now - last) > 3 * tick ? "woke" : "tick");
    last = now;
  }, tick);
  const aborter = new AbortController();
  for (const event of ["online", "offline", "pageshow", "pagehide"]) globalThis.addEventListener?.(event, () => look(event), aborter);
  globalThis.document?.addEventListener?.("visibilitychange", () => document.hidden || look("woke"), aborter);
  return () => {
    clearInterval(timer);
    aborter.abort();
  };
}
