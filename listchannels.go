package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/gopushy/pushy/internal/names"
)

const askChannels = "pushy:channels"

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
	Subscribers int  // connected clients and Listeners on the nodes that have answered; -1 without ChannelQuery.Count
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
		return ChannelList{}, callError("list channels", fmt.Errorf("%s: %w", field, err))
	}
	merged, err := s.listChannels(ctx, question)
	list := ChannelList{Coverage: merged.Coverage, Next: merged.next}
	for _, c := range merged.items {
		if !q.Count {
			c.Subscribers = -1
		}
		list.Channels = append(list.Channels, ListedChannel(c))
	}
	return list, callError("list channels", err)
}

func (s *Server) listChannels(ctx context.Context, question channelQuestion) (mergedPage[listedChannel], error) {
	return askPages(ctx, s, askChannels, question, merging[listedChannel]{
		key: func(c *listedChannel) string { return c.Name },
		valid: func(c *listedChannel) error {
			// Other protocols have names with capitals.
			_, err := names.Channel(c.Name)
			if err == nil && (!strings.HasPrefix(c.Name, question.Prefix) || c.Subscribers < 0) {
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
			Subscribers: ch.Subscribers(),
			Presence:    ch.ShowsMembers(),
		})
	}
	return answer, nil
}
