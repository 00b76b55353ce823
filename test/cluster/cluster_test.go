package cluster_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/seam"
)

// node is a Server and its URL.
type node struct {
	srv *pushy.Server
	url string
}

// anybody allows all subscriptions.
type anybody struct{}

func (anybody) Authorize(context.Context, pushy.AuthRequest) error { return nil }

const secretKey = "the secret of the cluster"

// keep is what channels keep whose names contain "kept".
var keep = broker.Keep{
	Size: 1000,
	TTL:  5 * time.Minute,
}

// keepFew is what channels keep whose names contain "few-kept".
var keepFew = broker.Keep{
	Size: 5,
	TTL:  time.Hour,
}

// keepShort is what channels keep whose names contain "short-kept".
var keepShort = broker.Keep{
	Size: 5,
	TTL:  time.Second,
}

// options returns the options of a node. The lease is also its grace period; 0 is the default.
func options(shared broker.Broker, lease time.Duration, logger *slog.Logger) pushy.Options {
	return pushy.Options{
		SecretKey:  secretKey,
		Authorizer: anybody{},
		Accept:     func(r *http.Request) (any, error) { return r.URL.Query().Get("user"), nil },
		Broker:     shared,
		Grace:      lease,
		Channel: func(name string) pushy.ChannelOptions {
			switch {
			case strings.Contains(name, "few-kept"):
				return pushy.ChannelOptions{Keep: keepFew}
			case strings.Contains(name, "short-kept"):
				return pushy.ChannelOptions{Keep: keepShort}
			case strings.Contains(name, "kept"):
				return pushy.ChannelOptions{Keep: keep}
			}
			return pushy.ChannelOptions{}
		},
		Logger: logger,
		SockJS: pushy.SockJS{Legacy: true, DisconnectDelay: patience / 2}, // on a busy machine a poll can be late
		Limits: pushy.Limits{CommandRate: -1},
	}
}

// start starts n nodes that end with the test.
func (s *store) start(t testing.TB, n int) []node {
	t.Helper()
	var nodes []node
	for range n {
		nodes = append(nodes, serve(t, s.join(t), s.Lease))
	}
	return nodes
}

func serve(t testing.TB, shared broker.Broker, lease time.Duration) node {
	t.Helper()
	srv, err := pushy.New(options(shared, lease, slog.New(slog.NewTextHandler(t.Output(), nil))))
	if err != nil {
		t.Fatal(err)
	}
	seam.Of(srv).Hub.SetPatience(patience / 2)
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		_ = srv.Close() // first, because the web server does not close WebSockets
		web.CloseClientConnections()
		web.Close()
	})
	return node{srv, web.URL}
}

// soon waits until the func true returns true, and fails the test if that takes longer than d.
func soon(t testing.TB, d time.Duration, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !true(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// ids returns the ids of a channel's members as the node knows them.
func (n node) ids(channel string) []string {
	ids := []string{}
	if ch, ok := n.srv.Channels().Lookup(channel); ok {
		members, _ := ch.Presence()
		for _, m := range members {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
