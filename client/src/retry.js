// When to reconnect, and whether.

/**
 * Milliseconds before try number `failures`: anything between min and a bound
 * that doubles up to max, so that the clients of a server that went down do not
 * all return at once.
 * @param {number} failures so far, from 0
 * @param {import("../pushy.d.ts").Options} options
 */
export const delay = (failures, { minDelay: min = 500, maxDelay: max = 20_000 }) =>
  Math.round(min + Math.random() * Math.max(0, Math.min(max, (min || 100) * 2 ** (failures + 1)) - min));

/**
 * Milliseconds that a Retry-After header asks for, at most an hour.
 * @param {any} header seconds, or a date
 */
export const retryAfter = (header) =>
  Math.min(3_600_000, Math.max(0, header * 1000 || Date.parse(header) - Date.now() || 0));

/**
 * Whether a code says not to reconnect (PROTOCOL.md, section 3). It is a close
 * code, or the HTTP status of an answer that refused the connection.
 * @param {number} code
 */
export const isFinal = (code) => [401, 403, 1002, 1003, 1007, 1008, 1010].includes(code) || (code >= 3500 && code < 4000);
