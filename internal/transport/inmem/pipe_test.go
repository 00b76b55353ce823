package inmem_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
	"github.com/gopushy/pushy/internal/transport/transporttest"
)

// serveInMemory starts h on the server's end of a Pipe.
func serveInMemory(t *testing.T, h *transporttest.Host) (*transporttest.Conn, *inmem.Client) {
	t.Helper()
	sess, client := inmem.Pipe("pipe")
	assert.Equal(t, "pipe", sess.Protocol())
	go h.Serve(sess)
	return h.Conn(t), client
}

func closedWith(t *testing.T, err error, cause session.Cause, code int, reason string) {
	t.Helper()
	var end *session.CloseError
	require.ErrorAs(t, err, &end)
	assert.Equal(t, cause, end.Cause, end)
	assert.Equal(t, code, end.Code)
	assert.Equal(t, reason, end.Reason)
}

func TestPipeCarriesMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serveInMemory(t, transporttest.NewHost(5*time.Second))
		var want []string
		for _, n := range []int{0, 1, 125, 126, 65535, 65536, 200_000} {
			want = append(want, strings.Repeat("x", n))
		}
		go func() {
			for _, text := range want {
				assert.NoError(t, c.Send(text))
			}
		}()
		for _, text := range want {
			got, err := c.Receive(t.Context())
			require.NoError(t, err)
			assert.Equal(t, text, got)
		}
		require.NoError(t, c.Send("last"))
		c.Close(1000, "bye")
		c.Close(4000, "too late")
		assert.Error(t, c.Send("closed"))
		got, err := c.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "last", got)
		_, err = c.Receive(t.Context())
		closedWith(t, err, session.Closed, 1000, "bye")
		<-s.Done
		closedWith(t, s.End, session.Closed, 1000, "bye")
	})
}

func TestPipeServerCloses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		after time.Duration // the time before the client reads; -1 means that it never reads
		takes time.Duration
	}{
		{"client reads", 3 * time.Second, 3 * time.Second},
		{"client never reads", -1, 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := serveInMemory(t, transporttest.NewHost(5*time.Second))
				began := time.Now()
				s.Out.Send(fanout.NewFrame([]byte("last words")))
				s.Stop(3001, "shutting down")
				synctest.Wait()
				if tt.after >= 0 {
					time.Sleep(tt.after)
					text, err := c.Receive(t.Context())
					require.NoError(t, err)
					assert.Equal(t, "last words", text)
					_, err = c.Receive(t.Context())
					closedWith(t, err, session.Closed, 3001, "shutting down")
				}
				<-s.Done
				assert.Equal(t, tt.takes, time.Since(began))
				closedWith(t, s.End, session.Stopped, 0, "")
			})
		})
	}
}

// If a client does not read, Write blocks when the small buffer is full, and the Outbox
// disconnects the client.
func TestPipeSlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serveInMemory(t, transporttest.NewHost(5*time.Second))
		began := time.Now()
		for i := range 100 {
			require.True(t, s.Out.Send(fanout.NewFrame(fmt.Append(nil, i))))
		}
		<-s.Done
		assert.Equal(t, 5*time.Second, time.Since(began))
		closedWith(t, s.End, session.Stopped, 0, "")
		for i := range 16 {
			text, err := c.Receive(t.Context())
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(i), text)
		}
		_, err := c.Receive(t.Context())
		closedWith(t, err, session.Lost, 1006, "")
	})
}

func TestPipeWriteTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sess, _ := inmem.Pipe("pipe")
		began := time.Now()
		var err error
		for err == nil {
			err = sess.(fanout.Writer).Write(fanout.TextFrame([]byte("x")), 2*time.Second)
		}
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 2*time.Second, time.Since(began))
	})
}

func TestPipeAborts(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := serveInMemory(t, transporttest.NewHost(5*time.Second))
				if side == "client" {
					c.Abort()
				} else {
					s.Session.Abort()
				}
				<-s.Done
				closedWith(t, s.End, session.Lost, 1006, "")
				_, err := c.Receive(t.Context())
				closedWith(t, err, session.Lost, 1006, "")
				assert.Error(t, c.Send("x"))
			})
		})
	}
}

func TestPipeReceiveHonoursContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := serveInMemory(t, transporttest.NewHost(5*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := c.Receive(ctx)
		assert.True(t, errors.Is(err, context.DeadlineExceeded), err)
		c.Close(1000, "")
		<-s.Done
	})
}

func TestPipeConcurrentEnds(t *testing.T) {
	t.Parallel()
	for i := range 50 {
		synctest.Test(t, func(t *testing.T) {
			s, c := serveInMemory(t, transporttest.NewHost(5*time.Second))
			var wg sync.WaitGroup
			for _, f := range []func(){
				s.Session.Stop, s.Session.Stop, s.Session.Abort, c.Abort,
				func() { s.Stop(3001, "bye") },
				func() { c.Close(1000, "") },
				func() { _ = c.Send("x") },
				func() { _, _ = c.Receive(t.Context()) },
				func() { s.Out.Send(fanout.NewFrame([]byte("y"))) },
			}[i%3:] {
				wg.Go(f)
			}
			wg.Wait()
			s.Stop(3001, "bye")
			<-s.Done
		})
	}
}
