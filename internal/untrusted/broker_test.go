package untrusted_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/untrusted"
)

// plain is a broker without an optional interface.
type plain struct {
	broker.Broker
	append func() (broker.Appended, error)
}

func (p plain) Append(context.Context, string, broker.Entry) (broker.Appended, error) {
	return p.append()
}

// history, ledger and cluster answer what a test says.
type history struct {
	page broker.Page
	tops []broker.Position
	err  error
}

func (h history) Read(context.Context, string, broker.Range) (broker.Page, error) {
	if h.page.Top == (broker.Position{}) {
		h.page.Top.Epoch = "e"
	}
	return h.page, h.err
}
func (h history) Tops(context.Context, []string) ([]broker.Position, error) { return h.tops, h.err }
func (h history) Forget(context.Context, string) error                      { return h.err }

type ledger struct {
	claim broker.Claim
	err   error
}

func (l ledger) Claim(context.Context, string, string, time.Duration) (broker.Claim, error) {
	return l.claim, l.err
}
func (l ledger) Finish(context.Context, string, string, []byte) error { return l.err }
func (l ledger) Release(context.Context, string, string) error        { return l.err }
func (l ledger) List(context.Context, string) ([]broker.Record, error) {
	return []broker.Record{{Key: "k"}}, l.err
}

type cluster struct{ err error }

func (c cluster) Nodes(context.Context) ([]string, error) { return []string{"n"}, c.err }

type (
	withHistory struct {
		plain
		history
	}
	withLedger struct {
		plain
		ledger
	}
	withCluster struct {
		plain
		cluster
	}
	withHistoryLedger struct {
		plain
		history
		ledger
	}
	withHistoryCluster struct {
		plain
		history
		cluster
	}
	withLedgerCluster struct {
		plain
		ledger
		cluster
	}
	withAll struct {
		plain
		history
		ledger
		cluster
	}
)

// recorder is the options of a test, and what they were called for.
type recorder struct {
	calls    []string
	failed   []string
	skipped  []string
	appended int // events
}

func (r *recorder) options() untrusted.Options {
	return untrusted.Options{
		EventBytes:  100,
		MemberBytes: 100,
		GapEvent:    "pushy:gap",
		Call: func(name string, run func() error) (err error) {
			r.calls = append(r.calls, name)
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("%s: %v", name, p)
				}
			}()
			return run()
		},
		Failed: func(name string, p any) error {
			r.failed = append(r.failed, name)
			return fmt.Errorf("%s: %v", name, p)
		},
		Readable: func(err error) error {
			if err != nil {
				_ = err.Error()
			}
			return err
		},
		Appended: func(time.Time, error) { r.appended++ },
		Skipped:  func(kind, _ string, reason error) { r.skipped = append(r.skipped, kind+": "+reason.Error()) },
	}
}

// Of the event names that are reserved a broker may deliver one only.
func TestReservedNames(t *testing.T) {
	t.Parallel()
	var r recorder
	b := &delivering{}
	wrapped := untrusted.Wrap(b, r.options())
	var got names
	require.NoError(t, wrapped.Open(t.Context(), broker.OpenOptions{}, &got))
	for _, name := range []string{"pushy:gap", "pushy:resync", "PUSHY:gap", "said"} {
		b.sink.Deliver("news", broker.Entry{Kind: broker.Event, Event: name, Data: []byte("{}")})
	}
	assert.Equal(t, names{"pushy:gap", "said"}, got)
	assert.Len(t, r.skipped, 2)
}

// delivering is a broker that lets a test deliver.
type delivering struct {
	plain
	sink broker.Sink
}

func (d *delivering) Open(_ context.Context, _ broker.OpenOptions, sink broker.Sink) error {
	d.sink = sink
	return nil
}

// names are those of the events that were delivered.
type names []string

func (n *names) Deliver(_ string, e broker.Entry) { *n = append(*n, e.Event) }
func (*names) Reset(string, broker.State, string) {}

// What is wrapped has the optional interfaces that it has unwrapped, and no others; each
// call goes through, and has Call around it.
func TestWrapPassesOnOptionalInterfaces(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b                        broker.Broker
		history, ledger, cluster bool
	}{
		"none":           {plain{}, false, false, false},
		"history":        {withHistory{}, true, false, false},
		"ledger":         {withLedger{}, false, true, false},
		"cluster":        {withCluster{}, false, false, true},
		"historyLedger":  {withHistoryLedger{}, true, true, false},
		"historyCluster": {withHistoryCluster{}, true, false, true},
		"ledgerCluster":  {withLedgerCluster{}, false, true, true},
		"all":            {withAll{}, true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r recorder
			wrapped := untrusted.Wrap(c.b, r.options())
			ctx := t.Context()
			var want []string
			h, is := wrapped.(broker.History)
			require.Equal(t, c.history, is)
			if is {
				_, err := h.Read(ctx, "c", broker.Range{Limit: 1})
				assert.NoError(t, err)
				_, err = h.Tops(ctx, nil)
				assert.NoError(t, err)
				assert.NoError(t, h.Forget(ctx, "c"))
				want = append(want, "Broker.Read", "Broker.Tops", "Broker.Forget")
			}
			l, is := wrapped.(broker.Ledger)
			require.Equal(t, c.ledger, is)
			if is {
				_, err := l.Claim(ctx, "k", "d", time.Minute)
				assert.ErrorContains(t, err, "unknown state 0", "it is not a ClaimState")
				assert.NoError(t, l.Finish(ctx, "k", "d", nil))
				assert.NoError(t, l.Release(ctx, "k", "d"))
				records, err := l.List(ctx, "")
				assert.NoError(t, err)
				assert.Equal(t, []broker.Record{{Key: "k"}}, records)
				want = append(want, "Broker.Claim", "Broker.Finish", "Broker.Release", "Broker.List")
			}
			nodes, is := wrapped.(broker.Cluster)
			require.Equal(t, c.cluster, is)
			if is {
				ids, err := nodes.Nodes(ctx)
				assert.NoError(t, err)
				assert.Equal(t, []string{"n"}, ids)
				want = append(want, "Broker.Nodes")
			}
			health, is := wrapped.(broker.Health)
			require.True(t, is)
			assert.NoError(t, health.Away())
			assert.Equal(t, want, r.calls)
		})
	}
}

// Errors of the optional interfaces come through as they are.
func TestErrorsOfOptionalInterfaces(t *testing.T) {
	t.Parallel()
	errNo := errors.New("no")
	var r recorder
	wrapped := untrusted.Wrap(withAll{
		history: history{err: errNo},
		ledger:  ledger{err: errNo},
		cluster: cluster{err: errNo},
	}, r.options())
	ctx := t.Context()
	h, l := wrapped.(broker.History), wrapped.(broker.Ledger)
	_, err := h.Read(ctx, "c", broker.Range{})
	assert.ErrorIs(t, err, errNo)
	_, err = h.Tops(ctx, []string{"c"})
	assert.ErrorIs(t, err, errNo)
	_, err = l.Claim(ctx, "k", "d", time.Minute)
	assert.ErrorIs(t, err, errNo)
	_, err = l.List(ctx, "")
	assert.ErrorIs(t, err, errNo)
	_, err = wrapped.(broker.Cluster).Nodes(ctx)
	assert.ErrorIs(t, err, errNo)
}

// leaser is a broker that records the lease that it is extended to.
type leaser struct {
	plain
	extended time.Duration
	extend   func() error
}

func (l *leaser) Extend(_ context.Context, lease time.Duration) error {
	l.extended = lease
	return l.extend()
}

// Extend reaches the broker, with Call around it. A broker that is not a Leaser does not
// support it.
func TestExtend(t *testing.T) {
	t.Parallel()
	var r recorder
	errNo := errors.New("no")
	b := &leaser{extend: func() error { return errNo }}
	wrapped := untrusted.Wrap(b, r.options()).(broker.Leaser)
	assert.ErrorIs(t, wrapped.Extend(t.Context(), time.Minute), errNo)
	assert.Equal(t, time.Minute, b.extended)
	b.extend = func() error { panic("of the test") }
	assert.ErrorContains(t, wrapped.Extend(t.Context(), time.Minute), "of the test")
	b.extend = func() error { return nil }
	assert.NoError(t, wrapped.Extend(t.Context(), time.Hour))
	assert.Equal(t, time.Hour, b.extended)
	assert.Equal(t, []string{"Broker.Extend", "Broker.Extend", "Broker.Extend"}, r.calls)

	without := untrusted.Wrap(withAll{}, r.options()).(broker.Leaser)
	assert.ErrorIs(t, without.Extend(t.Context(), time.Minute), errors.ErrUnsupported)
}

// volatile is a broker whose Ledger ends with the process.
type volatile struct {
	withAll
	since func() time.Time
}

func (v volatile) LedgerSince() time.Time { return v.since() }

// LedgerSince of a Ledger that outlives the process, or of a broker without a Ledger, is zero. If
// it fails, ids may have been forgotten until now.
func TestLedgerSince(t *testing.T) {
	t.Parallel()
	var r recorder
	at := time.Unix(1_700_000_000, 5)
	since := func(b broker.Broker) time.Time {
		return untrusted.Wrap(b, r.options()).(interface{ LedgerSince() time.Time }).LedgerSince()
	}
	assert.Equal(t, at, since(volatile{since: func() time.Time { return at }}))
	assert.WithinDuration(t, time.Now(), since(volatile{since: func() time.Time { panic("of the test") }}), time.Minute)
	assert.Equal(t, []string{"Broker.LedgerSince", "Broker.LedgerSince"}, r.calls)
	assert.Zero(t, since(withAll{}))
	assert.Zero(t, since(plain{}))
}

func kept(offset uint64, data string) broker.Entry {
	return broker.Entry{
		Kind:  broker.Event,
		Event: "said",
		Data:  json.RawMessage(data),
		At:    broker.Position{Epoch: "e", Offset: offset},
	}
}

// What a broker has kept is checked as what it delivers is.
func TestHistoryIsChecked(t *testing.T) {
	t.Parallel()
	read := func(p broker.Page, limit int) (broker.Page, []string, error) {
		var r recorder
		b := untrusted.Wrap(withHistory{history: history{page: p}}, r.options()).(broker.History)
		p, err := b.Read(t.Context(), "c", broker.Range{Limit: limit})
		return p, r.skipped, err
	}
	join := kept(4, `{}`)
	join.Kind, join.Member = broker.Join, "m"
	p := broker.Page{
		Entries: []broker.Entry{kept(2, ` {"a" : 1}`), kept(3, `{`), join, kept(5, `{"b":2}`), kept(6, `{}`)},
		First:   2,
		Top:     broker.Position{Epoch: "e", Offset: 6},
		More:    true,
	}
	got, skipped, err := read(p, 5)
	require.NoError(t, err)
	assert.Equal(t, []broker.Entry{kept(2, `{"a":1}`), kept(5, `{"b":2}`), kept(6, `{}`)}, got.Entries)
	assert.Len(t, skipped, 2)
	assert.Equal(t, p.Top, got.Top)
	assert.True(t, got.More)
	got, _, err = read(p, 2)
	require.NoError(t, err)
	assert.Len(t, got.Entries, 2, "no more than were asked for")
	at := func(epoch string, offset uint64) broker.Position {
		return broker.Position{Epoch: epoch, Offset: offset}
	}
	for message, wrong := range map[string]broker.Page{
		"position 9223372036854775808 is over": {Top: at("e", 1), First: 1 << 63},
		"position 9223372036854775809 is over": {Top: at("e", 1<<63+1)},
		`the epoch "" is not`:                  {Top: at("", 1)},
		`the epoch "a.b" is not`:               {Top: at("a.b", 1)},
	} {
		_, _, err := read(wrong, 2)
		assert.ErrorContains(t, err, message)
	}
	other := kept(6, `{}`)
	other.At.Epoch = "other"
	p.Entries = []broker.Entry{kept(2, `{}`), kept(2, `{}`), kept(4, `{}`), kept(3, `{}`), other, kept(7, `{}`), kept(6, `{}`)}
	got, skipped, err = read(p, 9)
	require.NoError(t, err)
	assert.Equal(t, []broker.Entry{kept(2, `{}`), kept(4, `{}`), kept(6, `{}`)}, got.Entries)
	assert.Len(t, skipped, 4, "repeated, out of order, of another epoch, beyond the end")

	tops := func(tops ...broker.Position) error {
		var r recorder
		b := untrusted.Wrap(withHistory{history: history{tops: tops}}, r.options()).(broker.History)
		_, err := b.Tops(t.Context(), []string{"a", "b"})
		return err
	}
	assert.NoError(t, tops(at("e", 0), at("f", 1)))
	assert.ErrorContains(t, tops(at("e", 0)), "1 positions for 2 channels")
	assert.ErrorContains(t, tops(at("e", 0), at("f", 1<<63)), "is over")
	assert.ErrorContains(t, tops(at("e", 0), at("", 1)), "the epoch")
}

// unreadable is an error that panics when it is read.
type unreadable struct{}

func (unreadable) Error() string { panic("Error") }

// An Append of an event that panics, or has an error that does, is an error; it has no
// goroutine of its own, so one that ends its goroutine is reported and ends the caller's.
func TestAppendOfAnEventThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		append func() (broker.Appended, error)
		error  string
	}{
		"panic":      {func() (broker.Appended, error) { panic("boom") }, "Broker.Append: boom"},
		"unreadable": {func() (broker.Appended, error) { return broker.Appended{}, unreadable{} }, "Broker.Append: Error"},
		"error":      {func() (broker.Appended, error) { return broker.Appended{}, broker.ErrBusy }, broker.ErrBusy.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r recorder
			b := untrusted.Wrap(plain{append: c.append}, r.options())
			_, err := b.Append(t.Context(), "c", kept(0, `{}`))
			assert.EqualError(t, err, c.error)
			assert.Equal(t, name != "error", len(r.failed) == 1)
			assert.Empty(t, r.calls)
		})
	}
}

// An event costs no memory on its way to the broker.
func TestAppendOfAnEventAllocatesNothing(t *testing.T) {
	var r recorder
	b := untrusted.Wrap(withAll{plain: plain{append: func() (broker.Appended, error) {
		return broker.Appended{}, nil
	}}}, r.options())
	ctx, e := t.Context(), kept(0, `{}`)
	assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = b.Append(ctx, "c", e) }))
}
