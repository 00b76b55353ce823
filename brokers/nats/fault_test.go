package nats_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
	"github.com/gopushy/pushy/internal/clustertest"
)

// joinFromChild makes what a node in a process of its own shares: how is URL and
// prefix, or "" for a node that is alone.
func joinFromChild(how string) (pushy.Broker, pushy.PresenceStore, error) {
	if how == "" {
		return nil, nil, nil
	}
	url, prefix, _ := strings.Cut(how, " ")
	b, err := nats.New(context.Background(), nats.Options{
		URL:            url,
		Prefix:         prefix,
		Lease:          8 * time.Second,
		Timeout:        20 * time.Second, // a machine that has more to do than it can is no fault
		RequireAtStart: true,
		Logger:         slog.New(slog.DiscardHandler),
	})
	return b, b, err
}

// cluster makes nodes on a server, and keeps them.
type cluster struct {
	mu    sync.Mutex
	nodes []*nats.Broker
	proxy []*proxy
}

func (c *cluster) engine(s *natsServer, memory, proxied bool) clustertest.Engine {
	return clustertest.Engine{Lease: 8 * time.Second, Join: func(t testing.TB) (pushy.Broker, pushy.PresenceStore) {
		o := nats.Options{URL: s.url, Memory: memory, Timeout: 20 * time.Second}
		var p *proxy
		if proxied {
			p = newProxy(t, s)
			o.URL = p.url
		}
		b := open(t, o)
		c.mu.Lock()
		c.nodes, c.proxy = append(c.nodes, b), append(c.proxy, p)
		c.mu.Unlock()
		return b, b
	}}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	c := &cluster{}
	clustertest.Killed(t, c.engine(shared, false, false),
		func() (*clustertest.Child, error) { return clustertest.Start(shared.url + " " + prefix(t)) },
		func(t testing.TB) (left []string) {
			// The quits are out before what they made useless is deleted.
			for deadline := time.Now().Add(time.Second); ; {
				ids, err := c.nodes[0].Nodes(t.Context())
				require.NoError(t, err)
				left = slices.DeleteFunc(ids, func(id string) bool {
					return slices.ContainsFunc(c.nodes, func(b *nats.Broker) bool { return b.ID() == id })
				})
				if len(left) == 0 || time.Now().After(deadline) {
					return left
				}
			}
		})
}

// everywhere is an outage of the server.
func everywhere(s *natsServer, between func(t testing.TB)) clustertest.Outage {
	return clustertest.Outage{
		For: 10 * time.Second,
		Cut: func(int) bool { return true },
		Away: func(t testing.TB) func() {
			s.stop()
			between(t)
			return func() { require.NoError(t, s.start()) }
		},
	}
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	s := ownNATS(t)
	clustertest.Outlived(t, new(cluster).engine(s, false, false), everywhere(s, func(testing.TB) {}))
}

// The server comes back without what JetStream had stored.
func TestServerGoneThatForgets(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]bool{"memory": true, "files": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ownNATS(t)
			clustertest.Outlived(t, new(cluster).engine(s, memory, false), everywhere(s, func(t testing.TB) {
				require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "jetstream")))
			}))
		})
	}
}

func TestNodeCutOff(t *testing.T) {
	t.Parallel()
	c := &cluster{}
	clustertest.Outlived(t, c.engine(shared, false, true), clustertest.Outage{
		For:  10 * time.Second,
		Cut:  func(i int) bool { return i == 1 },
		Away: func(testing.TB) func() { return c.proxy[1].Cut() },
	})
}
