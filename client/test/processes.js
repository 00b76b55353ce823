// Processes that tests start, and waiting with a limit.
import { spawn } from "node:child_process";
import { once } from "node:events";

/** The time limit of one step, on a busy machine, in milliseconds. */
export const patience = Number(process.env.PUSHY_PATIENCE) || 60_000;

/** What run has started and has not ended: it ends with the test file, whatever has failed. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

/**
 * Waits for a promise, for at most a time.
 * @template T
 * @param {Promise<T>} work
 * @returns {Promise<T>}
 */
export async function within(work, what, time = patience) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(reject, time, new Error(`${what}: not within ${time} ms`)); });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until a condition on what get returns holds, for at most a time, and returns that. */
export async function until(get, what, holds, time = patience) {
  let now;
  for (const end = Date.now() + time; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
    now = await get();
    if (holds(now)) return now;
  }
  throw new Error(`${what}: ${JSON.stringify(now)?.slice(-2000)}`);
}

/** Starts a process. end ends it; ended has its exit code and signal; started waits for a promise until it has ended. */
export function run(program, args, options) {
  const child = spawn(program, args, options);
  running.add(child);
  const ended = once(child, "exit").finally(() => running.delete(child));
  ended.catch(() => {}); // the error is that of started or of end, too
  return Object.assign(child, {
    ended,
    /** @template T @param {Promise<T>} ready @returns {Promise<T>} */
    async started(ready, what = program) {
      const early = ended.then(([code, signal]) => { throw new Error(`${what} ended with code ${code}, signal ${signal}, before it was ready`); });
      try {
        return await within(Promise.race([ready, early]), `${what} is not ready`);
      } catch (err) {
        child.kill("SIGKILL");
        throw err;
      }
    },
    /** Sends a signal, and returns the exit code and the signal that has ended the process: SIGKILL if it does not end in time. */
    async end(signal = "SIGTERM", time = patience) {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      try {
        return await within(ended, `${program} does not end`, time);
      } catch (err) {
        child.kill("SIGKILL");
        console.error(`${err.message}: it is killed`);
        return ended;
      }
    },
  });
}
