package console

import (
	"encoding/json"
	"net/http"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/names"
)

const (
	// pageLimit is the number of rows of a page of results.
	pageLimit = 50
	// pageBytes is the number of bytes of its rows.
	pageBytes = 40 << 10
	// maxData is the number of bytes of a member's data that are shown.
	maxData = 2000
)

// results is a page of search results.
type results struct {
	Rows     rows     `json:"rows"`
	Next     string   `json:"next"` // for the parameter after; "" if there are no more
	Nodes    int      `json:"nodeCount"`
	Silent   []string `json:"silent,omitempty"`
	Public   bool     `json:"public,omitempty"`   // the channel has no list of members
	Presence bool     `json:"presence,omitempty"` // the members of a channel see each other
	Error    string   `json:"error,omitempty"`    // why other nodes could not be asked
}

// fill adds the items, and sets Next.
func fill[T any](p *results, items []T, next string, key func(*T) string, row func(*T) any) {
	p.Next = next
	for i := range items {
		if p.Rows.add(row(&items[i]), pageBytes) {
			continue
		}
		if i > 0 {
			p.Next = key(&items[i-1])
		}
		return
	}
}

// covered sets which nodes have answered. If err is why none was asked, it writes the answer.
func (p *results) covered(w http.ResponseWriter, coverage pushy.Coverage, err error) bool {
	p.Nodes = coverage.Nodes
	p.Silent = coverage.Silent[:min(len(coverage.Silent), maxNodes)]
	if err == nil {
		return true
	}
	if coverage.Nodes == 0 {
		httperror.Write(w, http.StatusBadRequest, short(err.Error(), 300))
		return false
	}
	p.Error = short(err.Error(), 300)
	return true
}

func pageOf(r *http.Request) pushy.Page {
	return pushy.Page{
		After: r.FormValue("after"),
		Limit: pageLimit,
	}
}

// channels answers with the channels whose names begin with the parameter prefix.
func (c *console) channels(w http.ResponseWriter, r *http.Request, _ string) {
	list, err := c.srv.ListChannels(r.Context(), pushy.ChannelQuery{
		Prefix: r.FormValue("prefix"),
		Page:   pageOf(r),
		Count:  true,
	})
	var p results
	if !p.covered(w, list.Coverage, err) {
		return
	}
	key := func(ch *pushy.ListedChannel) string { return ch.Name }
	fill(&p, list.Channels, list.Next, key, func(ch *pushy.ListedChannel) any {
		return channelRow{
			Name:        ch.Name,
			Subscribers: ch.Subscribers,
			Presence:    ch.Presence,
		}
	})
	answer(w, &p)
}

// connections answers with the connections of one of the parameters user, conn and channel.
func (c *console) connections(w http.ResponseWriter, r *http.Request, _ string) {
	list, err := c.srv.Connections(r.Context(), pushy.ConnQuery{
		User:    r.FormValue("user"),
		Conn:    r.FormValue("conn"),
		Channel: r.FormValue("channel"),
		Page:    pageOf(r),
	})
	var p results
	if !p.covered(w, list.Coverage, err) {
		return
	}
	key := func(info *pushy.ConnInfo) string { return info.ID }
	fill(&p, list.Conns, list.Next, key, func(info *pushy.ConnInfo) any {
		return connRow{
			ID:        info.ID,
			User:      info.User,
			Node:      info.Node,
			Transport: info.Protocol,
			Since:     info.Since.UnixMilli(),
			Waiting:   info.Waiting,
			Channels:  info.Channels,
			Count:     info.ChannelCount,
		}.brief()
	})
	answer(w, &p)
}

// connection answers with one connection, or null.
func (c *console) connection(w http.ResponseWriter, r *http.Request, _ string) {
	q := connQuestion{Conn: r.FormValue("conn")}
	if !validID(q.Conn) {
		httperror.Write(w, http.StatusBadRequest, "conn: is not the id of a connection")
		return
	}
	answers, err := c.srv.Ask(r.Context(), askConn, q)
	found := struct {
		Conn   *connDetail `json:"conn"`
		Silent int         `json:"silentCount"`
		Error  string      `json:"error,omitempty"`
	}{Silent: len(answers.Silent)}
	if err != nil {
		found.Error = short(err.Error(), 300)
	}
	for _, a := range answers.Answers {
		var detail *connDetail
		if a.Err == "" && json.Unmarshal(a.Data, &detail) == nil && detail != nil {
			detail.Agent = short(detail.Agent, 512)
			detail.Address = short(detail.Address, 200)
			found.Conn = detail
		}
	}
	answer(w, found)
}

// memberRow is a member of a private channel. Data is JSON that a client has chosen, as a string.
type memberRow struct {
	ID   string `json:"id"`
	User string `json:"user,omitempty"`
	Data string `json:"data"`
}

// members answers with the members of a private channel.
func (c *console) members(w http.ResponseWriter, r *http.Request, _ string) {
	name := r.FormValue("channel")
	if lower, err := names.Channel(name); err == nil {
		// The members of a public channel are not known.
		if policy, err := c.agent.hub.PolicyOf(lower); err == nil && !policy.Private {
			answer(w, &results{Public: true})
			return
		}
	}
	list, err := c.srv.ListMembers(r.Context(), pushy.MemberQuery{
		Channel: name,
		Page:    pageOf(r),
	})
	if err != nil {
		httperror.Write(w, http.StatusBadRequest, short(err.Error(), 300))
		return
	}
	p := results{
		Presence: list.Presence,
		Silent:   list.Silent,
	}
	fill(&p, list.Members, list.Next, func(m *pushy.Member) string { return m.ID }, func(m *pushy.Member) any {
		return memberRow{
			ID:   m.ID,
			User: m.User,
			Data: short(string(m.JSON), maxData),
		}
	})
	answer(w, &p)
}

func answer(w http.ResponseWriter, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		httperror.Write(w, http.StatusInternalServerError, "the answer cannot be encoded")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}
