package pushy_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
)

// A page of the 100,000 members of a channel, and what it does to events that are published in the
// channel meanwhile.
func BenchmarkMembersPage(b *testing.B) {
	const size = 100_000
	state := broker.State{Revision: broker.Position{Epoch: "bench", Offset: size}}
	for i := range size {
		m := foreignMember(fmt.Sprintf("%032x", i*7919%size), fmt.Sprintf(`{"name":"member %d","subscribed":1700000000000}`, i))
		m.Since = uint64(i + 1)
		state.Members = append(state.Members, m)
	}
	f := newForeign()
	f.start = &state
	srv := startOn(b, f, pushy.Options{Limits: pushy.Limits{PagedMembers: 2 * size}})
	p := connectUser(b, srv, "")
	answer := p.ask(fmt.Sprintf(`{"command":"subscribe","data":{"channel":"private-room","auth":%q,"presence":{"mode":"none"}}}`,
		ownToken(p.id, "private-room", "")))
	require.Equal(b, "pushy:subscription-success", answer.Event, "%s", answer)
	query := pushy.MemberQuery{Channel: "private-room", Page: pushy.Page{Limit: 1000, After: fmt.Sprintf("%032x", size/2)}}
	page, err := srv.ListMembers(b.Context(), query)
	require.NoError(b, err)
	require.Len(b, page.Members, 1000)

	var stop atomic.Bool
	took := make(chan []time.Duration)
	go func() {
		var all []time.Duration
		for !stop.Load() {
			begin := time.Now()
			f.says("private-room", "said", `{}`)
			all = append(all, time.Since(begin))
			p.next()
		}
		took <- all
	}()
	for b.Loop() {
		_, err := srv.ListMembers(b.Context(), query)
		require.NoError(b, err)
	}
	stop.Store(true)
	all := <-took
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)-len(all)/100000-1].Microseconds()), "µs/delivery-p99.999")
	b.ReportMetric(float64(all[len(all)-1].Microseconds()), "µs/delivery-max")
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "deliveries/s")
}
