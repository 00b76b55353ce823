package backend_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/backend"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/pushytest"
)

// node is a server of a cluster, with its broker, and a Client that calls it.
type node struct {
	*pushy.Server
	broker *memory.Broker
	kit    *pushytest.Kit
	api    *backend.Client
}

// onNodes runs a test on a cluster with fake time.
func onNodes(t *testing.T, count int, run func(t *testing.T, nodes []node)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		var nodes []node
		for range count {
			b := cluster.Broker()
			n := startNode(t, b)
			n.broker = b
			nodes = append(nodes, n)
		}
		run(t, nodes)
	})
}

// startNode starts a server. The channels that begin with "kept" keep events, and the header User
// is the user of a connection.
func startNode(t *testing.T, b broker.Broker) node {
	t.Helper()
	srv, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Broker:    b,
		Accept:    func(r *http.Request) (any, error) { return r.Header.Get("User"), nil },
		Channel: func(name string) pushy.ChannelOptions {
			if strings.HasPrefix(name, "kept") {
				return pushy.ChannelOptions{Keep: broker.Keep{Size: 100}}
			}
			return pushy.ChannelOptions{}
		},
		Limits: pushy.Limits{
			Channels:    -1,
			CommandRate: -1,
			JoinRate:    -1,
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return node{
		Server: srv,
		kit:    pushytest.New(t, srv),
		api:    serve(t, srv).client(t, backend.Options{Tries: 3}),
	}
}

// connect connects a client of a user.
func (n node) connect(user string) *pushytest.Client {
	return n.kit.Connect(func(r *http.Request) { r.Header.Set("User", user) })
}
