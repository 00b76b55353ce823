package console

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/hub"
)

const (
	// maxTop is the number of channels and connections that are shown by the bytes that wait.
	maxTop = 50
	// maxBusy is the number of connections of a node whose waiting bytes count for their channels.
	maxBusy = 200
	// maxShownChannels is the number of channels of a connection in a row.
	maxShownChannels = 10
)

// figures are those of one node.
type figures struct {
	At          int64  `json:"at"` // in milliseconds since 1970
	Connections int    `json:"connections"`
	Channels    int    `json:"channels"`
	Waiting     int64  `json:"waiting"`
	Published   uint64 `json:"published"`
	Rates       *rates `json:"rates,omitempty"` // nil if they are not known yet
	Memory      int64  `json:"memory"`          // in bytes, what Limits.Memory limits
	MemoryLimit int64  `json:"memoryLimit"`
	Away        string `json:"away,omitempty"` // why the Broker cannot be reached
}

// channelRow is a channel on one node, or on all.
type channelRow struct {
	Name        string `json:"name"`
	Subscribers int    `json:"subscribers"`
	Waiting     int64  `json:"waiting"` // for the subscribers, whatever channel the bytes are of
	Presence    bool   `json:"presence,omitempty"`
}

// connRow is a connection.
type connRow struct {
	ID        string   `json:"id"`
	User      string   `json:"user,omitempty"`
	Node      string   `json:"node"`
	Transport string   `json:"transport"`
	Since     int64    `json:"since"` // in milliseconds since 1970
	Waiting   int64    `json:"waiting"`
	Channels  []string `json:"channels"` // the first ones
	Count     int      `json:"count"`    // of all channels
}

// nodeSample is what a node answers to askSample.
type nodeSample struct {
	Figures  figures      `json:"figures"`
	Channels []channelRow `json:"channels"`
	Conns    []connRow    `json:"conns"`
	Ends     []end        `json:"ends"` // the newest first
}

// sample determines the figures of this node, and the channels and connections with the most bytes
// that wait. It looks at all connections if bytes wait for any, and at all channels.
func (a *agent) sample() (nodeSample, time.Duration) {
	began := time.Now()
	stats := a.srv.Stats()
	s := nodeSample{
		Figures: figures{
			At:          began.UnixMilli(),
			Connections: stats.Connections,
			Channels:    stats.Channels,
			Waiting:     stats.Buffered,
			Published:   stats.Published,
			Rates:       a.rates(began, &stats),
			Memory:      stats.Memory.Total(),
			MemoryLimit: stats.Memory.Limit,
		},
		Channels: []channelRow{},
		Conns:    []connRow{},
	}
	if stats.Away != nil {
		s.Figures.Away = short(stats.Away.Error(), 200)
	}
	waiting := map[string]int64{}
	for i, c := range a.hub.Busiest(maxBusy) {
		row := a.row(c)
		for _, name := range row.Channels {
			waiting[name] += row.Waiting
		}
		if i < maxTop && row.Waiting > 0 {
			s.Conns = append(s.Conns, row.short())
		}
	}
	s.Channels = a.top(waiting)
	s.Ends = a.ends.page(endQuestion{Limit: recentEnds}, a.srv.Node()).Ends
	return s, time.Since(began)
}

// rates returns the rates since the last sample.
func (a *agent) rates(now time.Time, stats *pushy.Stats) *rates {
	c := counts{
		at:          now,
		published:   stats.Published,
		ended:       a.ends.count(),
		messagesIn:  stats.MessagesIn,
		messagesOut: stats.MessagesOut,
		bytesIn:     stats.BytesIn,
		bytesOut:    stats.BytesOut,
	}
	for _, n := range stats.Refused {
		c.refused += n
	}
	before := a.counted
	a.counted = c
	return c.since(&before)
}

// row describes a connection, with all its channels.
func (a *agent) row(c *hub.Conn) connRow {
	channels := c.Channels()
	if channels == nil {
		channels = []string{}
	}
	return connRow{
		ID:        c.ID(),
		User:      c.UserID(),
		Node:      a.srv.Node(),
		Transport: c.Transport(),
		Since:     c.Since(),
		Waiting:   c.Waiting(),
		Channels:  channels,
		Count:     len(channels),
	}
}

// short returns the row with the first channels only.
func (r connRow) short() connRow {
	r.Channels = r.Channels[:min(len(r.Channels), maxShownChannels)]
	return r
}

// top returns the channels of this node with the most bytes that wait, and those with the most
// subscribers.
func (a *agent) top(waiting map[string]int64) []channelRow {
	rows := map[string]channelRow{}
	add := func(ch *hub.Channel) {
		rows[ch.Name()] = channelRow{
			Name:        ch.Name(),
			Subscribers: ch.Subscribers(),
			Waiting:     waiting[ch.Name()],
			Presence:    ch.ShowsMembers(),
		}
	}
	names := slices.SortedFunc(maps.Keys(waiting), func(x, y string) int { return cmp.Compare(waiting[y], waiting[x]) })
	for _, name := range names[:min(len(names), maxTop)] {
		if ch := a.hub.Lookup(name); ch != nil {
			add(ch)
		}
	}
	for _, ch := range a.hub.Largest(maxTop) {
		add(ch)
	}
	return slices.SortedFunc(maps.Values(rows), byWaiting)
}

func byWaiting(a, b channelRow) int {
	return cmp.Or(
		cmp.Compare(b.Waiting, a.Waiting),
		cmp.Compare(b.Subscribers, a.Subscribers),
		cmp.Compare(a.Name, b.Name),
	)
}

// short returns a string of at most limit bytes of UTF-8 and, if it was cut, an ellipsis.
func short(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xc0 == 0x80 {
		limit--
	}
	return s[:limit] + "…"
}
