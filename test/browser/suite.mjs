// The parts of node:test that the tests in browsers use. Each hook has a time limit: by default it has none,
// so that a browser that does not close would stop the whole run. Each test names its own.
import * as runner from "node:test";
import { patience } from "../../client/test/processes.js";

export { patience, until, within } from "../../client/test/processes.js";

const withLimit = (add, least) => (work, options) => add(work, { ...options, timeout: Math.max(least, options?.timeout ?? 0) });

/** Programs are built before the tests, which takes minutes if all cores are busy and nothing is cached. */
export const before = withLimit(runner.before, 10 * patience);
export const after = withLimit(runner.after, 3 * patience);

const bounded = (work) => (t) => {
  const nested = t.test.bind(t);
  t.after = withLimit(t.after.bind(t), 3 * patience);
  t.test = (name, options, work) => nested(name, options, bounded(work));
  return work(t);
};

export function test(name, options, work) {
  if (!(options?.timeout > 0)) throw new Error(`the test ${name} has no time limit`);
  return runner.test(name, options, bounded(work));
}
