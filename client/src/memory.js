// Which transport got through, for the next page. After an hour the better ones
// get another chance: walls are a property of where somebody is.

const hour = 3_600_000;

/**
 * @param {string} key
 * @returns {string | undefined}
 */
export function recall(key) {
  try {
    const [name, at] = JSON.parse(/** @type {string} */ (localStorage.getItem(key)));
    return Date.now() - at < hour ? name : undefined;
  } catch {
    // No storage (node, or a browser that forbids it), or nothing in it.
  }
}

/**
 * @param {string} key
 * @param {string | undefined} name
 */
export function remember(key, name) {
  try {
    if (name) localStorage.setItem(key, JSON.stringify([name, Date.now()]));
    else localStorage.removeItem(key);
  } catch {
    // as above
  }
}
