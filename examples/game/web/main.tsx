import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import type { Pushy } from "pushy-client";
import { Game } from "./game.js";
import { join, remembered } from "./realtime.js";

function App() {
  const [pushy, setPushy] = useState(() => (remembered() ? join(remembered()) : undefined));
  return pushy ? <Game pushy={pushy} /> : <Welcome onJoin={setPushy} />;
}

function Welcome({ onJoin }: { onJoin: (pushy: Pushy) => void }) {
  const [name, setName] = useState("");
  return (
    <main id="welcome">
      <form
        className="card"
        onSubmit={(event) => {
          event.preventDefault();
          if (name.trim()) onJoin(join(name.trim()));
        }}
      >
        <img src="icon.svg" alt="" width="64" height="64" />
        <h1>Magpies</h1>
        <p>Be the first to pick up ten gems. Open a second tab, and race yourself.</p>
        <label htmlFor="name">Your name</label>
        <input
          id="name"
          maxLength={16}
          required
          autoFocus
          autoComplete="nickname"
          value={name}
          onChange={(event) => setName(event.target.value)}
        />
        <button className="primary">Play</button>
      </form>
    </main>
  );
}

createRoot(document.getElementById("app")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
