package hub

import (
	"context"
	"errors"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/lifecycle"
)

const (
	abortGrace     = time.Second // the time for hooks to return after the deadline
	shutdownReason = "server shutting down"
)

// Shutdown ends the Hub. All connections are closed with CloseShutdown, see drain; what is
// queued for them is still written. When it returns nil, all hooks have run and the broker is closed. If ctx ends
// first, the remaining connections are closed without a close frame, their hooks run, and
// Shutdown returns the error of ctx. A second call waits for the first.
func (h *Hub) Shutdown(ctx context.Context) error {
	if h.admission.close() {
		h.endErr = h.shutdown(ctx)
		close(h.ended)
	}
	if err := lifecycle.Wait(ctx, h.ended); err != nil {
		return err
	}
	return h.endErr
}

// Close ends the Hub at once. All connections are closed without a close frame, and a
// Shutdown that is in progress stops waiting. The Disconnect hooks have run when Close
// returns, unless a command or hook does not return, for example because it called Close:
// Close waits for those at most about 2 s.
func (h *Hub) Close() error {
	h.closeNow()
	err := h.Shutdown(context.Background())
	if errors.Is(err, errAborted) {
		return h.closeErr
	}
	return err
}

var errAborted = errors.New("connections were aborted by Close")

func (h *Hub) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(h.closed, func() { cancel(errAborted) })()
	if h.closed.Err() != nil {
		cancel(errAborted) // without waiting for the AfterFunc
	}
	h.stop()
	drain := h.newDrain(ctx)
	drain.extendLease(ctx)
	idle := h.tasks.Close()
	// Events that Publish has accepted must be queued before the outboxes are closed.
	published := lifecycle.Wait(ctx, h.publishes.Close()) == nil
	h.endListeners()
	drained := published && drain.run(ctx)
	served := h.serving.Close() // not earlier: until its connection is closed, a client is served as before
	if drained && lifecycle.Wait(ctx, idle) == nil {
		_ = lifecycle.Wait(ctx, served) // ctx has the error
	}
	err := context.Cause(ctx)
	if err != nil {
		h.abortAll(idle, served)
	}
	giveUp := context.AfterFunc(ctx, h.cancel) // after the deadline, do not wait for the broker either
	channels := lifecycle.Each(h.Channels(), func(ch *Channel) {
		ch.letGo()
		ch.life.endLingerAndWait()
	})
	if lifecycle.Wait(ctx, channels) != nil && !lifecycle.Within(abortGrace, channels) {
		h.cfg.Log.Error("channel hooks still run after the shutdown's deadline")
	}
	giveUp()
	if err == nil {
		err = context.Cause(ctx)
	}
	h.cancel()
	if err == nil {
		h.cfg.Engine.Wait()
	} else { // a flusher can be waiting for more events, or in a write, which ends soon
		lifecycle.Within(abortGrace, lifecycle.Each([]*fanout.Engine{h.cfg.Engine}, (*fanout.Engine).Wait))
	}
	h.closeErr = h.closeBroker()
	return errors.Join(err, h.closeErr)
}

var errBrokerHangs = errors.New("a method of the Broker did not return although its context has ended")

// closeBroker closes the broker when no call of the backlog is under way. If the broker
// ignores the end of its context, closeBroker waits for it no longer than abortGrace.
func (h *Hub) closeBroker() error {
	ctx, cancel := context.WithTimeout(context.Background(), h.cfg.Timeout)
	defer cancel()
	var err error
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		h.backlog.wait()
		err = h.cfg.Broker.Close(ctx)
	}()
	if lifecycle.Wait(ctx, closed) != nil && !lifecycle.Within(abortGrace, closed) {
		return errBrokerHangs
	}
	return err
}

// abortAll closes the remaining connections without a close frame, and cleans up for readers
// that a command blocks. Calls of the broker that are in progress have half of abortGrace,
// so that hooks that wait for them can run. abortAll does not wait longer than abortGrace
// for a hook that does not return.
func (h *Hub) abortAll(idle, served <-chan struct{}) {
	defer time.AfterFunc(abortGrace/2, h.cancel).Stop()
	h.abortRest()
	conns := h.admission.all()
	for _, c := range conns {
		c.abort(CloseShutdown, shutdownReason)
	}
	if !lifecycle.Within(abortGrace, lifecycle.Each(conns, (*Conn).finish), idle, served) {
		h.cfg.Log.Error("commands or hooks still run after the shutdown's deadline")
	}
}
