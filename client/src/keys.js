// The keys of memberships, which a page leaves for the next page in the same tab.

const keys = "pushy:keys";

/**
 * Keeps the keys of memberships for the next page in this tab: a page cannot tell whether it is
 * reloaded.
 * @param {[string, any][]} entries by channel
 */
export function keep(entries) {
  try {
    sessionStorage.setItem(keys, JSON.stringify(entries));
  } catch {}
}

/**
 * Takes the keys that were kept: a tab that is duplicated while the page is open must not have them, too.
 * @returns {[string, any][]}
 */
export function take() {
  try {
    const entries = JSON.parse(/** @type {string} */ (sessionStorage.getItem(keys))) ?? [];
    sessionStorage.removeItem(keys);
    return entries;
  } catch {
    return [];
  }
}
