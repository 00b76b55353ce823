package pushy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
)

// membersModel lets members come, change, go and return on nodes that are cut off and reconnected, in a
// random order. When the nodes are one cluster again, all of them and all clients have the same members, and
// a newcomer receives these in the order of its node.
func membersModel(t *testing.T, nodes []node, r *rand.Rand, perUser bool, steps int) {
	var watchers []*watcher // they stay
	for i := range nodes {
		for _, mode := range []string{"", `{"mode":"diff","limit":500}`, `"count"`} {
			watchers = append(watchers, watch(t, nodes[i].Server, fmt.Sprintf(`{"user":"watcher%d"}`, i), mode))
		}
	}
	var in, away []*watcher
	cut := map[int]func(){}
	data := func() string {
		if perUser {
			return fmt.Sprintf(`{"user":"u%d","n":%d}`, r.IntN(5), r.IntN(100))
		}
		return fmt.Sprintf(`{"n":"\"%d\""}`, r.IntN(100))
	}
	datas := map[*watcher]string{}
	anywhere := func() *pushy.Server { return nodes[r.IntN(len(nodes))].Server }
	pick := func(from *[]*watcher) *watcher {
		i := r.IntN(len(*from))
		w := (*from)[i]
		*from = append((*from)[:i], (*from)[i+1:]...)
		return w
	}
	var trace []string
	for step := range steps {
		did := ""
		switch n := r.IntN(100); {
		case n < 30:
			d := data()
			var w *watcher
			if r.IntN(2) == 0 {
				w = hold(t, anywhere(), d)
			} else {
				w = watch(t, anywhere(), d, []string{"", `"diff"`, `"none"`}[r.IntN(3)])
			}
			datas[w] = d
			in = append(in, w)
			did = "came " + w.own
		case n < 45 && len(in) > 0:
			w := pick(&in)
			w.Abort()
			<-w.done
			if w.key != "" {
				away = append(away, w)
			}
			did = "lost " + w.own
		case n < 50 && len(in) > 0:
			w := pick(&in)
			w.Close(1000, "")
			did = "closed " + w.own
		case n < 60 && len(away) > 0:
			w := pick(&away)
			next := w.again(anywhere(), datas[w])
			datas[next] = datas[w]
			in = append(in, next)
			did = "returned " + w.own + " as " + next.own
		case n < 80 && len(in) > 0:
			w := in[r.IntN(len(in))]
			w.send(command("pushy:update", `"state":{"n":%d}`, r.IntN(10)))
			did = "state of " + w.own
		case n < 85 && len(in) > 0:
			w := in[r.IntN(len(in))]
			w.send(fmt.Sprintf(`{"command":"pushy:idle","data":{"idle":%t}}`, r.IntN(2) == 0))
			did = "idle " + w.own
		case n < 89 && len(cut) < len(nodes)-1:
			i := r.IntN(len(nodes))
			if cut[i] == nil {
				cut[i] = nodes[i].Cut()
				did = fmt.Sprint("cut ", i)
			}
		case n < 96:
			for i, mend := range cut {
				mend()
				delete(cut, i)
				did = fmt.Sprint("mended ", i)
				break
			}
		case n < 98 && len(cut) < len(nodes)-1: // shorter than a batch
			i := r.IntN(len(nodes))
			if cut[i] == nil {
				nodes[i].Cut()()
				did = fmt.Sprint("interrupted ", i)
			}
		}
		if did != "" {
			trace = append(trace, did)
		}
		switch r.IntN(4) {
		case 0:
			time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		case 1:
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		}
		if step%(steps/4) != steps/4-1 {
			continue
		}
		for i, mend := range cut {
			mend()
			delete(cut, i)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		away = nil // their time has passed
		want := serverSees(t, nodes[0].Server)
		for i, n := range nodes {
			require.Equal(t, want, serverSees(t, n.Server), "node %d after %q", i, trace)
		}
		for i, w := range watchers {
			if i%3 == 2 {
				require.Equal(t, len(want), w.counted(), "watcher %d", i)
			} else {
				require.Equal(t, want, w.seen(), "watcher %d after %q", i, trace)
			}
		}
		for _, n := range nodes {
			late := newWatcher(t, n.Server)
			late.send(withKey(subscribeText(t, late.id, "private-room", `{"user":"late"}`), "presence", ""))
			success := late.next()
			var got struct{ Presence []json.RawMessage }
			require.NoError(t, json.Unmarshal(success.Data, &got))
			ch, _ := n.Server.Channels().Lookup("private-room")
			members, _ := ch.Presence()
			require.Len(t, got.Presence, len(members))
			for i, m := range members {
				require.Equal(t, string(m.JSON), string(got.Presence[i]))
			}
			late.Close(1000, "")
			time.Sleep(time.Second)
		}
	}
}

func TestModelOfMembers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			perUser := seed%2 == 1
			o := presence(pushy.PresenceOptions{ClientState: true, PerUser: perUser})
			onNodes(t, 3, o, func(t *testing.T, _ *memory.Cluster, nodes []node) {
				membersModel(t, nodes, rand.New(rand.NewPCG(seed, 1)), perUser, 400)
			})
		})
	}
}
