package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gopushy/pushy/backend"
)

const (
	listHelp = `  -after ITEM        begin after this item, the last one of an earlier list
  -limit N           print at most N items. Default: all
`
	channelsHelp = `List the channels that have subscribers, on all nodes.

  pushy-server channels [flags] [PREFIX]

PREFIX is the beginning of their names. Default: all channels.

` + callHelp + `  -count             also print how many subscribers each channel has
` + listHelp + `  -json              print each channel as a line of JSON:
                     {"name":"lobby","subscribers":12,"presence":false}

` + coverageHelp + `
  pushy-server channels -config config.json -count private- | sort -rn | head
`
	membersHelp = `List the members of a private channel, on all nodes.

  pushy-server members [flags] CHANNEL

Each line has the memberId, the id of the user, which is - if there is none, and the
member as clients see it.

` + callHelp + listHelp + `  -json              print each member as a line of JSON:
                     {"id":"0f3c…","user":"42","member":{"name":"Ann",…}}

` + coverageHelp + `
  pushy-server members -config config.json private-staff
`
	connectionsHelp = `List connections, on all nodes.

  pushy-server connections [flags] TARGET

TARGET is user: and the id of a user, conn: and the id of a connection, which is the
socketId of its client, or channel: and the name of a channel.

` + callHelp + listHelp + `  -json              print each connection as a line of JSON:
                     {"id":"9b1c…","user":"42","node":"5f0c…",…}

` + coverageHelp + `
  pushy-server connections -config config.json user:42
`
)

// pageSize is the number of items that are requested at once, the largest that is allowed.
const pageSize = 1000

// listing has the flags of the commands that print a list.
type listing struct {
	*call
	after string
	limit int
}

func (p *program) newListing(name, help string) *listing {
	l := &listing{call: p.newCall(name, help)}
	l.StringVar(&l.after, "after", "", "")
	l.IntVar(&l.limit, "limit", 0, "")
	return l
}

// page returns the first page to request.
func (l *listing) page() (backend.Page, error) {
	page := backend.Page{
		After: l.after,
		Limit: pageSize,
	}
	if l.limit < 0 {
		return page, l.usageError("-limit must not be negative")
	}
	if l.limit > 0 {
		page.Limit = min(l.limit, pageSize)
	}
	return page, nil
}

// printItems prints the items of a page. more is false if -limit has been reached.
func printItems[T any](l *listing, items []T, line func(T) (text string, value any)) (more bool, err error) {
	for _, item := range items {
		if err := l.print(line(item)); err != nil {
			return false, err
		}
		if l.limit--; l.limit == 0 {
			return false, nil
		}
	}
	return true, nil
}

type listedChannel struct {
	Name        string `json:"name"`
	Subscribers *int   `json:"subscribers,omitempty"`
	Presence    bool   `json:"presence"`
}

func (p *program) channels(args []string) int {
	l := p.newListing("channels", channelsHelp)
	var q backend.ChannelQuery
	l.BoolVar(&q.Count, "count", false, "")
	return l.run(args, 0, 1, "at most one prefix", func(ctx context.Context, api *backend.Client) (err error) {
		q.Prefix = l.Arg(0)
		if q.Page, err = l.page(); err != nil {
			return err
		}
		for page, err := range api.ChannelPages(ctx, q) {
			l.answered(page.Coverage)
			more, printErr := printItems(l, page.Channels, func(ch backend.ListedChannel) (string, any) {
				text := ch.Name
				value := listedChannel{
					Name:     ch.Name,
					Presence: ch.Presence,
				}
				if q.Count {
					text = fmt.Sprintf("%7d  %s", ch.Subscribers, ch.Name)
					value.Subscribers = &ch.Subscribers
				}
				return text, value
			})
			if err != nil || printErr != nil || !more {
				return firstError(err, printErr)
			}
		}
		return nil
	})
}

type listedMember struct {
	ID     string          `json:"id"`
	User   string          `json:"user,omitempty"`
	Member json.RawMessage `json:"member"`
}

func (p *program) members(args []string) int {
	l := p.newListing("members", membersHelp)
	return l.run(args, 1, 1, "one channel", func(ctx context.Context, api *backend.Client) (err error) {
		q := backend.MemberQuery{Channel: l.Arg(0)}
		if q.Page, err = l.page(); err != nil {
			return err
		}
		for page, err := range api.MemberPages(ctx, q) {
			l.answered(backend.Coverage{Silent: page.Silent})
			more, printErr := printItems(l, page.Members, func(m backend.Member) (string, any) {
				return fmt.Sprintf("%s  %s  %s", m.ID, orNone(m.User), m.JSON), listedMember{
					ID:     m.ID,
					User:   m.User,
					Member: m.JSON,
				}
			})
			if err != nil || printErr != nil || !more {
				return firstError(err, printErr)
			}
		}
		return nil
	})
}

type listedConn struct {
	ID           string   `json:"id"`
	User         string   `json:"user,omitempty"`
	Node         string   `json:"node"`
	Transport    string   `json:"transport"`
	Since        int64    `json:"since"` // Unix milliseconds
	Channels     []string `json:"channels"`
	ChannelCount int      `json:"channelCount"`
	Waiting      int64    `json:"waiting"`
}

func (p *program) connections(args []string) int {
	l := p.newListing("connections", connectionsHelp)
	return l.run(args, 1, 1, "one TARGET", func(ctx context.Context, api *backend.Client) (err error) {
		var q backend.ConnQuery
		kind, name, _ := strings.Cut(l.Arg(0), ":")
		switch kind {
		case "user":
			q.User = name
		case "conn":
			q.Conn = name
		case "channel":
			q.Channel = name
		}
		if q == (backend.ConnQuery{}) {
			return l.usageError("TARGET must be like user:42, conn:ID or channel:lobby, not %q", l.Arg(0))
		}
		if q.Page, err = l.page(); err != nil {
			return err
		}
		for page, err := range api.ConnectionPages(ctx, q) {
			l.answered(page.Coverage)
			more, printErr := printItems(l, page.Conns, connLine)
			if err != nil || printErr != nil || !more {
				return firstError(err, printErr)
			}
		}
		return nil
	})
}

func connLine(c backend.ConnInfo) (text string, value any) {
	text = fmt.Sprintf("%s  user %s  on %s  %s since %s  %s  %s waiting", c.ID, orNone(c.User), c.Node, c.Protocol,
		c.Since.UTC().Format(time.RFC3339), plural(c.ChannelCount, "channel"), plural(int(c.Waiting), "byte"))
	return text, listedConn{
		ID:           c.ID,
		User:         c.User,
		Node:         c.Node,
		Transport:    c.Protocol,
		Since:        c.Since.UnixMilli(),
		Channels:     append([]string{}, c.Channels...),
		ChannelCount: c.ChannelCount,
		Waiting:      c.Waiting,
	}
}

// orNone returns a string, or "-" for an empty one.
func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// firstError returns the first error that is not nil.
func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}
