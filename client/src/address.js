// The URL of the server. It can be the server's origin, its prefix or its socket path. A
// query in it is sent with every request.

/**
 * @param {string | { readonly href: string }} url relative to the page, if it is relative
 * @returns {((path: string) => string) | undefined} the URL of a path under the server's prefix; undefined if url is relative and there is no page, as on a server that renders pages
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
    throw new TypeError(`pushy: "${`${text}`.replace(/\/\/.*@/, "//…@")}" is not a URL of HTTP or WebSocket`);
  }
  const prefix = `http${scheme[2]}//${found.host}${found.pathname.replace(/\/+$/, "") || "/pushy"}`.replace(/\/socket$/, "");
  return (path) => prefix + path + "?v=2" + found.search.replace("?", "&"); // the version of the protocol
}
