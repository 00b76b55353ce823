package pushy

import (
	"context"
	"errors"
	"time"

	"github.com/gopushy/pushy/internal/lifecycle"
)

const (
	shutdownSpread = 5 * time.Second // at most, over which clients are told
	shutdownBatch  = 500             // connections told at once
	cutGrace       = time.Second     // for hooks to run after the deadline
)

// Shutdown ends the Server. New connections and triggers are refused with 503;
// every connection is closed with code 3001 (1012 on bare WebSockets), in batches over
// at most 5 s or half the time that ctx has; what was queued for it is still written. When it
// returns nil all Disconnect hooks have run and Broker and PresenceStore are
// closed. If ctx ends first, the remaining connections are closed without a
// goodbye, the hooks run all the same, and it returns ctx's error. A second call
// waits for the first. A client has 5 s to answer the goodbye, so give ctx more
// than that.
//
// Shutdown waits for the commands and hooks that run. One that calls it would wait
// for itself until ctx ends, so it should call Shutdown in a new goroutine.
//
// Call it before http.Server.Shutdown, which does not know of WebSockets and
// waits for streams.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.door.Close() {
		s.endErr = s.shutdown(ctx)
		close(s.ended)
	}
	if err := lifecycle.Wait(ctx, s.ended); err != nil {
		return err
	}
	return s.endErr
}

// Close ends the Server at once: every connection is closed without a goodbye, and
// a Shutdown under way waits no longer. The Disconnect hooks have run when it
// returns, except that it waits only a second or two for commands and hooks that
// do not return, such as its own caller.
func (s *Server) Close() error {
	s.closeNow()
	err := s.Shutdown(context.Background())
	if errors.Is(err, errCut) {
		return s.closeErr
	}
	return err
}

var errCut = errors.New("pushy: connections were cut by Close")

func (s *Server) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.closed, func() { cancel(errCut) })()
	if s.closed.Err() != nil {
		cancel(errCut) // without waiting for the AfterFunc
	}
	idle := s.tasks.Close()
	// What is accepted is queued before the outboxes close.
	if lifecycle.Wait(ctx, s.publishes.Close()) == nil && s.tell(ctx) {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
	err := context.Cause(ctx)
	if err != nil {
		s.cut(idle)
	}
	giveUp := context.AfterFunc(ctx, s.cancel) // Broker and store are not waited for either
	channels := lifecycle.Each(s.channels.entries(), func(ch *Channel) { ch.life.EndLinger() })
	if lifecycle.Wait(ctx, channels) != nil && !lifecycle.Within(cutGrace, channels) {
		s.log.Error("channel hooks still run after the shutdown's deadline")
	}
	giveUp()
	if err == nil {
		err = context.Cause(ctx)
	}
	s.cancel()
	if err == nil {
		s.engine.Wait()
	}
	s.closeErr = errors.Join(s.presence.Close(), s.broker.Close())
	return errors.Join(err, s.closeErr)
}

// tell closes all connections, in batches: clients that all come back at the
// same moment would fell the next server. It reports whether ctx let it.
func (s *Server) tell(ctx context.Context) bool {
	spread := shutdownSpread
	if deadline, ok := ctx.Deadline(); ok {
		spread = min(spread, time.Until(deadline)/2)
	}
	return lifecycle.Spread(ctx, s.door.All(), shutdownBatch, spread, func(c *connection) {
		c.end(CloseShutdown, "server shutting down")
	})
}

// cut ends what is left without a word. It cleans up for readers that a command
// holds up. The Broker and PresenceStore have half the grace for what is under way,
// so that the hooks that wait for them run; a hook that does not return is left
// behind after all of it.
func (s *Server) cut(idle <-chan struct{}) {
	s.cutRest()
	defer time.AfterFunc(cutGrace/2, s.cancel).Stop()
	conns := s.door.All()
	for _, c := range conns {
		c.abort(CloseShutdown, "server shutting down")
	}
	if !lifecycle.Within(cutGrace, lifecycle.Each(conns, (*connection).finish), idle) {
		s.log.Error("commands or hooks still run after the shutdown's deadline")
	}
}
