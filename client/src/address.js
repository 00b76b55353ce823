// Where the server is. Any URL of it will do: its origin, its prefix or its
// socket, with a query that goes with every request.

/**
 * @param {string} url
 * @returns {(path: string) => string} the URL of a path under the socket
 */
export function address(url) {
  const { origin, pathname, search } = new URL(url.replace(/^ws/, "http"), globalThis.location?.href);
  const path = pathname.replace(/\/+$/, "") || "/pushy";
  const socket = origin + path + (path.endsWith("/socket") ? "" : "/socket");
  return (rest) => socket + rest + search;
}
