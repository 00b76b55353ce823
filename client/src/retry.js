// When to reconnect, and whether.

/** The close code of a server that has too many new connections. */
export const busy = 1013;

/**
 * Milliseconds before the next attempt: a random number between min and a bound that
 * doubles up to max, so that the clients of a server that failed do not all reconnect at once.
 * The first attempt after a connection follows what its server has said, if it has: when this
 * client is to return, or the time in which all clients are. A server that is busy wants fewer
 * attempts.
 * @param {number} failures the number of failures so far
 * @param {import("../pushy.d.ts").Options} options
 * @param {any} [said] what the server has said, if there was a connection: milliseconds, or anything else
 * @param {number} [code] the close code; 1006 without a close frame
 */
export const delay = (failures, { minDelay: min = 500, maxDelay: max = 20_000 }, { returnIn, returnWithin } = {}, code) =>
  Math.round(returnIn >= 0 && +returnIn === returnIn
    ? Math.min(returnIn, 60_000)
    : !failures && +returnWithin === returnWithin
      ? Math.random() * Math.min(Math.max(returnWithin, 1000), code === 1006 ? 5000 : 60_000)
      : min + Math.random() * Math.max(0, Math.min(max, (min || 100) * 2 ** (failures + (code === busy ? 4 : 1))) - min));

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
export const isFinal = (code) => /^(40[13]|100[2378]|1010|3[5-9]..)$/.test(`${code}`);
