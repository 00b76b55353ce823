package nats_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/natstest"
	"github.com/gopushy/pushy/internal/storetest"
	"github.com/gopushy/pushy/internal/testproc"
)

// shared is the server that most tests use, each with a prefix of its own.
var shared *natstest.Server

func TestMain(m *testing.M) {
	childMain()
	testproc.Parallel(4) // the tests wait for leases more than they compute
	os.Exit(func() (code int) {
		var err error
		shared, err = natstest.StartJetStream()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer shared.Close()
		return m.Run()
	}())
}

// ownNATS is a server with JetStream for one test alone.
func ownNATS(t testing.TB, args ...string) *natstest.Server {
	t.Helper()
	s, err := natstest.StartJetStream(args...)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func prefix(t testing.TB) string { return storetest.Prefix(t) }

// webSocketURL is where the server takes WebSockets, as its log says.
func webSocketURL(t testing.TB, s *natstest.Server) string {
	t.Helper()
	text, err := s.Log()
	require.NoError(t, err)
	_, rest, found := strings.Cut(text, "Listening for websocket clients on ")
	require.True(t, found, text)
	url, _, _ := strings.Cut(rest, "\n")
	return url
}

// monitored reads a page of a server's monitoring.
func monitored(t testing.TB, s *natstest.Server, page string, into any) {
	t.Helper()
	require.NoError(t, s.Monitored(page, into))
}

// proxy forwards the connections of a node to its server, and can cut them.
type proxy struct {
	*storetest.Proxy
	url string
}

func newProxy(t testing.TB, s *natstest.Server) *proxy {
	t.Helper()
	p, err := storetest.NewProxy(s.Addr)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return &proxy{Proxy: p, url: "nats://" + p.Addr}
}

// Cut is what brokertest.Cutter says.
func (p *proxy) Cut() (mend func()) {
	p.Refuse()
	return p.Mend
}

// silence cuts without telling either side.
func (p *proxy) silence() (mend func()) {
	p.Proxy.Cut()
	return p.Mend
}
