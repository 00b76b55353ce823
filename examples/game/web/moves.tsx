import { type PointerEvent, useEffect, useRef } from "react";
import { PushyError, type Pushy } from "pushy-client";
import type { MoveReply } from "./events.js";

export type Direction = "up" | "left" | "down" | "right";
type Move = (to: Direction) => void;

const pace = 100; // milliseconds between moves while a key is held; longer than the server requires

/** Returns a function that moves. Moves are sent one at a time; meanwhile, only the last request is kept. */
export function useMoves(pushy: Pushy, refused: (error: PushyError) => void): Move {
  const wanted = useRef<Direction>(undefined);
  const busy = useRef(false);
  return async (to) => {
    wanted.current = to;
    if (busy.current) return;
    busy.current = true;
    while (wanted.current) {
      const next: Direction = wanted.current;
      wanted.current = undefined;
      const rest = new Promise((done) => setTimeout(done, pace));
      try {
        await pushy.exec<MoveReply>("move", { to: next }, { offline: "reject" });
      } catch (error) {
        if (!(error instanceof PushyError)) throw error;
        // The move before was delayed on its way, and this one was not.
        if (error.code === "too-fast") wanted.current ??= next;
        else refused(error);
      }
      await rest;
    }
    busy.current = false;
  };
}

const keys: Record<string, Direction> = {
  ArrowUp: "up",
  ArrowDown: "down",
  ArrowLeft: "left",
  ArrowRight: "right",
  KeyW: "up",
  KeyS: "down",
  KeyA: "left",
  KeyD: "right",
};

/** Moves with the keyboard. */
export function useKeys(move: Move) {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const to = keys[event.code];
      if (!to || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(to);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
}

const buttons: [Direction, string, string][] = [
  ["up", "Up", "M12 19V5M5 12l7-7 7 7"],
  ["left", "Left", "M19 12H5m7 7-7-7 7-7"],
  ["down", "Down", "M12 5v14m7-7-7 7-7-7"],
  ["right", "Right", "M5 12h14m-7-7 7 7-7 7"],
];

/** The buttons for phones. A button that is held moves again and again. */
export function Pad({ move }: { move: Move }) {
  const again = useRef<ReturnType<typeof setInterval>>(undefined);
  const stop = () => clearInterval(again.current);
  useEffect(() => stop, []);
  return (
    <nav className="pad" aria-label="Move">
      {buttons.map(([to, label, path]) => (
        <button
          key={to}
          data-to={to}
          aria-label={label}
          onPointerDown={(event: PointerEvent) => {
            event.preventDefault();
            move(to);
            stop();
            again.current = setInterval(move, pace, to);
          }}
          onPointerUp={stop}
          onPointerLeave={stop}
          onPointerCancel={stop}
          onClick={(event) => event.detail === 0 && move(to)} // by keyboard
        >
          <svg viewBox="0 0 24 24"><path d={path} /></svg>
        </button>
      ))}
    </nav>
  );
}
