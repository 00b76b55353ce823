package backend

import (
	"context"
	"encoding/json"
	"iter"

	"github.com/gopushy/pushy/internal/calls"
)

// MemberQuery selects members of a channel for ListMembers.
type MemberQuery struct {
	Channel string // of a private channel; case-insensitive
	Page
}

// Member is a member of a private channel.
type Member struct {
	ID   string // the memberId of the protocol, or that of the user if the channel shows users
	User string // the Conn.UserID of its connection, or ""
	// JSON is the member as clients see it (PROTOCOL.md, section 4).
	JSON json.RawMessage
}

// MemberList is the result of ListMembers.
type MemberList struct {
	Members  []Member // sorted by ID
	Presence bool     // the members see each other
	Next     string   // for Page.After; "" if no members follow
	// Silent has the ids of the nodes that did not answer within 500 ms, if none of those that
	// have answered knows the channel. Otherwise it is nil, because each node that knows a channel
	// knows its members on all nodes.
	Silent []string
}

// ListMembers returns members of a private channel on all nodes, sorted by their ids. The pages
// have every member that is in the channel during the calls exactly once. If no node has
// subscribers of the channel, the list is empty. The errors are those of ListChannels; a public
// channel is ErrBadRequest.
func (c *Client) ListMembers(ctx context.Context, q MemberQuery) (MemberList, error) {
	if err := validUTF8("channel", q.Channel, "after", q.After); err != nil {
		return MemberList{}, failed("members", err)
	}
	answer, err := query[calls.MembersAnswer](ctx, c, "members", calls.Members{
		Channel: q.Channel,
		Page:    q.Page.body(),
	})
	list := MemberList{
		Presence: answer.Presence,
		Next:     answer.Next,
		Silent:   coverage(calls.Coverage{Silent: answer.Silent}).Silent,
	}
	for _, m := range answer.Members {
		list.Members = append(list.Members, Member{
			ID:   m.ID,
			User: m.User,
			JSON: m.Member,
		})
	}
	return list, err
}

// MemberPages returns all pages of ListMembers, from q.After on. The loop ends after an error,
// which comes with what ListMembers has returned with it.
func (c *Client) MemberPages(ctx context.Context, q MemberQuery) iter.Seq2[MemberList, error] {
	return pages(q.After, func(after string) (MemberList, string, error) {
		page := q
		page.After = after
		list, err := c.ListMembers(ctx, page)
		return list, list.Next, err
	})
}
