// The URL of the server. It can be the server's origin, its prefix or its socket path. A
// query in it is sent with every request.

/**
 * @typedef {object} Auth
 * @property {string} _auth the default URL of the auth endpoint
 */

/**
 * @param {string | { readonly href: string }} url relative to the page, if it is relative
 * @returns {(((path: string) => string) & Auth) | undefined} the URL of a path under the
 *   socket; undefined if url is relative and there is no page, as on a server that renders pages
 */
export function address(url) {
  const text = /** @type {any} */ (url)?.href ?? url;
  const parse = (/** @type {string | undefined} */ base) => {
    try {
      return new URL(text.trim(), base); // throws if it is not a string
    } catch {}
  };
  const alone = parse("http://h");
  // A document of about:srcdoc has its parent's base URI, and one of blob: has only an origin.
  /** @type {any} */
  const found = parse(globalThis.document?.baseURI) ?? parse(globalThis.location?.href) ?? parse(globalThis.origin);
  if (alone && !found && !globalThis.location) return;
  const scheme = found?.protocol.match(/^(http|ws)(s?:)$/);
  // The page's own URL can contain a user, but browsers refuse requests whose URL contains one.
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
