package console

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/hub"
)

const (
	askWatch     = "console:watch"
	askDecisions = "console:decisions"

	maxWatched   = 20 // connections that are watched on a node
	maxDecisions = 32 // that are remembered of each
	watchTime    = 5 * time.Minute
	maxPayload   = 1000 // bytes of data that are remembered
)

// decision is what a node has decided about a connection that is being watched.
type decision struct {
	At      int64  `json:"at"` // in milliseconds since 1970
	Kind    string `json:"kind"`
	Channel string `json:"channel,omitempty"`
	Name    string `json:"name,omitempty"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Bytes   int    `json:"bytes"`          // of the data
	Data    string `json:"data,omitempty"` // its beginning
}

// record has the last decisions about one connection.
type record struct {
	conn  *hub.Conn
	until time.Time // guarded by the lock of the watches
	timer *time.Timer

	mu       sync.Mutex
	payloads bool
	ring     []decision // the place of a decision is its number modulo maxDecisions
	total    int
}

// add is called under the locks of the hub.
func (r *record) add(d hub.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	made := decision{
		At:      time.Now().UnixMilli(),
		Kind:    string(d.Kind),
		Channel: d.Channel,
		Name:    short(d.Name, 200),
		Code:    d.Code,
		Reason:  short(d.Reason, 300),
		Bytes:   len(d.Data),
	}
	// What the protocol says about a subscription is a decision, and no payload.
	if r.payloads || strings.HasPrefix(d.Name, "pushy:subscription-") || strings.HasPrefix(d.Name, "pushy:auth-") {
		made.Data = short(string(d.Data), maxPayload)
	}
	if len(r.ring) < maxDecisions {
		r.ring = append(r.ring, made)
	} else {
		r.ring[r.total%maxDecisions] = made
	}
	r.total++
}

// newest returns the decisions, the newest first.
func (r *record) newest() (all []decision, payloads bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := r.total; n > r.total-len(r.ring); n-- {
		all = append(all, r.ring[(n-1)%maxDecisions])
	}
	return all, r.payloads
}

// watches has the connections of a node that are being watched.
type watches struct {
	mu      sync.Mutex
	records map[string]*record // by the id of the connection
}

// watchQuestion is the data of askWatch. A second one for a connection begins the time again.
type watchQuestion struct {
	Conn     string `json:"conn"`
	Payloads bool   `json:"payloads"`
}

// answerWatch reports whether the connection is on this node.
func (a *agent) answerWatch(_ context.Context, data json.RawMessage) (any, error) {
	var q watchQuestion
	if json.Unmarshal(data, &q) != nil || !validID(q.Conn) {
		return nil, errInvalid
	}
	c := a.hub.Conn(q.Conn)
	if c == nil {
		return false, nil
	}
	w := &a.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.records[q.Conn]
	switch {
	case r != nil:
	case len(w.records) >= maxWatched:
		return nil, fmt.Errorf("the node watches %d connections already: wait until one has been watched for %s",
			maxWatched, watchTime)
	default:
		r = &record{conn: c}
		if w.records == nil {
			w.records = map[string]*record{}
		}
		w.records[q.Conn] = r
		r.timer = time.AfterFunc(watchTime, func() { a.unwatch(r) })
	}
	r.until = time.Now().Add(watchTime)
	r.timer.Reset(watchTime)
	r.mu.Lock()
	r.payloads = q.Payloads
	r.mu.Unlock()
	a.setWatchesLocked()
	return true, nil
}

// unwatch ends a watch whose time is over.
func (a *agent) unwatch(r *record) {
	w := &a.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.records[r.conn.ID()] == r && !time.Now().Before(r.until) {
		delete(w.records, r.conn.ID())
		a.setWatchesLocked()
	}
}

func (a *agent) setWatchesLocked() {
	funcs := map[*hub.Conn]func(hub.Decision){}
	for _, r := range a.watches.records {
		funcs[r.conn] = r.add
	}
	a.hub.Watch(funcs)
}

// watched is what a node answers to askDecisions if it watches the connection.
type watched struct {
	Until     int64      `json:"until"` // in milliseconds since 1970
	Payloads  bool       `json:"payloads"`
	Decisions []decision `json:"decisions"`
}

func (a *agent) answerDecisions(_ context.Context, data json.RawMessage) (any, error) {
	var q connQuestion
	if json.Unmarshal(data, &q) != nil || !validID(q.Conn) {
		return nil, errInvalid
	}
	a.watches.mu.Lock()
	defer a.watches.mu.Unlock()
	r := a.watches.records[q.Conn]
	if r == nil {
		return nil, nil
	}
	answer := &watched{Until: r.until.UnixMilli()}
	answer.Decisions, answer.Payloads = r.newest()
	return answer, nil
}

// watch begins to watch a connection, on whatever node it is.
func (c *console) watch(w http.ResponseWriter, r *http.Request, who string) {
	var q watchQuestion
	if !c.body(w, r, &q) {
		return
	}
	if !validID(q.Conn) {
		httperror.Write(w, http.StatusBadRequest, "conn: is not the id of a connection")
		return
	}
	answers, err := c.srv.Ask(r.Context(), askWatch, q)
	o := outcome{}
	o.covered(len(answers.Answers), answers.Silent, err)
	for _, a := range answers.Answers {
		var here bool
		switch {
		case a.Err != "":
			o.Error = short(a.Err, 300)
		case json.Unmarshal(a.Data, &here) == nil && here:
			o.Done++
		}
	}
	c.act(w, r, who, "watch", o, slog.String("conn", q.Conn), slog.Bool("payloads", q.Payloads))
}

// decisions answers with the record of a connection that is being watched, or null.
func (c *console) decisions(w http.ResponseWriter, r *http.Request, _ string) {
	q := connQuestion{Conn: r.FormValue("conn")}
	if !validID(q.Conn) {
		httperror.Write(w, http.StatusBadRequest, "conn: is not the id of a connection")
		return
	}
	answers, err := c.srv.Ask(r.Context(), askDecisions, q)
	p := struct {
		Until    int64  `json:"until"`
		Payloads bool   `json:"payloads"`
		Rows     rows   `json:"rows"`
		Error    string `json:"error,omitempty"`
	}{}
	if err != nil {
		p.Error = short(err.Error(), 300)
	}
	for _, a := range answers.Answers {
		var found *watched
		if a.Err != "" || json.Unmarshal(a.Data, &found) != nil || found == nil {
			continue
		}
		p.Until = found.Until
		p.Payloads = found.Payloads
		for _, d := range found.Decisions[:min(len(found.Decisions), maxDecisions)] {
			p.Rows.add(d, pageBytes)
		}
	}
	answer(w, p)
}
