import { type PointerEvent, type RefObject, useEffect, useMemo, useRef, useState } from "react";
import type { View } from "./events.js";
import type { Player } from "./game.js";
import type { Direction } from "./moves.js";

const size = 10; // squares a side
const farewell = 200; // milliseconds for which a piece that has left the board is shown

interface Piece {
  id: string;
  x: number;
  y: number;
  kind: string;
  name?: string;
  hue?: number;
}

interface Props {
  board: View;
  members: readonly Player[];
  me?: Player;
  mine: RefObject<HTMLDivElement | null>;
  move: (to: Direction) => void;
}

/** The board. Each piece keeps its element for as long as it exists, so that CSS can animate its moves. */
export function Board({ board, members, me, mine, move }: Props) {
  const pieces = useMemo<Piece[]>(() => [
    ...board.gems.map(({ x, y }) => ({ id: `gem ${x} ${y}`, x, y, kind: "gem" })),
    ...board.players.map(({ id, x, y }) => {
      const { name = "", hue = 0 } = members.find((member) => member.id === id) ?? {};
      return { id, x, y, kind: id === me?.id ? "player mine" : "player", name, hue };
    }),
  ], [board, members, me]);
  const leaving = useLeaving(pieces);
  const element = useRef<HTMLDivElement>(null);
  const swipe = useSwipe(() => element.current!.clientWidth / size, move);

  return (
    <section className="field" aria-label="Board">
      <div id="board" ref={element} {...swipe}>
        {[...pieces, ...leaving].map((piece, i) => (
          <div
            key={piece.id}
            ref={piece.kind === "player mine" ? mine : undefined}
            className={i < pieces.length ? piece.kind : `${piece.kind} gone`}
            title={piece.name}
            style={{ "--x": piece.x, "--y": piece.y, "--hue": piece.hue ?? 0 }}
          >
            {[...(piece.name ?? "")][0]?.toUpperCase()}
          </div>
        ))}
      </div>
    </section>
  );
}

/** Returns the pieces that have left the board a moment ago. */
function useLeaving(pieces: Piece[]): Piece[] {
  const [last, setLast] = useState(pieces);
  const [leaving, setLeaving] = useState<Piece[]>([]);
  if (last !== pieces) {
    const here = new Set(pieces.map(({ id }) => id));
    setLast(pieces);
    setLeaving([...leaving, ...last].filter(({ id }) => !here.has(id)));
  }
  useEffect(() => {
    if (!leaving.length) return;
    const timer = setTimeout(() => setLeaving([]), farewell);
    return () => clearTimeout(timer);
  }, [leaving]);
  return leaving;
}

/** Moves once for each square that a finger goes on the board. */
function useSwipe(square: () => number, move: (to: Direction) => void) {
  const from = useRef<{ x: number; y: number }>(undefined);
  const end = () => {
    from.current = undefined;
  };
  return {
    onPointerDown(event: PointerEvent) {
      event.currentTarget.setPointerCapture(event.pointerId); // the finger may leave the board
      from.current = { x: event.clientX, y: event.clientY };
    },
    onPointerMove(event: PointerEvent) {
      if (!from.current) return;
      const dx = event.clientX - from.current.x, dy = event.clientY - from.current.y;
      if (Math.max(Math.abs(dx), Math.abs(dy)) < square()) return;
      from.current = { x: event.clientX, y: event.clientY };
      if (Math.abs(dx) > Math.abs(dy)) move(dx > 0 ? "right" : "left");
      else move(dy > 0 ? "down" : "up");
    },
    onPointerUp: end,
    onPointerCancel: end,
  };
}
