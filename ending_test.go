package pushy_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// admitPeer connects a client as an HTTP request does.
func admitPeer(t *testing.T, srv *pushy.Server, agent string) *peer {
	t.Helper()
	r := httptest.NewRequest("GET", "/pushy/socket/websocket", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Set("User-Agent", agent)
	ticket, ok := seam.Of(srv).Admit(httptest.NewRecorder(), r)
	require.True(t, ok)
	session, client := inmem.Pipe("websocket")
	ticket.Start(session)
	p := &peer{t: t, Client: client}
	p.id = p.next().field("socketId")
	return p
}

// endingsOf collects the endings of a Server.
func endingsOf(t *testing.T, srv *pushy.Server) <-chan pushy.Ending {
	ended := make(chan pushy.Ending, 100)
	t.Cleanup(srv.OnEnding(func(e pushy.Ending) { ended <- e }))
	return ended
}

// A client that does not read is disconnected, and both the log and the observer say how much it
// had not received, and for how long.
func TestEndingOfASlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := logged()
		srv := startServer(t, pushy.Options{
			Logger: log,
			Limits: pushy.Limits{ConnBuffer: 10_000, TriggerBytes: 2000},
		})
		ended := endingsOf(t, srv)
		began := time.Now()
		p := admitPeer(t, srv, "Agent/1.0 "+strings.Repeat("ü", 200))
		p.send(`{"command":"subscribe","data":{"channel":"news"}}`)
		assert.Equal(t, "pushy:subscription-success", p.next().Event)
		time.Sleep(2 * time.Second)
		published := 0
		for srv.Stats().Connections > 0 {
			require.NoError(t, srv.Publish(t.Context(), "news", "e", strings.Repeat("x", 1000)))
			published++
			require.Less(t, published, 100)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		e := <-ended
		assert.Equal(t, p.id, e.Conn)
		assert.Equal(t, pushy.CloseSlowConsumer, e.Code)
		assert.Equal(t, "slow consumer", e.Reason)
		assert.Equal(t, pushy.EndedByServer, e.By)
		assert.Equal(t, "192.0.2.7:1234", e.Address)
		assert.Equal(t, "Agent/1.0 "+strings.Repeat("ü", 123), e.Agent)
		assert.Equal(t, "websocket", e.Protocol)
		assert.Greater(t, e.Waiting, int64(9_000))
		assert.Less(t, e.Waiting, int64(12_000))
		// They were published at intervals of a second, and the last one was not queued.
		assert.Equal(t, time.Duration(e.Waiting/1000)*time.Second, e.OldestWait)
		assert.Equal(t, began.UnixMilli(), e.Since.UnixMilli())
		require.Len(t, lines(), 1)
		assert.Contains(t, lines()[0], fmt.Sprintf(`level=INFO msg="connection ended by the server" code=3008 `+
			`reason="slow consumer" waiting=%d oldestWait=%ds age=`, e.Waiting, e.Waiting/1000))
		assert.Contains(t, lines()[0], " address=192.0.2.7:1234 ")
	})
}

// Each connection that has ended has one record, which says who has ended it.
func TestEndings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		end    func(srv *pushy.Server, p *peer)
		code   int
		by     pushy.EndedBy
		logged bool
	}{
		{
			name: "client",
			end:  func(_ *pushy.Server, p *peer) { p.Close(4001, "bye") },
			code: 4001,
			by:   pushy.EndedByClient,
		},
		{
			name: "network",
			end:  func(_ *pushy.Server, p *peer) { p.Abort() },
			code: 1006,
			by:   pushy.EndedByNetwork,
		},
		{
			name:   "host",
			end:    func(srv *pushy.Server, p *peer) { _ = p.conn(srv).Close(4002, "no") },
			code:   4002,
			by:     pushy.EndedByServer,
			logged: true,
		},
		{
			name: "kick",
			end: func(srv *pushy.Server, p *peer) {
				kicked, err := srv.Kick(context.Background(), pushy.Kick{Target: "conn:" + p.id})
				require.NoError(p.t, err)
				assert.Equal(p.t, 1, kicked.Closed)
			},
			code:   pushy.CloseRemoved,
			by:     pushy.EndedByServer,
			logged: true,
		},
		{
			name:   "shutdown",
			end:    func(srv *pushy.Server, p *peer) { go func() { _ = srv.Shutdown(context.Background()) }() },
			code:   pushy.CloseShutdown,
			by:     pushy.EndedByServer,
			logged: true,
		},
		{
			name:   "close",
			end:    func(srv *pushy.Server, _ *peer) { _ = srv.Close() },
			code:   pushy.CloseShutdown,
			by:     pushy.EndedByServer,
			logged: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log, lines := logged()
				srv := startServer(t, pushy.Options{Logger: log})
				ended := endingsOf(t, srv)
				var ignored sync.Once
				stop := srv.OnEnding(func(pushy.Ending) { ignored.Do(func() { t.Error("it was called after stop") }) })
				stop()
				stop()
				p := admitPeer(t, srv, "")
				synctest.Wait() // the greeting counts as waiting until its write returns
				c.end(srv, p)
				e := <-ended
				assert.Equal(t, c.code, e.Code)
				assert.Equal(t, c.by, e.By)
				assert.Equal(t, c.name == "client", e.By.String() == "client")
				assert.Zero(t, e.Waiting)
				_ = srv.Close()
				assert.Empty(t, ended)
				assert.Equal(t, c.logged, strings.Contains(strings.Join(lines(), "\n"), "connection ended by the server"), "%v", lines())
			})
		})
	}
}

// An observer that panics is logged, and the others are called.
func TestObserverOfEndingsFails(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	srv := startServer(t, pushy.Options{Logger: log})
	srv.OnEnding(func(pushy.Ending) { panic("boom") })
	ended := endingsOf(t, srv)
	admitPeer(t, srv, "").Abort()
	<-ended
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], `msg="hook panicked" hook=OnEnding`)
	assert.Panics(t, func() { srv.OnEnding(nil) })
}

// Many connections that end at once have ten lines a second, and then the number of the others.
func TestManyEndingsHaveFewLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := logged()
		srv := startServer(t, pushy.Options{Logger: log})
		peers := make([]*peer, 35)
		for i := range peers {
			peers[i] = admitPeer(t, srv, "")
		}
		closeAll := func(peers []*peer) {
			for _, p := range peers {
				require.NoError(t, p.conn(srv).Close(4000, "x"))
			}
			synctest.Wait()
		}
		closeAll(peers[:25])
		assert.Len(t, lines(), 10)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		require.Len(t, lines(), 11)
		assert.Contains(t, lines()[10], `msg="connections ended by the server: lines were omitted" omitted=15`)
		closeAll(peers[25:30])
		assert.Len(t, lines(), 16)
		require.NoError(t, srv.Close())
		require.Len(t, lines(), 21, "ten lines in this second")
	})
}

// What is omitted in the last second of a Server is counted, too.
func TestEndingsOfAShutdownAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := logged()
		srv := startServer(t, pushy.Options{Logger: log})
		for range 30 {
			admitPeer(t, srv, "")
		}
		require.NoError(t, srv.Close())
		require.Len(t, lines(), 11)
		assert.Contains(t, lines()[10], "omitted=20")
	})
}
