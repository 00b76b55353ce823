package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gopushy/pushy/internal/names"
)

const askMembers = "pushy:members"

// MemberQuery selects members of a channel for Server.ListMembers.
type MemberQuery struct {
	Channel string // of a private channel; case-insensitive
	Page
}

// MemberList is the result of Server.ListMembers.
type MemberList struct {
	// Members are sorted by ID. With PresenceOptions.PerUser they are users.
	Members  []Member
	Presence bool   // the members see each other
	Next     string // for Page.After; "" if no members follow
	// Silent has the ids of the nodes that did not answer within 500 ms, if none of those that
	// have answered knows the channel. Otherwise it is nil, because each node that knows a channel
	// knows its members on all nodes.
	Silent []string
}

// ListMembers returns members of a private channel on all nodes, sorted by their ids. The pages
// have every member that is in the channel during the calls exactly once. If no node has
// subscribers of the channel, the list is empty. The errors are those of ListChannels; a public
// channel is one, too.
func (s *Server) ListMembers(ctx context.Context, q MemberQuery) (MemberList, error) {
	question, field, err := s.checkMembers(q)
	if err != nil {
		return MemberList{}, callError("list members", fmt.Errorf("%s: %w", field, err))
	}
	list, err := s.listMembers(ctx, question)
	return list, callError("list members", err)
}

func (s *Server) listMembers(ctx context.Context, question memberQuestion) (MemberList, error) {
	if page := s.membersHere(question); page.Known {
		return page.list(), nil
	}
	var found *memberPage
	coverage, err := gather(ctx, s, askMembers, question, func(page memberPage) bool {
		if !page.valid(question) {
			return false
		}
		if page.Known && found == nil {
			found = &page
		}
		return true
	})
	if found != nil {
		return found.list(), nil
	}
	return MemberList{Silent: coverage.Silent}, err
}

// memberQuestion is the data of askMembers.
type memberQuestion struct {
	Channel string `json:"channel"`
	After   string `json:"after"`
	Limit   int    `json:"limit"`
}

// memberPage is the answer to it.
type memberPage struct {
	Known   bool           `json:"known,omitempty"` // the channel is open on the node
	On      bool           `json:"on,omitempty"`
	Members []listedMember `json:"members,omitempty"`
	More    bool           `json:"more,omitempty"`
}

type listedMember struct {
	ID   string          `json:"id"`
	User string          `json:"user,omitempty"`
	Data bool            `json:"data,omitempty"`
	JSON json.RawMessage `json:"json"`
}

func (s *Server) checkMembers(q MemberQuery) (question memberQuestion, field string, err error) {
	page, field, err := q.Page.check()
	if err != nil {
		return question, field, err
	}
	lower, err := s.channelName(q.Channel)
	if err != nil {
		return question, "channel", err
	}
	policy, err := s.hub.PolicyOf(lower)
	switch {
	case err != nil:
		return question, "channel", fmt.Errorf("%w", names.ErrNotChecked)
	case !policy.Private:
		return question, "channel", errors.New("is not private, so it has no members; its connections can be listed")
	}
	return memberQuestion{
		Channel: lower,
		After:   page.After,
		Limit:   page.Limit,
	}, "", nil
}

func (s *Server) membersHere(q memberQuestion) (page memberPage) {
	members, on, more, known := s.hub.MembersAfter(q.Channel, q.After, q.Limit, maxPageBytes)
	page.Known = known
	page.On = on
	page.More = more
	for i := range members {
		page.Members = append(page.Members, listedMember{
			ID:   members[i].ID,
			User: members[i].User,
			Data: members[i].Data != nil,
			JSON: members[i].Text,
		})
	}
	return page
}

func (s *Server) answerMembers(_ context.Context, data json.RawMessage) (any, error) {
	var q memberQuestion
	if err := json.Unmarshal(data, &q); err != nil || q.Limit < 1 || q.Limit > maxPage {
		return nil, errors.New("the question is not valid")
	}
	return s.membersHere(q), nil
}

// valid reports whether a node can have answered with the page.
func (p *memberPage) valid(q memberQuestion) bool {
	if len(p.Members) > q.Limit || p.More && len(p.Members) == 0 {
		return false
	}
	last := q.After
	for _, m := range p.Members {
		if m.ID <= last || len(m.ID) > maxUserID || len(m.User) > maxUserID || len(m.JSON) == 0 {
			return false
		}
		last = m.ID
	}
	return true
}

func (p *memberPage) list() MemberList {
	list := MemberList{Presence: p.On}
	for _, m := range p.Members {
		list.Members = append(list.Members, Member{
			ID:      m.ID,
			User:    m.User,
			HasData: m.Data,
			JSON:    m.JSON,
		})
	}
	if p.More {
		list.Next = p.Members[len(p.Members)-1].ID
	}
	return list
}
