package brokertest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopushy/pushy/broker"
)

// delivery is one call of a Sink.
type delivery struct {
	channel string
	entry   broker.Entry
	data    string // a copy of the entry's Data at the time of the call
	state   *broker.State
	reason  string
}

// recorder is a Sink that records every call in order, and the resulting state of each channel.
type recorder struct {
	mu       sync.Mutex
	all      []delivery
	views    map[string]*view
	running  map[string]bool // channels whose call has not returned
	overlaps int             // calls for one channel that ran concurrently
	ended    bool
	late     int           // calls after end
	more     chan struct{} // closed and replaced at each call
}

var _ broker.Sink = (*recorder)(nil)

func newRecorder() *recorder {
	return &recorder{views: map[string]*view{}, running: map[string]bool{}, more: make(chan struct{})}
}

// Deliver implements broker.Sink.
func (r *recorder) Deliver(channel string, e broker.Entry) {
	r.record(delivery{channel: channel, entry: e, data: string(e.Data)})
}

// Reset implements broker.Sink.
func (r *recorder) Reset(channel string, s broker.State, reason string) {
	r.record(delivery{channel: channel, state: &s, reason: reason})
}

func (r *recorder) record(d delivery) {
	r.mu.Lock()
	if r.running[d.channel] {
		r.overlaps++
	}
	r.running[d.channel] = true
	r.mu.Unlock()
	// The lock is released and other goroutines run, so that a concurrent call for the channel
	// is detected.
	runtime.Gosched()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[d.channel] = false
	if r.ended {
		r.late++
	}
	r.all = append(r.all, d)
	r.viewLocked(d.channel).apply(d)
	close(r.more)
	r.more = make(chan struct{})
}

func (r *recorder) viewLocked(channel string) *view {
	v := r.views[channel]
	if v == nil {
		v = &view{}
		r.views[channel] = v
	}
	return v
}

// begin sets the State that Follow returned.
func (r *recorder) begin(channel string, s broker.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.viewLocked(channel).begin(s)
}

// end records that no call is permitted from now on.
func (r *recorder) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

func (r *recorder) lateCalls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.late
}

// seen returns the calls for a channel so far.
func (r *recorder) seen(channel string) []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seenLocked(channel)
}

func (r *recorder) seenLocked(channel string) []delivery {
	var list []delivery
	for _, d := range r.all {
		if d.channel == channel {
			list = append(list, d)
		}
	}
	return list
}

// wait waits until enough returns true for the calls for a channel.
func (n *node) wait(channel, what string, enough func([]delivery) bool) []delivery {
	n.h.t.Helper()
	r := n.sink
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		list, more := r.seenLocked(channel), r.more
		r.mu.Unlock()
		if enough(list) {
			return list
		}
		select {
		case <-more:
		case <-timeout.C:
			fatal(n.h.t, "%s has not received %s in %q within %v; received: %s",
				n.id, what, channel, patience, describe(list))
		}
	}
}

func fatal(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	t.FailNow()
}

// events waits for count events of a channel and returns their data.
func (n *node) events(channel string, count int) []string {
	n.h.t.Helper()
	list := n.wait(channel, fmt.Sprintf("%d events", count), func(list []delivery) bool {
		return len(eventData(list)) >= count
	})
	return eventData(list)
}

func eventData(list []delivery) []string {
	var data []string
	for _, d := range list {
		if d.state == nil && d.entry.Kind == broker.Event {
			data = append(data, d.data)
		}
	}
	return data
}

// waitReset waits for a Reset of a channel, and ignores the first from calls.
func (n *node) waitReset(channel string, from int) delivery {
	n.h.t.Helper()
	isReset := func(d delivery) bool { return d.state != nil }
	list := n.wait(channel, "Reset", func(list []delivery) bool {
		return slices.ContainsFunc(list[min(from, len(list)):], isReset)
	})
	list = list[from:]
	return list[slices.IndexFunc(list, isReset)]
}

// waitMembers waits until a channel has exactly these members, in this order.
func (n *node) waitMembers(channel string, ids ...string) {
	n.h.t.Helper()
	want := strings.Join(ids, " ")
	n.wait(channel, "the members "+want, func([]delivery) bool { return n.members(channel) == want })
}

// members returns the ids of a channel's members, as the node received them.
func (n *node) members(channel string) string {
	n.sink.mu.Lock()
	defer n.sink.mu.Unlock()
	v := n.sink.views[channel]
	if v == nil {
		return ""
	}
	return v.ids()
}

// view is the state of a channel that results from the deliveries to a node.
type view struct {
	begun    bool
	early    []delivery // delivered before begin
	revision broker.Position
	members  []broker.Member
	on       bool
	wrong    []string // violations of the contract
}

func (v *view) begin(s broker.State) {
	early := v.early
	*v = view{begun: true, wrong: v.wrong}
	v.setState(s)
	for _, d := range early {
		v.apply(d)
	}
}

func (v *view) setState(s broker.State) {
	v.revision = s.Revision
	v.members = slices.Clone(s.Members)
	v.on = s.On
}

func (v *view) apply(d delivery) {
	if !v.begun {
		v.early = append(v.early, d)
		return
	}
	if d.state != nil {
		v.setState(*d.state)
		return
	}
	e := d.entry
	if e.Kind == broker.Event {
		return
	}
	if e.At.Epoch == v.revision.Epoch && e.At.Offset <= v.revision.Offset {
		return // the State of Follow includes it
	}
	i := slices.IndexFunc(v.members, func(m broker.Member) bool { return m.ID == e.Member })
	switch {
	case e.Kind == broker.Join && i >= 0:
		v.wrong = append(v.wrong, e.Member+" joins twice")
		return
	case e.Kind != broker.Join && i < 0:
		v.wrong = append(v.wrong, "an entry for "+e.Member+", which is not a member")
		return
	}
	v.revision = e.At
	switch e.Kind {
	case broker.Join:
		v.members = append(v.members, broker.Member{
			ID:    e.Member,
			Owner: e.Owner,
			Data:  e.Data,
			State: e.State,
			Since: e.At.Offset,
		})
		v.on = v.on || e.Data != nil
	case broker.Update:
		v.members[i].Data = e.Data
		v.members[i].State = e.State
	case broker.Adopt:
		v.members[i].Owner = e.Owner
	case broker.Leave:
		v.members = slices.Delete(v.members, i, i+1)
		v.on = v.on && len(v.members) > 0
	}
}

func (v *view) ids() string {
	var ids []string
	for _, m := range v.members {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, " ")
}

func describe(list []delivery) string {
	var words []string
	for _, d := range list {
		switch {
		case d.state != nil:
			words = append(words, "Reset("+d.reason+")")
		case d.entry.Kind == broker.Event:
			words = append(words, d.data)
		default:
			words = append(words, word(d.entry))
		}
	}
	return strings.Join(words, " ")
}

// word returns a member entry in short form.
func word(e broker.Entry) string {
	sign := map[broker.Kind]string{broker.Join: "+", broker.Update: "=", broker.Leave: "-", broker.Adopt: "~"}[e.Kind]
	return sign + e.Member
}

// memberWords returns the member entries of deliveries in short form.
func memberWords(list []delivery) []string {
	var words []string
	for _, d := range list {
		if d.state == nil && d.entry.Kind != broker.Event {
			words = append(words, word(d.entry))
		}
	}
	return words
}
