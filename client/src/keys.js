// The keys of memberships, which a page leaves for the next page in the same tab: a page cannot tell
// whether it is reloaded.

/**
 * Adds keys to those that are kept for the next page, or takes all of them: a tab that is duplicated
 * while the page is open must not have them, too.
 * @param {(path: string) => string} at the server, since another one must not receive its keys
 * @param {Iterable<[string, any]>} [more] by channel; undefined takes them
 * @returns {Iterable<[string, any]>} those that were kept
 */
export function kept(at, more) {
  try {
    const name = "pushy:" + at("").split("?")[0], entries = new Map(JSON.parse(/** @type {string} */ (sessionStorage.getItem(name))));
    more ? sessionStorage.setItem(name, JSON.stringify([...entries, ...more])) : sessionStorage.removeItem(name);
    return entries;
  } catch {
    return [];
  }
}
