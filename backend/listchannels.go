package backend

import (
	"context"
	"iter"

	"github.com/gopushy/pushy/internal/calls"
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
	answer, err := query[calls.ChannelsAnswer](ctx, c, "channels", calls.Channels{
		Prefix: q.Prefix,
		Count:  q.Count,
		Page:   q.Page.body(),
	})
	list := ChannelList{
		Next:     answer.Next,
		Coverage: coverage(answer.Coverage),
	}
	for _, ch := range answer.Channels {
		listed := ListedChannel{
			Name:        ch.Name,
			Subscribers: -1,
			Presence:    ch.Presence,
		}
		if ch.Subscribers != nil {
			listed.Subscribers = *ch.Subscribers
		}
		list.Channels = append(list.Channels, listed)
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
