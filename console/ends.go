package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/httperror"
)

const (
	askEnds = "console:ends"
	// maxEnds is the number of ends that a node remembers.
	maxEnds = 1000
	// recentEnds is the number of ends in the overview.
	recentEnds = 15
)

// end says how a connection has ended, and why.
type end struct {
	// Key orders the ends of all nodes by time: the time in nanoseconds since 1970, with leading
	// zeros, and the node.
	Key       string `json:"key"`
	At        int64  `json:"at"` // in milliseconds since 1970
	Since     int64  `json:"since"`
	Conn      string `json:"conn"`
	User      string `json:"user,omitempty"`
	Node      string `json:"node"`
	Transport string `json:"transport"`
	Address   string `json:"address"`
	Agent     string `json:"agent"`
	Code      int    `json:"code"`
	Reason    string `json:"reason"`
	By        string `json:"by"`
	Waiting   int64  `json:"waiting"`
	Oldest    int64  `json:"oldest"` // for how long the first of the waiting bytes had waited, in milliseconds
}

// ends has the last ends of a node.
type ends struct {
	mu    sync.Mutex
	ring  []pushy.Ending // of maxEnds at most; the place of an end is its number modulo maxEnds
	total uint64
	last  int64 // the time of the last one, in nanoseconds since 1970
}

func (e *ends) add(ending pushy.Ending) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// The times are keys of pages, so they differ.
	at := max(ending.At.UnixNano(), e.last+1)
	e.last = at
	ending.At = time.Unix(0, at)
	if len(e.ring) < maxEnds {
		e.ring = append(e.ring, ending)
	} else {
		e.ring[e.total%maxEnds] = ending
	}
	e.total++
}

func (e *ends) count() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.total
}

// endQuestion is the data of askEnds. Before is a key: only older ends are asked for.
type endQuestion struct {
	User   string `json:"user,omitempty"`
	Before string `json:"before,omitempty"`
	Limit  int    `json:"limit"`
}

func (q endQuestion) valid() bool {
	return len(q.User) <= maxID && utf8.ValidString(q.User) && len(q.Before) <= maxID &&
		q.Limit >= 1 && q.Limit <= pageLimit
}

// endPage is the answer to it, the newest end first.
type endPage struct {
	Ends []end `json:"ends"`
	More bool  `json:"more,omitempty"`
}

func (a *agent) answerEnds(_ context.Context, data json.RawMessage) (any, error) {
	var q endQuestion
	if json.Unmarshal(data, &q) != nil || !q.valid() {
		return nil, errInvalid
	}
	return a.ends.page(q, a.srv.Node()), nil
}

// page returns the newest ends that are asked for.
func (e *ends) page(q endQuestion, node string) (p endPage) {
	p.Ends = []end{}
	e.mu.Lock()
	defer e.mu.Unlock()
	for n := e.total; n > e.total-uint64(len(e.ring)); n-- {
		ending := &e.ring[(n-1)%maxEnds]
		if q.User != "" && ending.User != q.User {
			continue
		}
		key := fmt.Sprintf("%020d-%s", ending.At.UnixNano(), node)
		if q.Before != "" && key >= q.Before {
			continue
		}
		if len(p.Ends) == q.Limit {
			p.More = true
			break
		}
		p.Ends = append(p.Ends, newEnd(ending, node, key))
	}
	return p
}

func newEnd(e *pushy.Ending, node, key string) end {
	return end{
		Key:       key,
		At:        e.At.UnixMilli(),
		Since:     e.Since.UnixMilli(),
		Conn:      e.Conn,
		User:      e.User,
		Node:      node,
		Transport: e.Protocol,
		Address:   e.Address,
		Agent:     e.Agent,
		Code:      e.Code,
		Reason:    e.Reason,
		By:        e.By.String(),
		Waiting:   e.Waiting,
		Oldest:    e.OldestWait.Milliseconds(),
	}
}

// ended answers with the connections that have ended, the newest first: those of the parameter
// user, if there is one, and those before the key in the parameter after.
func (c *console) ended(w http.ResponseWriter, r *http.Request, _ string) {
	q := endQuestion{
		User:   r.FormValue("user"),
		Before: r.FormValue("after"),
		Limit:  pageLimit,
	}
	if !q.valid() {
		httperror.Write(w, http.StatusBadRequest, fmt.Sprintf("user: must be valid UTF-8 of at most %d bytes", maxID))
		return
	}
	answers, err := c.srv.Ask(r.Context(), askEnds, q)
	p := results{Silent: answers.Silent[:min(len(answers.Silent), maxNodes)]}
	if err != nil {
		p.Error = short(err.Error(), 300)
	}
	// A node that has more sends its newest ones, so what is older than the last of these can lack
	// some of its ends.
	var all []end
	bound := ""
	for _, a := range answers.Answers {
		var page endPage
		if a.Err != "" || json.Unmarshal(a.Data, &page) != nil || len(page.Ends) > q.Limit {
			continue
		}
		p.Nodes++
		all = append(all, page.Ends...)
		if page.More && len(page.Ends) > 0 {
			bound = max(bound, page.Ends[len(page.Ends)-1].Key)
		}
	}
	slices.SortFunc(all, newestFirst)
	if bound != "" {
		all = slices.DeleteFunc(all, func(e end) bool { return e.Key < bound })
	}
	next := ""
	if len(all) > q.Limit {
		all = all[:q.Limit]
		next = all[q.Limit-1].Key
	} else if bound != "" {
		next = bound
	}
	fill(&p, all, next, func(e *end) string { return e.Key }, func(e *end) any { return e })
	answer(w, &p)
}

func newestFirst(a, b end) int { return strings.Compare(b.Key, a.Key) }
