// Who listens to what. Names come from others (a channel may have an event
// "__proto__"), so they are keys of a Map.

/** @typedef {(...args: any[]) => void} Listener */

export class Emitter {
  constructor() {
    /** @type {Map<string | undefined, Listener[]>} */
    this._listeners = new Map();
  }

  /**
   * @param {string} event
   * @param {Listener} listener
   */
  bind(event, listener) {
    this._listeners.set(event, [...(this._listeners.get(event) ?? []), listener]);
    return this;
  }

  /**
   * Without a listener all of the event's go.
   * @param {string} event
   * @param {Listener} [listener]
   */
  unbind(event, listener) {
    const listeners = [...(this._listeners.get(event) ?? [])];
    const at = listeners.indexOf(/** @type {Listener} */ (listener));
    if (at >= 0) listeners.splice(at, 1);
    this._listeners.set(event, listener ? listeners : []);
    return this;
  }

  /**
   * @param {string} event
   * @param {Listener} listener
   */
  on(event, listener) {
    return this.bind(event, listener);
  }

  /**
   * @param {string} event
   * @param {Listener} [listener]
   */
  off(event, listener) {
    return this.unbind(event, listener);
  }

  /**
   * A listener that throws keeps nothing from the others, nor from us.
   * @param {string} event
   * @param {any[]} args
   */
  _emit(event, ...args) {
    for (const listener of this._listeners.get(event) ?? []) {
      try {
        listener.apply(this, args);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
