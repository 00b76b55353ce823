package backend

import (
	"context"
	"iter"
)

// ChannelQuery selects channels for ListChannels.
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

// ChannelList is the result of ListChannels.
type ChannelList struct {
	Channels []ListedChannel // sorted by name
	Next     string          // for Page.After; "" if no channels follow
	Coverage
}

// ListChannels returns channels that have subscribers on any node, sorted by name. The pages have
// every channel that exists during the calls exactly once, whatever comes and goes. ChannelPages
// requests them one after another.
//
// Queries can be repeated at any time, so their errors never wrap ErrOutcomeUnknown. If the server
// cannot ask the other nodes, the error wraps ErrUnavailable, and the list has the channels of
// the node that answered last. Otherwise the errors are those of Publish.
func (c *Client) ListChannels(ctx context.Context, q ChannelQuery) (ChannelList, error) {
	if err := validUTF8("prefix", q.Prefix, "after", q.After); err != nil {
		return ChannelList{}, failed("channels", err)
	}
	answer, err := query[channelsAnswer](ctx, c, "channels", channelsBody{
		Prefix:   q.Prefix,
		pageBody: pageBody(q.Page),
		Count:    q.Count,
	})
	list := ChannelList{
		Next:     answer.Next,
		Coverage: answer.coverage(),
	}
	for _, ch := range answer.Channels {
		if !q.Count {
			ch.Subscribers = -1
		}
		list.Channels = append(list.Channels, ListedChannel(ch))
	}
	return list, err
}

// ChannelPages returns all pages of ListChannels, from q.After on. The loop ends after an error,
// which comes with what ListChannels has returned with it.
func (c *Client) ChannelPages(ctx context.Context, q ChannelQuery) iter.Seq2[ChannelList, error] {
	return pages(q.After, func(after string) (ChannelList, string, error) {
		page := q
		page.After = after
		list, err := c.ListChannels(ctx, page)
		return list, list.Next, err
	})
}

type channelsBody struct {
	Prefix string `json:"prefix,omitempty"`
	pageBody
	Count bool `json:"count,omitempty"`
}

type channelsAnswer struct {
	Channels []channelAnswer `json:"channels"`
	Next     string          `json:"next"`
	coverageAnswer
}

type channelAnswer struct {
	Name        string `json:"name"`
	Subscribers int    `json:"subscribers"`
	Presence    bool   `json:"presence"`
}
