// How values are shown. Clients choose most of them, so they reach the page only as text, and what
// could hide or turn around other text is shown as an escape.

const hidden = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

const escape = (c) => {
  const code = c.codePointAt(0).toString(16).toUpperCase();
  return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, "0")}`;
};

/** Returns a string in which control, format, unassigned and bidirectional characters are escapes. */
export const plain = (value) => String(value ?? "").replace(hidden, escape);

/** Returns an element with a value that anybody can have chosen. */
export function value(text, className = "") {
  text = String(text ?? "");
  const into = document.createElement("span");
  into.className = `value ${className}`.trim();
  let from = 0;
  for (const match of text.matchAll(hidden)) {
    if (match.index > from) into.append(text.slice(from, match.index));
    into.append(make("span", { class: "escape" }, escape(match[0])));
    from = match.index + match[0].length;
  }
  into.append(text.slice(from));
  return into;
}

/** Returns an element. Attributes that are functions are listeners; children are nodes or strings. */
export function make(name, attributes = {}, ...children) {
  const into = document.createElement(name);
  for (const [key, what] of Object.entries(attributes)) {
    if (typeof what === "function") into.addEventListener(key, what);
    else if (what !== undefined && what !== false) into.setAttribute(key, what === true ? "" : what);
  }
  into.append(...children.filter((child) => child !== undefined && child !== null));
  return into;
}

/** Makes the children of an element those nodes, without a change if they are already. */
export function fill(into, ...children) {
  const text = (node) => (typeof node === "string" ? node : null);
  if (children.length === 1 && text(children[0]) !== null && !into.firstElementChild) {
    if (into.textContent !== children[0]) into.textContent = children[0];
    return;
  }
  into.replaceChildren(...children);
}

const digits = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const number = (n) => digits.format(n);

/** Returns a rate, with a decimal only while it is small. */
export const rate = (n) => (n === undefined ? "–" : (n < 10 ? tenths : digits).format(n));

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  let unit = -1;
  do {
    n /= 1024;
    unit++;
  } while (n >= 1023.5 && unit < 3);
  return `${(n < 9.95 ? tenths : digits).format(n)} ${"KMGT"[unit]}iB`;
}

export const byteRate = (n) => (n === undefined ? "–" : bytes(Math.round(n)));

export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

export const moment = (ms) => new Date(ms).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");

/** Returns the beginning of an id, which is enough to tell ids apart on one page. */
export const brief = (id) => (id.length > 10 ? `${id.slice(0, 8)}…` : id);

export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** Returns a line of the last values, which is only for the eye. */
export function spark() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 60 16");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  svg.append(line);
  const values = [];
  return {
    svg,
    add(n) {
      if (n === undefined) return;
      values.push(n);
      if (values.length > 60) values.shift();
      const most = Math.max(...values, 1);
      const from = 61 - values.length;
      line.setAttribute("points", values.map((v, i) => `${from + i},${(15 - (14 * v) / most).toFixed(1)}`).join(" "));
    },
  };
}
