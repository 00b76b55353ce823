// Listeners by event. They are in a Map, because other users choose the names of events,
// such as "__proto__".

/** @typedef {(...args: any[]) => void} Listener */

export class Emitter {
  /** @type {Map<string | undefined, Listener[]>} */
  _listeners = new Map();
  on = this.bind;
  off = this.unbind;

  /**
   * @param {string} event
   * @param {Listener} listener
   */
  bind(event, listener) {
    this._listeners.set(event, [...this._of(event), listener]);
    return this;
  }

  /**
   * Removes a listener, or all listeners of the event.
   * @param {string} event
   * @param {Listener} [listener]
   */
  unbind(event, listener) {
    const listeners = [...this._of(event)], at = listeners.indexOf(/** @type {Listener} */ (listener));
    if (at >= 0) listeners.splice(at, 1);
    this._listeners.set(event, listener ? listeners : []);
    return this;
  }

  /** @param {string} event */
  _of(event) {
    return this._listeners.get(event) ?? [];
  }

  /** @param {string} event */
  _heard(event) {
    return this._of(event).length;
  }

  /**
   * If a listener throws, the other listeners are still called, and this client continues.
   * @param {string} event
   * @param {any[]} args
   */
  _emit(event, ...args) {
    for (const listener of this._of(event)) {
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

/** An emitter of the client's own events and of published events. `events` emits only the latter. */
export class Source extends Emitter {
  events = new Emitter();

  /** @param {RegExp} own the client's own events, whose listeners are not called for published events */
  constructor(own) {
    super();
    this._own = own;
  }

  /**
   * Emits an event that was published, or sent to this client. Its sender chose the name, and
   * must not be able to call the listeners of the client's own events.
   * @param {string} event
   * @param {any} data
   * @param {any} [message]
   */
  _publish(event, data, message) {
    if (!this._own.test(event)) this._emit(event, data, message);
    this.events._emit(event, data, message);
  }
}
