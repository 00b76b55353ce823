package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gopushy/pushy/internal/control"
	"github.com/gopushy/pushy/internal/names"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// maxPageBytes limits the bytes of a page, because brokers limit the size of a message.
	maxPageBytes = 256 << 10

	askChannels    = "pushy:channels"
	askMembers     = "pushy:members"
	askConnections = "pushy:connections"
)

// Page selects a part of a list.
type Page struct {
	// After is the Next of the page before, or "" for the first page.
	After string
	// Limit is the number of items, at most 1,000. Default 100. A page can be shorter although
	// others follow, because its size is limited to about 256 KiB for each node.
	Limit int
}

func (p Page) check() (Page, string, error) {
	switch {
	case p.Limit < 0 || p.Limit > maxPage:
		return p, "limit", fmt.Errorf("must be 1 to %d", maxPage)
	case len(p.After) > names.MaxBytes:
		return p, "after", fmt.Errorf("must not be longer than %d bytes", names.MaxBytes)
	case p.Limit == 0:
		p.Limit = defaultPage
	}
	return p, "", nil
}

// Coverage says which nodes a result is from.
type Coverage struct {
	Nodes int // the number of nodes that have answered, this one included
	// Silent has the ids of the nodes that did not answer within 500 ms, sorted. What only they
	// have is missing.
	Silent []string
}

// ChannelQuery selects channels for Server.ListChannels.
type ChannelQuery struct {
	Prefix string // of the names; case-insensitive
	Page
	// Count sets ListedChannel.Subscribers.
	Count bool
}

// ListedChannel is a channel that has subscribers on any node.
type ListedChannel struct {
	Name        string
	Subscribers int  // connected subscribers on the nodes that have answered; -1 without ChannelQuery.Count
	Presence    bool // the members see each other
}

// ChannelList is the result of Server.ListChannels.
type ChannelList struct {
	Channels []ListedChannel // sorted by name
	Next     string          // for Page.After; "" if no channels follow
	Coverage
}

// ListChannels returns channels that have subscribers on any node, sorted by name. The pages have
// every channel that exists during the calls exactly once, whatever comes and goes.
//
// The error says which field is not valid. If the other nodes cannot be asked, for example because
// the Broker is away, the error says why, and the list has the channels of this node. After
// Shutdown has begun it is ErrClosed.
func (s *Server) ListChannels(ctx context.Context, q ChannelQuery) (ChannelList, error) {
	question, field, err := checkChannels(q)
	if err != nil {
		return ChannelList{}, fmt.Errorf("pushy: list channels: %s: %w", field, err)
	}
	merged, err := askPages(ctx, s, askChannels, question, merging[listedChannel]{
		key: func(c *listedChannel) string { return c.Name },
		valid: func(c *listedChannel) error {
			lower, err := names.Channel(c.Name)
			if err == nil && (lower != c.Name || !strings.HasPrefix(lower, question.Prefix) || c.Subscribers < 0) {
				err = errors.New("is not one that was asked for")
			}
			return err
		},
		join: func(into *listedChannel, c listedChannel) {
			into.Subscribers += c.Subscribers
			into.Presence = into.Presence || c.Presence
		},
		after: question.After,
		limit: question.Limit,
	})
	list := ChannelList{Coverage: merged.Coverage, Next: merged.next}
	for _, c := range merged.items {
		if !q.Count {
			c.Subscribers = -1
		}
		list.Channels = append(list.Channels, ListedChannel(c))
	}
	return list, listError("channels", err)
}

// channelQuestion is the data of askChannels.
type channelQuestion struct {
	Prefix string `json:"prefix"`
	After  string `json:"after"`
	Limit  int    `json:"limit"`
}

// listedChannel is ListedChannel between nodes.
type listedChannel struct {
	Name        string `json:"name"`
	Subscribers int    `json:"subscribers"`
	Presence    bool   `json:"presence,omitempty"`
}

func checkChannels(q ChannelQuery) (question channelQuestion, field string, err error) {
	page, field, err := q.Page.check()
	if err != nil {
		return question, field, err
	}
	question = channelQuestion{
		After: page.After,
		Limit: page.Limit,
	}
	if q.Prefix != "" {
		if question.Prefix, err = names.Channel(q.Prefix); err != nil && question.Prefix != "." && question.Prefix != ".." {
			return question, "prefix", err
		}
	}
	return question, "", nil
}

func (s *Server) answerChannels(_ context.Context, data json.RawMessage) (any, error) {
	var q channelQuestion
	if err := json.Unmarshal(data, &q); err != nil || q.Limit < 1 || q.Limit > maxPage {
		return nil, errors.New("the question is not valid")
	}
	channels, more := s.hub.ChannelsAfter(q.Prefix, q.After, q.Limit)
	answer := nodePage[listedChannel]{More: more}
	for _, ch := range channels {
		answer.Items = append(answer.Items, listedChannel{
			Name:        ch.Name(),
			Subscribers: ch.Len(),
			Presence:    ch.ShowsMembers(),
		})
	}
	return answer, nil
}

// nodePage is the answer of a node to a question for a page. More means that the node has items
// that follow the last one.
type nodePage[T any] struct {
	Items []T  `json:"items"`
	More  bool `json:"more,omitempty"`
}

// merging says how the pages of nodes become one.
type merging[T any] struct {
	key   func(*T) string
	valid func(*T) error
	join  func(into *T, other T) // for items with equal keys, or nil
	after string
	limit int
}

type mergedPage[T any] struct {
	items []T
	next  string
	Coverage
}

// askPages asks all nodes for the items after a key, and returns the first ones of all. Each node
// sends its first ones. So the result is exact up to the lowest of the last keys of those nodes
// that have more.
func askPages[T any](ctx context.Context, s *Server, question string, data any, m merging[T]) (mergedPage[T], error) {
	ctx, cancel := context.WithTimeout(ctx, control.DefaultTimeout)
	defer cancel()
	answers, err := s.ask(ctx, question, data)
	merged := mergedPage[T]{}
	merged.Silent = answers.Silent
	index := map[string]int{}
	var items []T
	bound, cut := "", false
	for _, a := range answers.Answers {
		page, ok := decodePage(a, m)
		if !ok {
			merged.Silent = append(merged.Silent, a.Node) // such as one with an earlier version
			continue
		}
		merged.Nodes++
		for _, item := range page.Items {
			key := m.key(&item)
			if i, known := index[key]; known {
				if m.join != nil {
					m.join(&items[i], item)
				}
				continue
			}
			index[key] = len(items)
			items = append(items, item)
		}
		if page.More {
			if last := m.key(&page.Items[len(page.Items)-1]); !cut || last < bound {
				bound, cut = last, true
			}
		}
	}
	slices.Sort(merged.Silent)
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(m.key(&a), m.key(&b)) })
	if cut {
		items = slices.DeleteFunc(items, func(item T) bool { return m.key(&item) > bound })
	}
	if len(items) > m.limit {
		items = items[:m.limit]
		cut = true
	}
	if cut {
		merged.next = m.key(&items[len(items)-1])
	}
	merged.items = items
	return merged, err
}

// decodePage decodes the answer of a node. Other programs can answer in the name of a node, so it
// is validated.
func decodePage[T any](a Answer, m merging[T]) (page nodePage[T], ok bool) {
	if a.Err != "" || json.Unmarshal(a.Data, &page) != nil || len(page.Items) > m.limit ||
		page.More && len(page.Items) == 0 {
		return page, false
	}
	last := m.after
	for i := range page.Items {
		key := m.key(&page.Items[i])
		if key <= last || m.valid(&page.Items[i]) != nil {
			return page, false
		}
		last = key
	}
	return page, true
}

func listError(what string, err error) error {
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	return fmt.Errorf("pushy: list %s: %w", what, errors.Unwrap(err)) // ask has added the prefix
}

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
		return MemberList{}, fmt.Errorf("pushy: list members: %s: %w", field, err)
	}
	if page := s.membersHere(question); page.Known {
		return page.list(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, control.DefaultTimeout)
	defer cancel()
	answers, err := s.ask(ctx, askMembers, question)
	silent := answers.Silent
	for _, a := range answers.Answers {
		var page memberPage
		if a.Err != "" || json.Unmarshal(a.Data, &page) != nil || !page.valid(question) {
			silent = append(silent, a.Node) // such as one with an earlier version
			continue
		}
		if page.Known {
			return page.list(), nil
		}
	}
	slices.Sort(silent)
	return MemberList{Silent: silent}, listError("members", err)
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
