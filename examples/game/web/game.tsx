// The page of a player. The server applies the rules; the page shows its boards and sends moves.
import { useEffect, useRef, useState } from "react";
import type { Member, Pushy } from "pushy-client";
import { useChannel, useConnection, useEvent, usePresence } from "pushy-client/react";
import { Board } from "./board.js";
import type { ArenaEvents, Face, View } from "./events.js";
import { Pad, useKeys, useMoves } from "./moves.js";

export type Player = Member & Face;

const goal = 10;
const words = {
  idle: "",
  connecting: "Connecting…",
  connected: "Connected",
  waiting: "Reconnecting…",
  closed: "Disconnected",
};

export function Game({ pushy }: { pushy: Pushy }) {
  const { state } = useConnection(pushy);
  const { channel, error } = useChannel<ArenaEvents>(pushy, "private-arena");
  const { members, me } = usePresence<Face>(channel);
  const [board, setBoard] = useState<View>({ turn: -1, players: [], gems: [] });
  const [banner, say] = useBanner();
  const turn = useRef(-1);
  const mine = useRef<HTMLDivElement>(null);

  const nameOf = (id: string) => members.find((member) => member.id === id)?.name ?? "Somebody";
  const show = (next: View) => {
    if (next.turn < turn.current) return; // this answer arrived after a newer event
    turn.current = next.turn;
    setBoard(next);
    if (next.winner) say(next.winner === me?.id ? "You win this round!" : `${nameOf(next.winner)} wins this round!`);
  };
  useEvent(channel, "board", show);
  // Events report changes. The state before, and changes while the page was disconnected, are fetched. The server can
  // be a new one, which counts turns from the beginning.
  useEvent(channel, "subscribe", () => {
    turn.current = -1;
    pushy.exec<View>("look").then(show, () => {}); // if the connection is lost, the next one asks again
  });
  useEffect(() => {
    if (error) say(`You cannot join: ${error}`);
  }, [error]);

  const move = useMoves(pushy, (refusal) => {
    if (refusal.code === "no-way") mine.current?.animate({ scale: [1, 0.8, 1] }, 150);
    else say(refusal.code === "offline" ? "Not connected. Wait a moment." : refusal.message);
  });
  useKeys(move);

  return (
    <div id="game" data-state={state}>
      <header>
        <img src="icon.svg" alt="" width="28" height="28" />
        <h1>Magpies</h1>
        <p id="state" role="status">{words[state]}</p>
      </header>
      <Board board={board} members={members} me={me} mine={mine} move={move} />
      <p id="banner" role="alert">{banner && <span key={banner.number}>{banner.text}</span>}</p>
      <aside>
        <h2>First to ten</h2>
        <Scores board={board} members={members} me={me} />
        <p className="hint">
          <kbd>←</kbd> <kbd>↑</kbd> <kbd>↓</kbd> <kbd>→</kbd> or{" "}
          <kbd>W</kbd> <kbd>A</kbd> <kbd>S</kbd> <kbd>D</kbd> to move
        </p>
      </aside>
      <p className="swipe">Swipe on the board, or use the arrows.</p>
      <Pad move={move} />
    </div>
  );
}

function Scores({ board, members, me }: { board: View; members: readonly Player[]; me?: Player }) {
  const rows = [...board.players].sort((a, b) => b.score - a.score);
  return (
    <ol id="scores">
      {rows.map((player) => {
        const { name = "…", hue = 0 } = members.find((member) => member.id === player.id) ?? {};
        const own = player.id === me?.id;
        return (
          <li key={player.id} className={own ? "mine" : ""} style={{ "--hue": hue, "--part": player.score / goal }}>
            <span className="name">{own ? `${name} (you)` : name}</span>
            <strong className="score">{player.score}</strong>
          </li>
        );
      })}
    </ol>
  );
}

/** A text that is shown for 3 s. Its number distinguishes it from the same text before. */
function useBanner() {
  const [banner, setBanner] = useState<{ text: string; number: number }>();
  useEffect(() => {
    if (!banner) return;
    const timer = setTimeout(() => setBanner(undefined), 3000);
    return () => clearTimeout(timer);
  }, [banner]);
  const say = (text: string) => setBanner((last) => ({ text, number: (last?.number ?? 0) + 1 }));
  return [banner, say] as const;
}

declare module "react" {
  interface CSSProperties {
    [property: `--${string}`]: string | number;
  }
}
