// Actions on the chat's page, and locators of what it shows.

export async function enter(page, name) {
  await page.getByLabel("Your name").fill(name);
  await page.getByRole("button", { name: "Join the chat" }).click();
  await page.getByRole("status").getByText("Connected").waitFor();
  // Also in the lounge, which needs a token: from here on the page shows who joins.
  await person(page, `${name} (you)`).waitFor();
}

export const say = async (page, text) => {
  await page.getByLabel("Message").fill(text);
  await page.getByLabel("Message").press("Enter");
};
export const room = (page, name) => page.getByRole("navigation").getByRole("button", { name }).click();
export const log = (page) => page.locator(".log:visible");
export const person = (page, name) => page.locator("#people li").getByText(name, { exact: true });
export const line = (page, text) => log(page).getByText(text, { exact: true });
