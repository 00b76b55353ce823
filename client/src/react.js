"use client";
// The hooks of pushy-client/react.
import { useEffect, useInsertionEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { ofChannel, ofConnection, ofPresence } from "./bindings.js";

/** @template T @param {() => import("./bindings.js").Store<T>} make @param {any[]} inputs */
function useStore(make, inputs) {
  const { on, get, empty } = useMemo(make, inputs);
  return useSyncExternalStore(on, get, () => empty);
}

/** @template T @param {T} value */
function useLatest(value) {
  const latest = useRef(value);
  useInsertionEffect(() => {
    latest.current = value;
  });
  return latest;
}

/** @param {any} pushy */
export const useConnection = (pushy) => useStore(() => ofConnection(pushy), [pushy]);

/** @param {any} pushy @param {any} name @param {any} [options] */
export function useChannel(pushy, name, options) {
  const latest = useLatest(options);
  return useStore(() => ofChannel(pushy, name, () => latest.current), [pushy, name]);
}

/** @param {any} channel */
export const usePresence = (channel) => useStore(() => ofPresence(channel), [channel]);

/** @param {any} source @param {string} event @param {(...args: any[]) => void} listener */
export function useEvent(source, event, listener) {
  const latest = useLatest(listener);
  useEffect(() => {
    const call = (/** @type {any[]} */ ...args) => latest.current(...args);
    source?.on(event, call);
    return () => source?.off(event, call);
  }, [source, event]);
}
