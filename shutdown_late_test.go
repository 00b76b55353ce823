package pushy_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

var errBrokerClose = errors.New("the broker cannot close")

// cannotClose is a broker that fails to close.
func cannotClose(b *memory.Broker) *altered {
	return &altered{
		Broker: b,
		close:  func(ctx context.Context) error { return errors.Join(b.Close(ctx), errBrokerClose) },
	}
}

// What was accepted before a Shutdown reaches who was subscribed before it.
func TestShutdownWaitsForPublishes(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		b := cannotClose(memory.New())
		entered, release := make(chan struct{}), make(chan struct{})
		b.append = func(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
			close(entered)
			<-release
			return b.Broker.Append(ctx, channel, e)
		}
		srv := startOn(t, b, pushy.Options{})
		p := connectPeer(t, srv)
		p.subscribe("a", "")
		published, ended := make(chan error, 1), make(chan error, 1)
		go func() { published <- srv.Publish(context.Background(), "a", "e", 1) }()
		<-entered
		go func() { ended <- srv.Shutdown(context.Background()) }()
		synctest.Wait()
		assert.ErrorIs(t, srv.Publish(context.Background(), "a", "e", 2), pushy.ErrClosed)
		close(release)
		require.NoError(t, <-published)
		f := p.next()
		assert.Equal(t, "e", f.Event)
		assert.Equal(t, pushy.CloseShutdown, p.ended().Code)
		assert.ErrorIs(t, <-ended, errBrokerClose)
	})
}

func TestCloseTellsTheBrokersError(t *testing.T) {
	t.Parallel()
	srv := startOn(t, cannotClose(memory.New()), pushy.Options{})
	assert.ErrorIs(t, srv.Close(), errBrokerClose)
}

// A channel's hook that does not return is left behind, as others are.
func TestShutdownDeadlineWithHangingChannelHook(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		srv := startServer(t, pushy.Options{Hooks: pushy.Hooks{ChannelVacated: func(*pushy.Channel) { <-release }}})
		p := connectPeer(t, srv)
		p.subscribe("a", "")
		go p.ended()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		assert.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
		assert.Less(t, time.Since(began), 5*time.Second)
	})
}

// Close promises that no close frame is sent, also if it takes a while between two of its steps.
func TestCloseSendsNoCloseFrame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := startServer(t, pushy.Options{})
		pipe, client := inmem.Pipe("websocket")
		srv.Connect(lateSession{
			Session: pipe,
			writer:  pipe.(fanout.Writer),
		}, nil)
		p := &peer{t: t, Client: client}
		p.next()
		require.NoError(t, srv.Close())
		assert.Equal(t, session.Lost, p.ended().Cause)
	})
}
