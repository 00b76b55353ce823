// What an operator can do. Each action is asked for once more, and says what it has done.
import { page, post } from "./net.js";
import { make, plural, value } from "./show.js";
import { covered } from "./table.js";

const $ = (id) => document.getElementById(id);

let asked = 0;

/** Asks for a reason, and returns it, or null if the operator changed his mind. */
function ask(title, name, button) {
  const question = ++asked;
  $("confirm-title").replaceChildren(`${title} `, value(name), "?");
  $("confirm-do").textContent = button;
  $("confirm-reason").value = "";
  const dialog = $("confirm");
  dialog.returnValue = "";
  dialog.showModal();
  $("confirm-reason").focus();
  return new Promise((resolve) => {
    const ended = () => {
      // The close event of a question can come after the next question has begun.
      if (question === asked && dialog.open) return;
      dialog.removeEventListener("close", ended);
      resolve(question === asked && dialog.returnValue === "do" ? $("confirm-reason").value : null);
    };
    dialog.addEventListener("close", ended);
  });
}

$("confirm-cancel").addEventListener("click", () => $("confirm").close());

/** Returns where the outcome of actions is said. */
const saying = () => make("p", { class: "note", role: "status" });

async function run(said, path, body, done) {
  said.replaceChildren("…");
  try {
    const outcome = await post(path, body);
    said.replaceChildren(value([done(outcome.done), covered(outcome)].filter(Boolean).join(" ")));
    return outcome;
  } catch (failed) {
    said.replaceChildren(value(failed.message));
    return null;
  }
}

const button = (text, label, click) => make("button", { type: "button", class: "danger", "aria-label": label, click }, text);

const closed = (n) => (n ? `Closed ${plural(n, "connection")}.` : "There was no such connection.");

/** Returns the actions for a connection. */
export function connActs(c) {
  if (page.readOnly) return "";
  const said = saying();
  const kick = async (target, title, name) => {
    const reason = await ask(title, name, "Disconnect");
    if (reason !== null) await run(said, "kick", { target, reason }, closed);
  };
  const all = button("Disconnect user…", undefined, () => kick(`user:${c.user}`, "Disconnect all connections of user", c.user));
  return make("section", { class: "acts", "aria-label": "Actions" }, make("div", { class: "buttons" },
    button("Disconnect…", undefined, () => kick(`conn:${c.id}`, "Disconnect", c.id)), c.user ? all : ""), said);
}

/** Returns a button that removes a connection from a channel, and where its outcome is said. */
export function removeAct(c, channel, label) {
  if (page.readOnly) return [];
  const said = saying();
  const remove = button("Remove…", label, async () => {
    const reason = await ask("Remove the connection from", channel, "Remove");
    if (reason === null) return;
    const gone = (n) => (n ? "Removed." : "It was not in the channel.");
    const outcome = await run(said, "remove", { conn: c.id, channel, reason }, gone);
    if (outcome?.done) remove.disabled = true;
  });
  return [said, remove];
}

/** Returns the form that publishes an event. */
export function publishForm(channel) {
  if (page.readOnly) return "";
  const said = saying();
  const event = make("input", { id: "publish-event", required: true, maxlength: 200, autocomplete: "off", spellcheck: "false" });
  const data = make("textarea", { id: "publish-data", spellcheck: "false", "aria-describedby": "publish-said" });
  data.value = "{}";
  said.id = "publish-said";
  const submit = async (e) => {
    e.preventDefault();
    try {
      JSON.parse(data.value);
    } catch (wrong) {
      said.replaceChildren(value(`The data is not JSON: ${wrong.message}`));
      data.focus();
      return;
    }
    // The data is sent as it was typed: JSON.parse rounds large numbers.
    const body = `{"channel":${JSON.stringify(channel)},"event":${JSON.stringify(event.value)},"data":${data.value}}`;
    await run(said, "publish", body, () => "Published.");
  };
  return make("section", { class: "acts" }, make("h3", {}, "Publish an event"), make("form", { class: "stack", submit },
    make("label", { for: "publish-event" }, "Event"), event,
    make("label", { for: "publish-data" }, "Data, as JSON"), data,
    make("div", { class: "buttons" }, make("button", {}, "Publish")), said));
}
