// Updates the page live: the list shows the events of the team's channel, and forms do not
// reload the page. Without this script the forms still work.
const $ = (id) => document.getElementById(id);
const json = { Accept: "application/json" };

const pushy = new Pushy("/rt", "/rt/auth");
const { channel, since, token } = document.body.dataset;
const team = pushy.channel(channel, { since }); // the changes since the page was rendered are replayed

function show(chore) {
  let row = $("chores").querySelector(`[data-id="${CSS.escape(chore.id)}"]`);
  if (!row) {
    row = $("row").content.firstElementChild.cloneNode(true);
    row.dataset.id = chore.id;
    row.querySelector("form").action = `/chores/${chore.id}`;
    $("chores").append(row);
  }
  row.classList.toggle("done", chore.done);
  row.querySelector(".text").textContent = chore.text;
  row.querySelector(".by").textContent = chore.by;
  const button = row.querySelector("button");
  button.value = String(!chore.done);
  button.setAttribute("aria-pressed", chore.done);
}

// ask returns the answer. If the session has ended, it opens the login page.
async function ask(url, options) {
  const response = await fetch(url, { headers: json, ...options });
  if (response.status === 401) location.assign("/login");
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

team.on("chore", show);
// Changes while the page is disconnected are replayed, too. If that is not possible, all chores are fetched.
const load = async () => (await ask("/chores")).forEach(show);
team.on("pushy:gap", load);
team.on("subscribe", () => {
  people();
  if (!since) load();
});
for (const event of ["pushy:member-added", "pushy:member-quit"]) team.on(event, people);

function people() {
  const names = [...new Set([...team.members.values()].map((member) => member.name))];
  $("people").replaceChildren(...names.map((name) => {
    const person = document.createElement("li");
    person.textContent = name;
    return person;
  }));
}

pushy.on("state", ({ state }) => {
  const words = { connecting: "Connecting…", connected: "Live", waiting: "Reconnecting…", closed: "Not live" };
  $("state").textContent = words[state] ?? "";
  $("state").dataset.state = state;
  // The connection may be closed because the user has logged out.
  if (state === "waiting" || state === "closed") ask("/chores").catch(() => {});
});
team.subscribe(token && { auth: token }); // after the token has expired, the client asks for the next one

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.action.includes("/chores")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form, event.submitter));
  try {
    show(await ask(form.action, { method: "POST", body })); // the event of this change has the same data, or newer data
    form.reset();
    $("problem").textContent = "";
  } catch {
    $("problem").textContent = "Your change was not saved. Try again when the page is live.";
  }
});
