// Listeners by event. Others choose the names (a channel may have an event
// "__proto__"), so they are keys of a Map.

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
   * Without a listener all listeners of the event are removed.
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
   * A listener that throws does not keep the event from the others, nor from us.
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

/** An emitter of events of its own, and of published ones, which have a second emitter for themselves. */
export class Source extends Emitter {
  events = new Emitter();

  /** @param {RegExp} own the events of the client itself, whose listeners nothing that is published may call */
  constructor(own) {
    super();
    this._own = own;
  }

  /**
   * Something was published, or sent to this client. Whoever chose the name must not
   * be able to call the listeners of the client's own events by it.
   * @param {string} event
   * @param {any} data
   */
  _publish(event, data) {
    if (!this._own.test(event)) this._emit(event, data);
    this.events._emit(event, data);
  }
}
