// Requests to the handler of the console, whose paths are beside that of the page.

/** What the page knows of itself. */
export const page = { readOnly: true };

async function answerOf(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const refusal = body.error?.message ?? `status ${response.status}`;
  throw new Error(response.status === 401 ? "Your session has ended: reload the page." : refusal);
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(10_000) });
  } catch (failed) {
    throw new Error(failed.name === "TimeoutError" ? "The server did not answer within 10 s." : "The server cannot be reached.");
  }
  return answerOf(response);
}

export function get(path, query = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== "" && v !== undefined));
  return request(parameters.size ? `${path}?${parameters}` : path);
}

/** Sends JSON: a value, or the text of one. */
export const post = (path, body) => request(path, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: typeof body === "string" ? body : JSON.stringify(body),
});
