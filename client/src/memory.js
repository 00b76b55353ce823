// Which transport got through, for the next connection and the next page. After
// an hour the better ones get another chance: walls are a property of where
// somebody is.

const hour = 3_600_000;

/** For where there is no storage: node, and browsers that forbid it. @type {Map<string, string>} */
const here = new Map();

/**
 * @param {string} key
 * @returns {string | undefined}
 */
export function recall(key) {
  let text = here.get(key);
  try {
    text = localStorage.getItem(key) ?? text;
  } catch {}
  try {
    const [name, at] = JSON.parse(/** @type {string} */ (text));
    if (Date.now() - at < hour) return name;
  } catch {}
}

/**
 * @param {string} key
 * @param {string} name
 */
export function remember(key, name) {
  const text = JSON.stringify([name, Date.now()]);
  here.set(key, text);
  try {
    localStorage.setItem(key, text);
  } catch {}
}
