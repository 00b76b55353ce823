package console

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
)

// maxNodes is the number of nodes that an answer has. The totals have all nodes.
const maxNodes = 50

// nodeRow is a node, as the page shows it.
type nodeRow struct {
	Node   string `json:"node"`
	Self   bool   `json:"self,omitempty"`
	Silent bool   `json:"silent,omitempty"` // it did not answer in time
	// Error is why the node has no figures although it has answered.
	Error string `json:"error,omitempty"`
	*figures
}

// overview is what all nodes have answered.
type overview struct {
	At       int64        `json:"at"` // in milliseconds since 1970
	Totals   figures      `json:"totals"`
	Nodes    rows         `json:"nodes"`
	Total    int          `json:"nodeCount"`
	Silent   int          `json:"silentCount"`
	Channels rows         `json:"channels"`
	Conns    rows         `json:"conns"`
	Ends     rows         `json:"ends"`
	Error    string       `json:"error,omitempty"` // why other nodes could not be asked
	channels []channelRow // of all nodes
}

// data answers with the figures of all nodes, which all pages share, and what only this page has.
func (c *console) data(w http.ResponseWriter, r *http.Request, who string) {
	// Another page may wait for the same answer, so the request that is first does not cancel it.
	all, err := c.shown.get(r.Context(), func() ([]byte, time.Duration) {
		return c.overview(context.WithoutCancel(r.Context()))
	})
	if err != nil {
		return // the page has gone
	}
	own, err := json.Marshal(struct {
		Who      string `json:"who"`
		ReadOnly bool   `json:"readOnly"`
	}{short(strings.ToValidUTF8(who, "\uFFFD"), 200), c.options.ReadOnly})
	if err != nil {
		httperror.Write(w, http.StatusInternalServerError, "internal error")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(own[:len(own)-1])
	_, _ = w.Write([]byte(","))
	_, _ = w.Write(all[1:])
}

// overview asks all nodes for their samples and returns the JSON of what they say together.
func (c *console) overview(ctx context.Context) ([]byte, time.Duration) {
	answers, failed := c.srv.Ask(ctx, askSample, nil)
	began := time.Now()
	o := overview{At: began.UnixMilli()}
	if failed != nil {
		o.Error = short(failed.Error(), 300)
	}
	nodes := make([]nodeRow, 0, len(answers.Answers)+len(answers.Silent))
	channels := map[string]*channelRow{}
	var conns []connRow
	var ends []end
	for _, a := range answers.Answers {
		row := nodeRow{
			Node: short(a.Node, maxID),
			Self: a.Node == c.srv.Node(),
		}
		var s nodeSample
		switch {
		case a.Err != "":
			row.Error = short(a.Err, 200)
		case json.Unmarshal(a.Data, &s) != nil:
			row.Error = "its answer has another form: is it of another version?"
		default:
			row.figures = &s.Figures
			o.Totals.add(&s.Figures)
			conns = append(conns, s.Conns[:min(len(s.Conns), maxTop)]...)
			ends = append(ends, s.Ends[:min(len(s.Ends), recentEnds)]...)
			for _, ch := range s.Channels[:min(len(s.Channels), 2*maxTop)] {
				if all := channels[ch.Name]; all != nil {
					all.Waiting += ch.Waiting
					all.Subscribers += ch.Subscribers
					all.Presence = all.Presence || ch.Presence
				} else {
					channels[ch.Name] = &ch
				}
			}
		}
		nodes = append(nodes, row)
	}
	for _, silent := range answers.Silent {
		nodes = append(nodes, nodeRow{
			Node:   short(silent, maxID),
			Silent: true,
		})
	}
	o.Total = len(nodes)
	o.Silent = len(answers.Silent)
	slices.SortStableFunc(nodes, func(a, b nodeRow) int { return rank(a) - rank(b) })
	for i := range nodes[:min(len(nodes), maxNodes)] {
		o.Nodes.add(nodes[i], 12<<10)
	}
	for _, ch := range channels {
		o.channels = append(o.channels, *ch)
	}
	slices.SortFunc(o.channels, byWaiting)
	o.channels = o.channels[:min(len(o.channels), maxTop)]
	busy := time.Since(began)
	if len(answers.Answers) > 1 {
		c.count(ctx, o.channels)
	}
	began = time.Now()
	for _, ch := range o.channels {
		o.Channels.add(ch, 10<<10)
	}
	slices.SortFunc(conns, func(a, b connRow) int { return int(min(max(b.Waiting-a.Waiting, -1), 1)) })
	for _, conn := range conns[:min(len(conns), maxTop)] {
		o.Conns.add(conn.brief(), 14<<10)
	}
	slices.SortFunc(ends, newestFirst)
	for i := range ends[:min(len(ends), recentEnds)] {
		o.Ends.add(&ends[i], 9<<10)
	}
	text, err := json.Marshal(o)
	if err != nil {
		text = []byte(`{"error":"the figures cannot be encoded"}`)
	}
	return text, busy + time.Since(began)
}

// rank sorts the nodes: this one, those that are silent or have no figures, and the others.
func rank(n nodeRow) int {
	switch {
	case n.Self:
		return 0
	case n.figures == nil:
		return 1
	}
	return 2
}

// count sets the numbers of subscribers on all nodes: a node that has few of a channel's does not
// list it.
func (c *console) count(ctx context.Context, channels []channelRow) {
	q := countQuestion{Channels: []string{}}
	for _, ch := range channels {
		q.Channels = append(q.Channels, ch.Name)
	}
	answers, _ := c.srv.Ask(ctx, askCounts, q) // if it fails, the sums of the samples remain
	totals := make([]int, len(channels))
	for _, a := range answers.Answers {
		var counts []int
		if a.Err != "" || json.Unmarshal(a.Data, &counts) != nil || len(counts) != len(totals) {
			continue
		}
		for i, n := range counts {
			totals[i] += max(n, 0)
		}
	}
	for i := range channels {
		channels[i].Subscribers = max(channels[i].Subscribers, totals[i])
	}
}

// add adds the figures of a node.
func (f *figures) add(n *figures) {
	f.Connections += n.Connections
	f.Channels = max(f.Channels, n.Channels) // a channel can be on several nodes
	f.Waiting += n.Waiting
	f.Published += n.Published
	f.Rates = f.Rates.add(n.Rates)
	f.Memory += n.Memory
	f.MemoryLimit += n.MemoryLimit
}

// rows are rows of a table that together do not exceed a number of bytes, because the answers are
// limited.
type rows struct {
	all  []json.RawMessage
	size int
	cut  bool
}

// add adds a row if its JSON does not make the rows larger than limit. After a row that is not
// added, none is.
func (r *rows) add(row any, limit int) bool {
	if r.cut {
		return false
	}
	text, err := json.Marshal(row)
	if r.cut = err != nil || r.size+len(text) > limit; r.cut {
		return false
	}
	r.size += len(text) + 1
	r.all = append(r.all, text)
	return true
}

func (r rows) MarshalJSON() ([]byte, error) {
	if r.all == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(r.all)
}

// brief returns the row with as few channels as the overview shows.
func (r connRow) brief() connRow {
	r.Channels = r.Channels[:min(len(r.Channels), 2)]
	return r
}
