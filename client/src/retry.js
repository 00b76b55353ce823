// When to come back, and whether.

/**
 * Milliseconds before try number `failures`: anything between min and a bound
 * that doubles up to max, so that the clients of a server that went down do not
 * come back all at once.
 * @param {number} failures so far, from 0
 * @param {number} min
 * @param {number} max
 */
export const delay = (failures, min, max) =>
  Math.round(min + Math.random() * Math.max(0, Math.min(max, min * 2 ** (failures + 1)) - min));

/**
 * Whether a close code says not to come back (PROTOCOL.md, section 3).
 * @param {number} code
 */
export const isFinal = (code) => [1002, 1003, 1007, 1008, 1009].includes(code) || (code >= 3500 && code < 4000);
