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
)

// pausedBroker delivers when it is let, and fails to close.
type pausedBroker struct {
	deliver func(string, pushy.Message)
	entered chan struct{}
	release chan struct{}
}

var errBrokerClose = errors.New("the broker cannot close")

func (b *pausedBroker) Open(_ context.Context, deliver func(string, pushy.Message)) error {
	b.deliver = deliver
	return nil
}

func (b *pausedBroker) Publish(_ context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	close(b.entered)
	<-b.release
	b.deliver(channel, m)
	return pushy.None, nil
}

func (b *pausedBroker) Subscribe(context.Context, string) error   { return nil }
func (b *pausedBroker) Unsubscribe(context.Context, string) error { return nil }
func (b *pausedBroker) Close() error                              { return errBrokerClose }

// What was accepted before a Shutdown reaches who was subscribed before it.
func TestShutdownWaitsForPublishes(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(t *testing.T) {
		b := &pausedBroker{entered: make(chan struct{}), release: make(chan struct{})}
		srv := startServer(t, pushy.Options{Broker: b, Presence: pushy.NewLocalPresence()})
		p := connectPeer(t, srv)
		p.subscribe("a", "")
		published, ended := make(chan error, 1), make(chan error, 1)
		go func() { published <- srv.Publish(context.Background(), "a", "e", 1) }()
		<-b.entered
		go func() { ended <- srv.Shutdown(context.Background()) }()
		synctest.Wait()
		assert.ErrorIs(t, srv.Publish(context.Background(), "a", "e", 2), pushy.ErrClosed)
		close(b.release)
		require.NoError(t, <-published)
		f := p.next()
		assert.Equal(t, "e", f.Event)
		assert.Equal(t, pushy.CloseShutdown, p.ended().Code)
		assert.ErrorIs(t, <-ended, errBrokerClose)
	})
}

func TestCloseTellsTheBrokersError(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Broker: &pausedBroker{}, Presence: pushy.NewLocalPresence()})
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
