package nats_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

// freePorts are some that nothing listens on.
func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close() // all are open until the last is known
		ports = append(ports, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	}
	return ports
}

// natsCluster is three servers with JetStream.
func natsCluster(t testing.TB) (servers []*natsServer) {
	t.Helper()
	ports := freePorts(t, 3)
	var routes []string
	for _, port := range ports {
		routes = append(routes, `"nats://127.0.0.1:`+port+`"`)
	}
	for i, port := range ports {
		servers = append(servers, configured(t, fmt.Sprintf(`
			server_name: "n%d"
			cluster { name: test, listen: "127.0.0.1:%s", routes: [%s] }
		`, i, port, strings.Join(routes, ", "))))
	}
	return servers
}

// Issue 11, number 4: a URL with several servers connects, and goes on when one of
// them dies that leads the presence stream.
func TestClusterLosesItsLeader(t *testing.T) {
	t.Parallel()
	servers := natsCluster(t)
	newNode := func(separator string) *nats.Broker {
		b, err := nats.New(t.Context(), nats.Options{
			URL:      servers[0].url + separator + servers[1].url + separator + servers[2].url,
			Prefix:   prefix(t),
			Replicas: 3,
			Lease:    10 * time.Second,
			Logger:   testLogger(t),
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	a, b := newNode(","), newNode(" , ")
	for _, node := range []*nats.Broker{a, b} {
		// The servers elect a leader first.
		eventually(t, "the node is connected", func() bool { return node.Away() == nil })
	}
	heardB := heard(t, b)
	require.NoError(t, b.Subscribe(t.Context(), "private-room"))
	_, changes := watched(t, b, "private-room")
	_, err := a.Publish(t.Context(), "private-room", event("before"))
	require.NoError(t, err)
	assert.Equal(t, "before", next(t, heardB).Event)
	require.NoError(t, a.Join(t.Context(), "private-room", member("1")))
	assert.Equal(t, "1", next(t, changes).Member.ID)

	nc, err := natsgo.Connect(servers[0].url + "," + servers[1].url + "," + servers[2].url)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), prefix(t)+"-presence")
	require.NoError(t, err)
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, info.Config.Replicas)
	for i, s := range servers {
		if info.Cluster.Leader == fmt.Sprintf("n%d", i) {
			s.stop()
		}
	}

	eventually(t, "an event arrives again", func() bool {
		_, err := a.Publish(t.Context(), "private-room", event("after"))
		for err == nil {
			select {
			case m := <-heardB:
				if m.Event == "after" {
					return true
				}
			case <-time.After(50 * time.Millisecond):
				return false
			}
		}
		return false
	})
	require.NoError(t, a.Join(t.Context(), "private-room", member("2")))
	in := map[string]bool{"1": true}
	for len(in) < 2 {
		c := next(t, changes)
		require.False(t, c.Left, "nobody is taken for dead")
		if c.State == nil {
			in[c.Member.ID] = true
			continue
		}
		for _, m := range c.State.Members {
			in[m.ID] = true
		}
	}
	eventually(t, "both nodes are back", func() bool { return a.Away() == nil && b.Away() == nil })
	snap, _ := watched(t, a, "private-room")
	assert.Equal(t, []pushy.Member{member("1"), member("2")}, snap.Members)
}
