package brokertest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

var presenceRules = []rule[pushy.PresenceStore]{
	{"log", "every watcher gets every join and leave, the store's own included, whole and once", checkLog, needs{}},
	{"oneOrder", "all watchers get all entries in one order, under growing revisions", checkOneOrder, needs{}},
	{"brief", "a log that is empty again and again gives every watcher every entry", checkBrief, needs{}},
	{"snapshot", "a snapshot and the entries after its revision are the log: nothing missing, nothing twice", checkSnapshot, needs{}},
	{"on", "presence is on from the first member with data until the log is empty", checkOn, needs{}},
	{"joinTwice", "a second join of a member logs nothing", checkJoinTwice, needs{}},
	{"leaveUnknown", "leaving twice, or without having joined, logs nothing", checkLeaveUnknown, needs{}},
	{"channels", "any channel name that the protocol allows has a log of its own", checkChannels, needs{}},
	{"rewatch", "a channel can be watched again, on a node that has watched it before", checkRewatch, needs{}},
	{"context", "no call outlives its context, be the connection cut", checkPresenceContext, needs{}},
	{"goodbye", "a store that closes leaves no members behind", checkGoodbye, needs{nodes: 2}},
	{"lease", "a killed node's members leave within the lease and 2 s, once; those of others stay", checkLease, needs{nodes: 3, kill: true}},
	{"cut", "a node that was cut off longer than its lease comes back: others get one leave and one join for each member, its own watchers a State", checkCut, needs{nodes: 2, cut: true, kill: true}},
	{"blip", "a node that was cut off for less than its lease keeps its members: others get nothing", checkBlip, needs{nodes: 2, cut: true, kill: true}},
}

// store is a node under test.
type store struct {
	pushy.PresenceStore
	t    testing.TB
	name string

	ctx     context.Context // of its watches
	unwatch context.CancelFunc
	closing sync.Once
}

func stores(t testing.TB, n int, open func() pushy.PresenceStore) []*store {
	t.Helper()
	var all []*store
	for i := range n {
		made := open()
		if i > 0 && made == nil {
			t.Logf("held to in part: %d of %d nodes", i, n)
			break
		}
		s := &store{PresenceStore: made, t: t, name: "node" + strconv.Itoa(i)}
		s.ctx, s.unwatch = context.WithCancel(context.Background())
		t.Cleanup(s.close)
		all = append(all, s)
	}
	return all
}

func (s *store) close() {
	s.closing.Do(func() {
		s.unwatch()
		returns(s.t, "Close", func() { assert.NoError(s.t, s.Close(), "Close") })
	})
}

// member is one with data that says who it is, or without.
func member(id string, hasData bool) pushy.Member {
	text := json.RawMessage(`{"subscribed":1700000000000,"memberId":"` + id + `","idle":false}`)
	if hasData {
		text = json.RawMessage(`{"name":"Ann é \"` + id + `\"","subscribed":1700000000000,"memberId":"` + id + `","idle":false}`)
	}
	return pushy.Member{ID: id, HasData: hasData, JSON: text}
}

func (s *store) join(channel string, m pushy.Member) {
	s.t.Helper()
	require.NoError(s.t, s.Join(within(s.t), channel, m), "Join")
}

func (s *store) leave(channel, id string) {
	s.t.Helper()
	require.NoError(s.t, s.Leave(within(s.t), channel, id), "Leave")
}

// watcher is one Watch of a channel.
type watcher struct {
	t     testing.TB
	name  string
	start pushy.Snapshot
	tape  tape[pushy.Change]
}

func (s *store) watch(channel string) *watcher {
	s.t.Helper()
	w, err := s.tryWatch(s.ctx, channel)
	require.NoError(s.t, err, "Watch")
	return w
}

func (s *store) tryWatch(ctx context.Context, channel string) (*watcher, error) {
	w := &watcher{t: s.t, name: s.name + " in " + channel}
	var err error
	w.start, err = s.Watch(ctx, channel, w.tape.add)
	return w, err
}

// entries returns the log after the snapshot.
func (w *watcher) entries() (entries []pushy.Change) {
	for _, c := range w.tape.seen() {
		if c.State != nil || c.Revision > w.start.Revision {
			entries = append(entries, c)
		}
	}
	return entries
}

// state returns what snapshot and entries amount to.
func (w *watcher) state() pushy.Snapshot {
	at := pushy.Snapshot{Revision: w.start.Revision, On: w.start.On, Members: slices.Clone(w.start.Members)}
	for _, c := range w.entries() {
		at = after(at, c)
	}
	return at
}

// after is a state one entry later.
func after(at pushy.Snapshot, c pushy.Change) pushy.Snapshot {
	if c.State != nil {
		return pushy.Snapshot{Revision: c.State.Revision, On: c.State.On, Members: slices.Clone(c.State.Members)}
	}
	at.Revision = c.Revision
	i := slices.IndexFunc(at.Members, func(m pushy.Member) bool { return m.ID == c.Member.ID })
	switch {
	case c.Left && i >= 0:
		at.Members = slices.Delete(slices.Clone(at.Members), i, i+1)
		at.On = at.On && len(at.Members) > 0
	case !c.Left && i < 0:
		at.Members = append(slices.Clone(at.Members), c.Member)
		at.On = at.On || c.Member.HasData
	}
	return at
}

func ids(members []pushy.Member) []string {
	all := make([]string, 0, len(members))
	for _, m := range members {
		all = append(all, m.ID)
	}
	return all
}

// words tells entries apart: "+id" and "-id".
func words(entries []pushy.Change) []string {
	all := make([]string, 0, len(entries))
	for _, c := range entries {
		switch {
		case c.State != nil:
			all = append(all, "="+strings.Join(ids(c.State.Members), ","))
		case c.Left:
			all = append(all, "-"+c.Member.ID)
		default:
			all = append(all, "+"+c.Member.ID)
		}
	}
	return all
}

// sees waits for a word in what w was told.
func (w *watcher) sees(word string) {
	w.t.Helper()
	w.tape.wait(w.t, w.name+": "+word, func(all []pushy.Change) bool { return slices.Contains(words(all), word) })
}

// has waits until w's state is these members, in whatever order.
func (w *watcher) has(want ...string) {
	w.t.Helper()
	slices.Sort(want)
	w.tape.wait(w.t, fmt.Sprintf("%s: the members %v", w.name, want), func([]pushy.Change) bool {
		return slices.Equal(slices.Sorted(slices.Values(ids(w.state().Members))), want)
	})
}

func (w *watcher) growing() {
	w.t.Helper()
	last := w.start.Revision
	for _, c := range w.entries() {
		require.Nil(w.t, c.State, "%s: a State where nothing was lost", w.name)
		require.Greater(w.t, c.Revision, last, "%s: revision of %v", w.name, words([]pushy.Change{c}))
		last = c.Revision
	}
}

func checkLog(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 3, open)
	var watchers []*watcher
	for _, s := range all {
		w := s.watch(channel)
		assert.Empty(t, w.start.Members)
		assert.False(t, w.start.On)
		watchers = append(watchers, w)
	}
	first := all[0]
	bare, ann := member("00", false), member("01", true)
	first.join(channel, bare)
	first.join(channel, ann)
	first.leave(channel, "00")
	all[len(all)-1].join(channel, member("02", false))
	first.leave(channel, "01")
	for _, w := range watchers {
		w.sees("-01")
		assert.Equal(t, []string{"+00", "+01", "-00", "+02", "-01"}, words(w.entries()), w.name)
		w.growing()
		for i, want := range []pushy.Member{bare, ann} {
			assert.Equal(t, want, w.entries()[i].Member, w.name)
		}
	}
}

// busyLog has all stores join and leave at once, and leaves the members whose
// ids it returns.
func busyLog(t testing.TB, all []*store, channel string, rounds int) (left []string) {
	var mu sync.Mutex
	var busy sync.WaitGroup
	for i := range 2 * len(all) {
		s, r := all[i%len(all)], rand.New(rand.NewPCG(1, uint64(i)))
		busy.Go(func() {
			var in []string
			for k := range rounds {
				pause(nil)
				if len(in) > 0 && r.IntN(5) < 2 {
					at := r.IntN(len(in))
					assert.NoError(t, s.Leave(within(t), channel, in[at]))
					in = slices.Delete(in, at, at+1)
				}
				m := member(fmt.Sprintf("%d-%d", i, k), r.IntN(2) == 0)
				assert.NoError(t, s.Join(within(t), channel, m))
				in = append(in, m.ID)
			}
			mu.Lock()
			left = append(left, in...)
			mu.Unlock()
		})
	}
	returns(t, "Join and Leave", busy.Wait)
	return left
}

func checkOneOrder(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 3, open)
	var watchers []*watcher
	for _, s := range all {
		watchers = append(watchers, s.watch(channel))
	}
	left := busyLog(t, all, channel, 30)
	all[0].join(channel, member("last", false))
	for _, w := range watchers {
		w.sees("+last")
		w.has(append([]string{"last"}, left...)...)
		w.growing()
		assert.Equal(t, words(watchers[0].entries()), words(w.entries()), "%s and %s", watchers[0].name, w.name)
		for i, c := range w.entries() {
			require.Equal(t, watchers[0].entries()[i].Revision, c.Revision, "revision of entry %d", i)
		}
	}
}

func checkBrief(t testing.TB, open func() pushy.PresenceStore) {
	const channel, rounds = "private-room", 60
	all := stores(t, 3, open)
	var watchers []*watcher
	for _, s := range all {
		watchers = append(watchers, s.watch(channel))
	}
	var busy sync.WaitGroup
	for i, s := range all {
		busy.Go(func() {
			for k := range rounds {
				pause(nil)
				m := member(fmt.Sprintf("%d-%d", i, k), k%2 == 0)
				assert.NoError(t, s.Join(within(t), channel, m))
				assert.NoError(t, s.Leave(within(t), channel, m.ID))
			}
		})
	}
	returns(t, "Join and Leave", busy.Wait)
	all[0].join(channel, member("last", false))
	for _, w := range watchers {
		w.sees("+last")
		w.growing()
		entries := words(w.entries())
		assert.Len(t, entries, 2*rounds*len(all)+1, w.name)
		assert.Equal(t, words(watchers[0].entries()), entries, "%s and %s", watchers[0].name, w.name)
	}
}

func checkSnapshot(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 3, open)
	whole := all[0].watch(channel) // the log from its beginning
	var mu sync.Mutex
	var ended, lasting []*watcher
	stop, end := stopper(t)
	var watching sync.WaitGroup
	for _, s := range all[1:] {
		watching.Go(func() {
			for going := true; going; {
				ctx, cancel := context.WithCancel(s.ctx)
				w, err := s.tryWatch(ctx, channel)
				if !assert.NoError(t, err, "Watch") {
					cancel()
					return
				}
				going = pause(stop)
				mu.Lock()
				if going {
					cancel()
					ended = append(ended, w)
				} else {
					t.Cleanup(cancel)
					lasting = append(lasting, w)
				}
				mu.Unlock()
			}
		})
	}
	left := append(busyLog(t, all, channel, 40), "last")
	end()
	watching.Wait()
	all[0].join(channel, member("last", true))
	whole.sees("+last")
	for _, w := range lasting {
		w.sees("+last")
	}
	log := whole.entries()
	// until returns the log's state at a revision, and what came after.
	until := func(revision uint64) (pushy.Snapshot, []pushy.Change) {
		state := whole.start
		for i, c := range log {
			if c.Revision > revision {
				return state, log[i:]
			}
			state = after(state, c)
		}
		return state, nil
	}
	state, _ := until(1<<64 - 1)
	assert.ElementsMatch(t, left, ids(state.Members))
	for _, w := range append(ended, lasting...) {
		want, rest := until(w.start.Revision)
		require.Equal(t, ids(want.Members), ids(w.start.Members), "%s: snapshot at revision %d", w.name, w.start.Revision)
		require.Equal(t, want.On, w.start.On, "%s: on at revision %d", w.name, w.start.Revision)
		told := w.entries()
		require.LessOrEqual(t, len(told), len(rest), w.name)
		require.Equal(t, words(rest[:len(told)]), words(told), "%s: entries after the snapshot", w.name)
	}
	for _, w := range lasting {
		assert.Equal(t, ids(state.Members), ids(w.state().Members), w.name)
	}
}

func checkOn(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 2, open)
	a, b := all[0], all[len(all)-1]
	snapshot := func() pushy.Snapshot {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w, err := b.tryWatch(ctx, channel)
		require.NoError(t, err)
		return w.start
	}
	a.join(channel, member("0", false))
	assert.False(t, snapshot().On, "nobody brought data")
	a.join(channel, member("1", true))
	at := snapshot()
	assert.True(t, at.On, "one brought data")
	assert.Equal(t, []pushy.Member{member("0", false), member("1", true)}, at.Members)
	a.leave(channel, "1")
	assert.True(t, snapshot().On, "the one with data has left, but somebody is in")
	b.join(channel, member("2", false))
	assert.Equal(t, []string{"0", "2"}, ids(snapshot().Members))
	a.leave(channel, "0")
	b.leave(channel, "2")
	at = snapshot()
	assert.False(t, at.On, "the log is empty")
	assert.Empty(t, at.Members)
	a.join(channel, member("3", false))
	assert.False(t, snapshot().On, "a log that was on before it was empty")
}

func checkJoinTwice(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 2, open)
	w := all[len(all)-1].watch(channel)
	all[0].join(channel, member("0", true))
	all[0].join(channel, member("1", true))
	all[0].join(channel, member("0", true))
	all[0].join(channel, member("2", true))
	w.sees("+2")
	all[0].leave(channel, "0")
	all[0].join(channel, member("3", true))
	w.sees("+3")
	assert.Equal(t, []string{"+0", "+1", "+2", "-0", "+3"}, words(w.entries()))
}

func checkLeaveUnknown(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 2, open)
	w := all[len(all)-1].watch(channel)
	all[0].leave(channel, "unknown")
	all[0].join(channel, member("0", true))
	all[0].leave(channel, "unknown")
	all[0].leave(channel, "0")
	all[0].leave(channel, "0")
	all[0].join(channel, member("1", true))
	w.sees("+1")
	assert.Equal(t, []string{"+0", "-0", "+1"}, words(w.entries()))
	assert.Equal(t, []string{"1"}, ids(w.state().Members))
}

func checkChannels(t testing.TB, open func() pushy.PresenceStore) {
	all := stores(t, 2, open)
	var watchers []*watcher
	for _, name := range oddNames {
		watchers = append(watchers, all[len(all)-1].watch("private-"+name))
	}
	for i, name := range oddNames {
		all[0].join("private-"+name, member(strconv.Itoa(i), i%2 == 0))
	}
	for i, w := range watchers {
		w.sees("+" + strconv.Itoa(i))
	}
	for i, w := range watchers {
		assert.Equal(t, []string{"+" + strconv.Itoa(i)}, words(w.entries()), oddNames[i])
	}
}

func checkRewatch(t testing.TB, open func() pushy.PresenceStore) {
	const channel = "private-room"
	all := stores(t, 2, open)
	a, b := all[0], all[len(all)-1]
	for i := range 5 {
		ctx, cancel := context.WithCancel(context.Background())
		w, err := b.tryWatch(ctx, channel)
		require.NoError(t, err)
		assert.Len(t, w.start.Members, i)
		a.join(channel, member(strconv.Itoa(i), false))
		w.sees("+" + strconv.Itoa(i))
		cancel()
	}
}
