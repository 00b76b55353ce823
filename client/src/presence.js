// The members of a channel: a Map by memberId, in joining order. A member's data is kept as
// it arrived, and never merged into another object.

/** @typedef {import("../pushy.d.ts").Member} Member */

/**
 * The members after the server has sent a complete list.
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
