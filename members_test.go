package pushy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/hub"
)

func presence(p pushy.PresenceOptions) pushy.Options {
	return pushy.Options{
		Channel: func(string) pushy.ChannelOptions { return pushy.ChannelOptions{Presence: p} },
	}
}

// guest appends members as another node would.
type guest struct {
	t testing.TB
	*memory.Broker
}

func newGuest(t testing.TB, c *memory.Cluster) guest { return guest{t, spy(t, c)} }

func (g guest) join(id, data string) broker.Position {
	a, err := g.Append(g.t.Context(), "private-room", broker.Entry{
		Kind:   broker.Join,
		Member: id,
		Owner:  "guest",
		Data:   json.RawMessage(data),
		Joined: time.UnixMilli(1),
	})
	require.NoError(g.t, err)
	return a.At
}

func (g guest) leave(id string) broker.Position {
	a, err := g.Append(g.t.Context(), "private-room", broker.Entry{
		Kind:   broker.Leave,
		Member: id,
		Owner:  "guest",
	})
	require.NoError(g.t, err)
	return a.At
}

// All forms of the modes, byte for byte.
func TestPresenceModesOnTheWire(t *testing.T) {
	onNodes(t, 1, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		at := g.join("m1", `{"name":"Ann"}`)
		for i := 2; i <= 4; i++ {
			g.join(fmt.Sprint("m", i), `{}`)
		}
		rev := func(n uint64) string { return fmt.Sprintf("%s.%d", at.Epoch, n) }

		list := watch(t, nodes[0].Server, "", "")
		assert.Nil(t, list.answer)
		assert.Len(t, list.ids(), 5)
		diff := watch(t, nodes[0].Server, "", `{"mode":"diff","limit":2}`)
		ann := `{"name":"Ann","subscribed":1,"memberId":"m1","idle":false}`
		bob := `{"subscribed":1,"memberId":"m2","idle":false}`
		assert.Equal(t, `{"mode":"diff","count":6,"revision":"`+rev(6)+`","list":[`+ann+`,`+bob+`],"next":"`+rev(2)+`"}`,
			withoutDigests(string(diff.answer)))
		assert.NotEqual(t, withoutDigests(diff.at()), diff.at(), "for a client that returns to another node")
		count := watch(t, nodes[0].Server, "", `"count"`)
		assert.Equal(t, `{"mode":"count","count":7,"revision":"`+rev(7)+`"}`, string(count.answer))
		none := watch(t, nodes[0].Server, "", `"none"`)
		assert.Nil(t, none.answer)
		time.Sleep(time.Second)
		for _, w := range []*watcher{list, diff, count, none} {
			w.taken()
		}

		g.join("m5", `{"name":"Eve"}`)
		g.leave("m2")
		time.Sleep(time.Second)
		eve := `{"name":"Eve","subscribed":1,"memberId":"m5","idle":false}`
		const head = `{"event":"pushy:presence-`
		assert.Equal(t, []string{
			head + `add","channel":"private-room","data":{"member":` + eve + `}}`,
			head + `quit","channel":"private-room","data":{"member":` + bob + `}}`,
		}, list.taken())
		all := strings.Join(diff.taken(), "")
		assert.Contains(t, all, `"add":[`+eve+`]`)
		assert.Contains(t, all, `"quit":["m2"]`)
		assert.True(t, strings.HasPrefix(all, head+`diff","channel":"private-room","data":{"revision":"`), all)
		counts := count.taken()
		assert.Equal(t, head+`diff","channel":"private-room","data":{"revision":"`+rev(10)+`","count":8}}`,
			counts[len(counts)-1])
		assert.Empty(t, none.taken())

		diff.send(command("pushy:members", `"after":"%s","limit":1`, rev(2)))
		diff.send(command("pushy:members", `"after":"%s","limit":500`, rev(8)))
		synctest.Wait()
		m3 := `{"subscribed":1,"memberId":"m3","idle":false}`
		answers := diff.answers()
		for i := range answers {
			answers[i] = withoutDigests(answers[i])
		}
		assert.Equal(t, []string{
			`pushy:reply {"id":1,"data":{"revision":"` + rev(10) + `","count":8,"list":[` + m3 + `],"next":"` + rev(3) + `"}}`,
			`pushy:reply {"id":1,"data":{"revision":"` + rev(10) + `","count":8,"list":[` + eve + `],"next":null}}`,
		}, answers)
	})
}

var digests = regexp.MustCompile(`([A-Za-z0-9_-]+\.[0-9]+)\.[0-9a-z]+`)

// withoutDigests removes the digests of revisions.
func withoutDigests(text string) string { return digests.ReplaceAllString(text, "$1") }

// Recovery 26: 10,000 members join within 10 s. A client that counts receives less than
// 10 KB in all. A client with batches receives each member once, and at most four messages a
// second.
func TestTenThousandMembersJoin(t *testing.T) {
	onNodes(t, 2, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		const all = 10_000
		g := newGuest(t, c)
		g.join("first", `{}`)
		diff := watch(t, nodes[0].Server, "", `"diff"`)
		count := watch(t, nodes[1].Server, "", `"count"`)
		began := time.Now()
		frames := map[int]int{} // by the second
		added := map[string]int{}
		take := func() {
			for _, text := range diff.taken() {
				frames[int(time.Since(began)/time.Second)]++
				f, err := parseFrame(text)
				require.NoError(t, err)
				var p memberPage
				require.NoError(t, json.Unmarshal(f.Data, &p))
				for _, m := range p.Add {
					added[m["memberId"].(string)]++
				}
			}
		}
		for i := range all {
			g.join(fmt.Sprint("m", i), `{"name":"somebody"}`)
			time.Sleep(time.Millisecond)
			if i%10 == 0 {
				take()
			}
		}
		time.Sleep(2 * time.Second)
		take()
		for second, n := range frames {
			assert.LessOrEqual(t, n, 4, "in second %d", second)
		}
		for i := range all {
			require.Equal(t, 1, added[fmt.Sprint("m", i)])
		}
		assert.Equal(t, all+3, diff.counted())
		size := 0
		for _, text := range count.taken() {
			size += len(text)
		}
		assert.Less(t, size, 10_000)
		assert.Equal(t, all+3, count.counted())
		assert.Equal(t, serverSees(t, nodes[0].Server), diff.seen())
	})
}

// roomHistory records the members at each revision.
type roomHistory struct {
	guest
	changes []func(members map[string]bool)
	at      []uint64
}

func (h *roomHistory) come(id string) {
	at := h.join(id, `{}`)
	h.at = append(h.at, at.Offset)
	h.changes = append(h.changes, func(members map[string]bool) { members[id] = true })
}

func (h *roomHistory) depart(id string) {
	at := h.leave(id)
	h.at = append(h.at, at.Offset)
	h.changes = append(h.changes, func(members map[string]bool) { delete(members, id) })
}

func (h *roomHistory) membersAt(t *testing.T, revision string) []string {
	p, err := hub.ParseRevision(revision)
	require.NoError(t, err)
	members := map[string]bool{}
	for i, change := range h.changes {
		if h.at[i] <= p.Offset {
			change(members)
		}
	}
	return sortedKeys(members)
}

// Recovery 27: a client reads the list in pages while 200 members a second come and go. After
// the last page, and after each batch that follows, it has the members of that revision.
func TestPagingWhileMembersComeAndGo(t *testing.T) {
	onNodes(t, 1, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		h := &roomHistory{guest: newGuest(t, c)}
		var in []string
		for i := range 3000 {
			id := fmt.Sprint("m", i)
			h.come(id)
			in = append(in, id)
		}
		r := rand.New(rand.NewPCG(1, 2))
		w := watch(t, nodes[0].Server, "", `"diff"`)
		check := func(when string) {
			synctest.Wait()
			ids := slices.DeleteFunc(w.ids(), func(id string) bool { return id == w.own })
			require.Equal(t, h.membersAt(t, w.at()), ids, when)
		}
		pages := 0
		step := func(i int) {
			if r.IntN(2) == 0 {
				id := fmt.Sprint("n", i)
				h.come(id)
				in = append(in, id)
			} else {
				k := r.IntN(len(in))
				if r.IntN(3) == 0 { // one that has just come
					k = len(in) - 1
				}
				h.depart(in[k])
				in = slices.Delete(in, k, k+1)
			}
			time.Sleep(5 * time.Millisecond)
		}
		next := func() any {
			_, _, next := w.place()
			return next
		}
		for i := 0; next() != nil; i++ {
			step(i)
			if i%7 == 0 {
				w.send(command("pushy:members", `"after":%q,"limit":50`, next()))
				synctest.Wait()
				pages++
			}
		}
		check("after the last page")
		assert.Greater(t, pages, 50)
		w.taken()
		batches := 0
		for i := range 1000 {
			step(1_000_000 + i)
			synctest.Wait()
			if len(w.taken()) > 0 {
				batches++
				check("after a batch")
			}
		}
		assert.Greater(t, batches, 3)
	})
}

// A member that joins and leaves within one batch is left out, unless a client has received
// it in a list in the meantime.
func TestMemberOfOneBatch(t *testing.T) {
	onNodes(t, 1, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		g.join("m1", `{}`)
		w := watch(t, nodes[0].Server, "", `"diff"`)
		pager := watch(t, nodes[0].Server, "", `"diff"`)
		time.Sleep(2 * time.Second)
		g.join("m2", `{}`) // is sent at once, and the next batch is 250 ms later
		synctest.Wait()
		w.taken()
		g.join("m3", `{}`)
		g.leave("m3")
		time.Sleep(time.Second)
		assert.Empty(t, w.taken(), "nobody has seen the member")

		for name, ask := range map[string]func(){
			"page": func() { pager.send(command("pushy:members", `"limit":500`)) },
			"list": func() { pager = watch(t, nodes[0].Server, "", `{"mode":"diff","limit":500}`) },
		} {
			g.join("x"+name, `{}`)
			synctest.Wait()
			g.join("m4"+name, `{}`)
			ask()
			synctest.Wait()
			require.Contains(t, pager.ids(), "m4"+name)
			g.leave("m4" + name)
			time.Sleep(time.Second)
			assert.NotContains(t, pager.ids(), "m4"+name)
			assert.NotContains(t, w.ids(), "m4"+name)
			assert.Equal(t, serverSees(t, nodes[0].Server), pager.seen())
		}
	})
}

// A client that returns receives what has changed since its revision, on the same node and
// on another one. If the node does not know that, the client receives the list.
func TestReturningClientReceivesChanges(t *testing.T) {
	onNodes(t, 2, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		for i := range 5 {
			g.join(fmt.Sprint("m", i), `{}`)
		}
		for _, n := range nodes { // so that both nodes have a client, and remember changes
			watch(t, n.Server, "", `"diff"`)
		}
		w := watch(t, nodes[0].Server, "", `"diff"`)
		time.Sleep(time.Second)
		since := w.at()
		known := w.seen()
		w.Abort()
		<-w.done
		g.join("new", `{}`)
		g.join("short", `{}`)
		g.leave("short")
		g.leave("m1")
		time.Sleep(time.Second)
		for i, n := range nodes {
			back := watch(t, n.Server, "", `{"mode":"diff","since":"`+since+`"}`)
			var p memberPage
			require.NoError(t, json.Unmarshal(back.answer, &p))
			assert.Equal(t, since, p.Since)
			assert.Nil(t, p.List)
			assert.ElementsMatch(t, []string{"m1", w.own}, p.Quit, "node %d", i)
			back.mu.Lock()
			got := back.members
			back.members = map[string]map[string]any{}
			for id, text := range known {
				var m map[string]any
				require.NoError(t, json.Unmarshal([]byte(text), &m))
				back.members[id] = m
			}
			for id, m := range got {
				back.members[id] = m
			}
			for _, id := range p.Quit {
				delete(back.members, id)
			}
			back.mu.Unlock()
			time.Sleep(time.Second)
			assert.Equal(t, serverSees(t, n.Server), back.seen(), "node %d", i)
		}

		for name, since := range map[string]string{
			"otherEpoch": "other.3",
			"tooOld":     withNumber(since, 1),
		} {
			back := watch(t, nodes[0].Server, "", `{"mode":"diff","since":"`+since+`"}`)
			var p memberPage
			require.NoError(t, json.Unmarshal(back.answer, &p))
			assert.Empty(t, p.Since, name)
			assert.NotNil(t, p.List, name)
		}
	})
}

// withNumber replaces the number of a revision.
func withNumber(revision string, n int) string {
	epoch, _, _ := strings.Cut(revision, ".")
	return fmt.Sprintf("%s.%d", epoch, n)
}

// A client that comes from a node that was ahead of its new one has the right members in
// the end.
func TestReturningClientIsAheadOfTheNode(t *testing.T) {
	onNodes(t, 1, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		g.join("m1", `{}`)
		other := watch(t, nodes[0].Server, "", `"diff"`)
		time.Sleep(time.Second)
		// As if the client had received the join of m3, the third entry from here, on a node that
		// is faster. Its own join and first precede it.
		p, err := hub.ParseRevision(other.at())
		require.NoError(t, err)
		ahead := watch(t, nodes[0].Server, "", fmt.Sprintf(`{"mode":"diff","since":"%s.%d"}`, p.Epoch, p.Offset+3))
		require.Contains(t, string(ahead.answer), `"since"`)
		ahead.mu.Lock()
		ahead.members["m3"] = map[string]any{"memberId": "m3"}
		ahead.mu.Unlock()
		time.Sleep(time.Second)
		g.join("first", `{}`) // is sent at once
		synctest.Wait()
		at := g.join("m3", `{}`)
		require.Equal(t, p.Offset+3, at.Offset)
		g.leave("m3")
		time.Sleep(time.Second)
		assert.NotContains(t, ahead.ids(), "m3")
	})
}

// A node that was cut off from the others tells each mode what has changed.
func TestWatchersOfANodeThatWasCutOff(t *testing.T) {
	onNodes(t, 2, pushy.Options{}, func(t *testing.T, c *memory.Cluster, nodes []node) {
		g := newGuest(t, c)
		for i := range 5 {
			g.join(fmt.Sprint("m", i), `{}`)
		}
		var all []*watcher
		for _, mode := range []string{"", `"diff"`, `"count"`} {
			for _, n := range nodes {
				all = append(all, watch(t, n.Server, `{}`, mode))
			}
		}
		time.Sleep(time.Second)
		since := all[2].at()
		mend := nodes[0].Cut()
		local := watch(t, nodes[0].Server, `{"name":"alone"}`, `"diff"`)
		gone := watch(t, nodes[0].Server, `{"name":"short"}`, "")
		var alone memberPage
		during := watch(t, nodes[0].Server, "", `{"mode":"diff","since":"`+withoutDigests(since)+`"}`)
		require.NoError(t, json.Unmarshal(during.answer, &alone))
		assert.Empty(t, alone.Since, "one revision stands for different members")
		assert.Contains(t, during.ids(), local.own)
		proved := watch(t, nodes[0].Server, "", `{"mode":"diff","since":"`+since+`"}`)
		require.NoError(t, json.Unmarshal(proved.answer, &alone))
		assert.Equal(t, since, alone.Since)
		assert.ElementsMatch(t, []string{local.own, gone.own, during.own, proved.own}, proved.ids())
		proved.Close(1000, "")
		time.Sleep(time.Second)
		gone.Abort()
		g.leave("m1")
		g.join("m9", `{}`)
		time.Sleep(5 * time.Second)
		mend()
		time.Sleep(time.Minute)
		all = append(all, local, during)
		want := serverSees(t, nodes[0].Server)
		assert.Equal(t, want, serverSees(t, nodes[1].Server))
		for i, w := range all {
			if i == 4 || i == 5 {
				assert.Equal(t, len(want), w.counted(), "watcher %d", i)
				continue
			}
			assert.Equal(t, want, w.seen(), "watcher %d", i)
		}
		for _, since := range []string{since, withoutDigests(since)} {
			back := watch(t, nodes[0].Server, "", `{"mode":"diff","since":"`+since+`"}`)
			var p memberPage
			require.NoError(t, json.Unmarshal(back.answer, &p))
			assert.Empty(t, p.Since, "one revision stood for different members")
		}
	})
}

// A batch that began before a State replaced the members says what they are when it is sent.
func TestBatchAcrossAState(t *testing.T) {
	onNodes(t, 2, presence(pushy.PresenceOptions{ClientState: true}), func(t *testing.T, _ *memory.Cluster, nodes []node) {
		w := watch(t, nodes[0].Server, `{"name":"w"}`, `"diff"`)
		time.Sleep(2 * time.Second)
		watch(t, nodes[1].Server, `{"name":"first"}`, `"none"`) // is sent at once, and the next batch is 250 ms later
		synctest.Wait()
		second := watch(t, nodes[1].Server, `{"name":"second"}`, `"none"`)
		synctest.Wait()
		nodes[0].Cut()()
		synctest.Wait()
		second.send(command("pushy:update", `"state":{"n":7}`))
		time.Sleep(time.Second)
		require.Contains(t, serverSees(t, nodes[0].Server)[second.own], `{"n":7}`)
		assert.Equal(t, serverSees(t, nodes[0].Server), w.seen())
	})
}

// 200 members come and go on three nodes while clients watch in all modes. In the end each
// client knows the members that the servers have.
func TestWatchersAgreeInTheEnd(t *testing.T) {
	onNodes(t, 3, presence(pushy.PresenceOptions{ClientState: true}), func(t *testing.T, _ *memory.Cluster, nodes []node) {
		modes := []string{"", `"diff"`, `{"mode":"diff","limit":500}`, `"count"`, `"none"`}
		var watchers []*watcher
		for _, n := range nodes {
			for _, mode := range modes {
				watchers = append(watchers, watch(t, n.Server, `{"name":"watcher"}`, mode))
			}
		}
		var workers sync.WaitGroup
		for i := range 20 {
			workers.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 7))
				for range 10 {
					w := watch(t, nodes[r.IntN(3)].Server, fmt.Sprintf(`{"n":%d}`, i), modes[r.IntN(len(modes))])
					time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
					if r.IntN(2) == 0 {
						w.send(command("pushy:update", `"state":{"n":%d}`, r.IntN(10)))
					}
					if r.IntN(3) == 0 {
						w.send(`{"command":"pushy:idle","data":{"idle":true}}`)
					}
					time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
					if r.IntN(8) > 0 {
						w.Abort()
						<-w.done
					}
				}
			})
		}
		workers.Wait()
		time.Sleep(time.Minute)
		want := serverSees(t, nodes[0].Server)
		assert.Greater(t, len(want), len(watchers))
		for i, w := range watchers {
			assert.Equal(t, want, serverSees(t, nodes[i/len(modes)].Server))
			switch i % len(modes) {
			case 0, 1, 2:
				assert.Equal(t, want, w.seen(), "watcher %d", i)
			case 3:
				assert.Equal(t, len(want), w.counted(), "watcher %d", i)
			default:
				assert.Empty(t, w.taken())
			}
		}
	})
}
