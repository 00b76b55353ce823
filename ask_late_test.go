package pushy_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// lateSession is a Session whose Stop takes two seconds, as any code does in a process that is not
// given the processor.
type lateSession struct {
	session.Session
	writer fanout.Writer
}

const late = 2 * time.Second

func (s lateSession) Write(p []byte, timeout time.Duration) error { return s.writer.Write(p, timeout) }

func (s lateSession) Finish(code int, reason string, timeout time.Duration) {
	s.writer.Finish(code, reason, timeout)
}

func (s lateSession) Stop() {
	time.Sleep(late)
	s.Session.Stop()
}

// connectLate connects a client that srv needs two seconds to kick, and returns the target.
func connectLate(t *testing.T, srv *pushy.Server) (target string) {
	t.Helper()
	pipe, client := inmem.Pipe("websocket")
	srv.Connect(lateSession{
		Session: pipe,
		writer:  pipe.(fanout.Writer),
	}, nil)
	p := &peer{t: t, Client: client}
	return "conn:" + p.next().field("socketId")
}

// The limit of 500 ms is for the other nodes. This node has carried out the call, so the result says
// so, however long it took: with an answer of this node missing, a program that has only one node would
// fail when its machine is busy.
func TestOwnAnswerIsNotSilentWhenLate(t *testing.T) {
	t.Parallel()
	t.Run("one node", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			srv := startServer(t, pushy.Options{})
			target := connectLate(t, srv)
			began := time.Now()
			kicked, err := srv.Kick(t.Context(), pushy.Kick{Target: target})
			require.NoError(t, err)
			assert.Equal(t, pushy.Kicked{
				Closed:   1,
				Coverage: pushy.Coverage{Nodes: 1},
			}, kicked)
			assert.Equal(t, late, time.Since(began))
		})
	})
	t.Run("another node is silent", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			servers, brokers := askedNodes(t, 3)
			defer brokers[2].Cut()()
			target := connectLate(t, servers[0])
			kicked, err := servers[0].Kick(t.Context(), pushy.Kick{Target: target})
			require.NoError(t, err)
			assert.Equal(t, pushy.Kicked{
				Closed: 1,
				Coverage: pushy.Coverage{
					Nodes:  2,
					Silent: []string{servers[2].Node()},
				},
			}, kicked)

			// For the others the limit stands.
			target = connectLate(t, servers[1])
			began := time.Now()
			kicked, err = servers[0].Kick(t.Context(), pushy.Kick{Target: target})
			require.NoError(t, err)
			assert.Equal(t, 500*time.Millisecond, time.Since(began))
			assert.Equal(t, 1, kicked.Nodes)
			assert.ElementsMatch(t, []string{servers[1].Node(), servers[2].Node()}, kicked.Silent)
		})
	})
	t.Run("a question of another package", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			srv := startServer(t, pushy.Options{Broker: memory.NewCluster(memory.Options{}).Broker()})
			seam.Of(srv).HandlePrompt("figures", func(ctx context.Context, _ json.RawMessage) (any, error) {
				time.Sleep(late)
				return 1, ctx.Err()
			})
			answers, err := srv.Ask(t.Context(), "figures", nil)
			require.NoError(t, err)
			assert.Equal(t, map[string]string{srv.Node(): "1"}, numbers(answers))
			assert.Empty(t, answers.Silent)
		})
	})
}

// The context of the caller ends the call all the same, and so does a Shutdown.
func TestEndOfALateCall(t *testing.T) {
	t.Parallel()
	t.Run("context", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			srv := startServer(t, pushy.Options{})
			target := connectLate(t, srv)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			kicked, err := srv.Kick(ctx, pushy.Kick{Target: target})
			require.NoError(t, err)
			assert.Equal(t, []string{srv.Node()}, kicked.Silent)
			assert.Equal(t, time.Second, time.Since(began))
		})
	})
	t.Run("shutdown", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			srv := startServer(t, pushy.Options{})
			target := connectLate(t, srv)
			result := make(chan error, 1)
			began := time.Now()
			go func() {
				_, err := srv.Kick(t.Context(), pushy.Kick{Target: target})
				assert.Equal(t, time.Second, time.Since(began))
				result <- err
			}()
			time.Sleep(time.Second)
			require.NoError(t, srv.Shutdown(t.Context()))
			require.ErrorIs(t, <-result, pushy.ErrClosed)
		})
	})
}

// Code of the host can hang, so the limit is for this node's answer, too.
func TestAskFuncThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		hang := make(chan struct{})
		defer close(hang)
		srv.HandleAsk("hang", func(context.Context, json.RawMessage) (any, error) {
			<-hang
			return 1, nil
		})
		began := time.Now()
		answers, err := srv.Ask(t.Context(), "hang", nil)
		require.NoError(t, err)
		assert.Equal(t, []string{srv.Node()}, answers.Silent)
		assert.Equal(t, 500*time.Millisecond, time.Since(began))
	})
}
