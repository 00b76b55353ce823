// Who is in a channel: a Map by memberId, in joining order. What members bring
// is theirs; it is kept as it came and never merged into anything.

/** @typedef {import("../pushy.d.ts").Member} Member */

/**
 * The members after a list from the server, which is all of them.
 * @param {Member[] | undefined} list
 * @returns {Map<string, Member>}
 */
export const fromList = (list) => new Map((list ?? []).map((member) => [member.memberId, member]));

/**
 * @param {ReadonlyMap<string, Member>} members
 * @param {Member} member
 */
export const withMember = (members, member) => new Map(members).set(member.memberId, member);

/**
 * @param {ReadonlyMap<string, Member>} members
 * @param {Member} member
 */
export function withoutMember(members, member) {
  const rest = new Map(members);
  rest.delete(member.memberId);
  return rest;
}
