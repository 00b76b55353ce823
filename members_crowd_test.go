package pushy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
)

// joinAtOnce lets clients join private-room within one batch, of which some change their state and leave
// again, and calls each after each join. It returns those that are still there.
func joinAtOnce(t *testing.T, nodes []node, n int, each func(i int)) []*watcher {
	t.Helper()
	var here []*watcher
	for i := range n {
		w := watch(t, nodes[i%len(nodes)].Server, fmt.Sprintf(`{"n":%d}`, i), `{"mode":"diff","limit":500}`)
		here = append(here, w)
		each(i)
		switch {
		case i%20 == 19:
			gone := here[i/2]
			here = append(here[:i/2:i/2], here[i/2+1:]...)
			gone.Abort()
			<-gone.done
		case i%10 == 9:
			here[i/3].send(command("pushy:update", `"state":{"n":%d}`, i))
		}
		synctest.Wait()
	}
	return here
}

// added returns the members in the lists and in the field add that the client has received.
func (w *watcher) added(t *testing.T) (n int) {
	t.Helper()
	texts := []json.RawMessage{w.answer}
	for _, text := range w.taken() {
		f, err := parseFrame(text)
		require.NoError(t, err)
		texts = append(texts, f.Data)
	}
	for _, text := range texts {
		var p memberPage
		require.NoError(t, json.Unmarshal(text, &p))
		n += len(p.List) + len(p.Add)
	}
	return n
}

// Clients that join at the same time do not receive in a batch what they have in their lists.
func TestCrowdReceivesMembersOnce(t *testing.T) {
	onNodes(t, 2, presence(pushy.PresenceOptions{ClientState: true}), func(t *testing.T, _ *memory.Cluster, nodes []node) {
		const all = 300
		first := watch(t, nodes[0].Server, `{}`, `{"mode":"diff","limit":500}`)
		time.Sleep(2 * time.Second)
		here := append(joinAtOnce(t, nodes, all, func(int) {}), first)
		time.Sleep(2 * time.Second)
		want := serverSees(t, nodes[0].Server)
		require.Greater(t, len(want), all*3/4)
		for i, w := range here {
			assert.Equal(t, want, w.seen(), "client %d", i)
			assert.Equal(t, len(want), w.counted(), "client %d", i)
			assert.Less(t, w.added(t), all+all/4, "client %d", i)
		}
	})
}

// A client that has received only a part of a batch returns with the revision of that part.
func TestReturnWithinBatch(t *testing.T) {
	onNodes(t, 1, presence(pushy.PresenceOptions{ClientState: true}), func(t *testing.T, _ *memory.Cluster, nodes []node) {
		first := watch(t, nodes[0].Server, `{}`, `{"mode":"diff","limit":500}`)
		time.Sleep(2 * time.Second)
		first.taken()
		known := first.seen()
		joinAtOnce(t, nodes, 200, func(int) {})
		time.Sleep(2 * time.Second)
		parts := first.taken()
		require.Greater(t, len(parts), 3)
		members := map[string]map[string]any{}
		for id, text := range known {
			var m map[string]any
			require.NoError(t, json.Unmarshal([]byte(text), &m))
			members[id] = m
		}
		for i, text := range parts {
			f, err := parseFrame(text)
			require.NoError(t, err)
			back := newWatcher(t, nodes[0].Server)
			back.members = members
			back.receive(f, text)
			members = maps.Clone(back.members) // a member that changes is another map, see below
			for id, m := range members {
				members[id] = maps.Clone(m)
			}
			back.subscribe(withKey(subscribeText(t, back.id, "private-room", ""), "presence",
				fmt.Sprintf(`{"mode":"diff","limit":500,"since":%q}`, back.at())))
			var answer memberPage
			require.NoError(t, json.Unmarshal(back.answer, &answer))
			assert.NotEmpty(t, answer.Since, "the server knows the revision of part %d", i)
			time.Sleep(2 * time.Second)
			assert.Equal(t, serverSees(t, nodes[0].Server), back.seen(), "part %d", i)
		}
	})
}

// A client reads the list in pages while many others join.
func TestPagingWhileCrowdJoins(t *testing.T) {
	onNodes(t, 1, presence(pushy.PresenceOptions{ClientState: true}), func(t *testing.T, _ *memory.Cluster, nodes []node) {
		watch(t, nodes[0].Server, `{}`, `{"mode":"diff","limit":500}`)
		time.Sleep(2 * time.Second)
		var pager *watcher
		page := func() {
			if _, _, next := pager.place(); next != nil {
				pager.send(command("pushy:members", `"after":%q,"limit":20`, next))
				synctest.Wait()
			}
		}
		joinAtOnce(t, nodes, 300, func(i int) {
			switch {
			case i == 100:
				pager = watch(t, nodes[0].Server, "", `{"mode":"diff","limit":10}`)
			case i > 100 && i%20 == 0:
				page()
			}
		})
		for range 30 {
			page()
		}
		time.Sleep(2 * time.Second)
		assert.Equal(t, serverSees(t, nodes[0].Server), pager.seen())
	})
}
