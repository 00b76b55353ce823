// Where the server is. Any of its URLs will do: its origin, its prefix or its
// socket, with a query that is sent with every request.

/**
 * @typedef {object} Auth
 * @property {string} _auth the default URL of the auth endpoint
 */

/**
 * @param {string | { readonly href: string }} url relative to the page, if it is relative
 * @returns {(((path: string) => string) & Auth) | undefined} the URL of a path under the socket;
 *   undefined if url is relative and there is no page, as when a server renders one
 */
export function address(url) {
  const text = /** @type {any} */ (url)?.href ?? url;
  const parse = (/** @type {string | undefined} */ base) => {
    try {
      return new URL(text.trim(), base); // which only strings have
    } catch {}
  };
  const alone = parse("http://h");
  // A document of about:srcdoc has its parent's base, one of blob: only an origin.
  /** @type {any} */
  const found = parse(globalThis.document?.baseURI) ?? parse(globalThis.location?.href) ?? parse(globalThis.origin);
  if (alone && !found && !globalThis.location) return;
  const scheme = found?.protocol.match(/^(http|ws)(s?:)$/);
  // A page's own URL may have a user: browsers refuse to send one that a request names.
  if (!scheme || !alone || alone.username + alone.password) {
    throw new TypeError(`pushy: "${
      `${text}`.replace(/\/\/.*@/, "//…@")
    }" is not a URL of HTTP or WebSocket without user and password`);
  }
  const prefix = `http${scheme[2]}//${found.host}${found.pathname.replace(/\/+$/, "") || "/pushy"}`.replace(/\/socket$/, "");
  return Object.assign((/** @type {string} */ rest) => `${prefix}/socket${rest}${found.search}`, {
    _auth: `${prefix}/auth${found.search}`,
  });
}
