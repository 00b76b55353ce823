// When to reconnect, and whether.

/**
 * Milliseconds before the next attempt: a random number between min and a bound that
 * doubles up to max, so that the clients of a server that failed do not all reconnect at once.
 * @param {number} failures the number of failures so far
 * @param {import("../pushy.d.ts").Options} options
 */
export const delay = (failures, { minDelay: min = 500, maxDelay: max = 20_000 }) =>
  Math.round(min + Math.random() * Math.max(0, Math.min(max, (min || 100) * 2 ** (failures + 1)) - min));

/**
 * The time of a Retry-After header in milliseconds, at most an hour.
 * @param {any} header seconds, or a date
 */
export const retryAfter = (header) =>
  Math.min(3_600_000, Math.max(0, header * 1000 || Date.parse(header) - Date.now() || 0));

/**
 * Whether the client must not reconnect after a code (PROTOCOL.md, section 3). It is a close
 * code, or the HTTP status of an answer that refused the connection.
 * @param {number} code
 */
export const isFinal = (code) => [401, 403, 1002, 1003, 1007, 1008, 1010].includes(code) || (code >= 3500 && code < 4000);
