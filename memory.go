package pushy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// ErrOverloaded is returned by Publish and Ready while the Server uses more than 90 % of
// Limits.Memory. The event was not published. It can be published again later.
var ErrOverloaded = errors.New("pushy: overloaded: Limits.Memory is nearly reached")

// MemoryStats has the memory, in bytes, that a Server uses for its clients, see Limits.Memory.
// The figures are estimates; they contain neither the memory of connections without queued bytes
// nor that of the Broker.
type MemoryStats struct {
	// Outboxes is what is queued for clients. An event that many clients wait for counts once, in
	// each form in which their transports need it.
	Outboxes int64
	Reading  int64 // messages and bodies that have arrived in part, or wait for other commands
	Members  int64 // members of private channels, on all nodes
	Kept     int64 // events that channels keep, see Options.MaxKept
	Queued   int64 // joins and leaves that the Broker has not accepted yet
	// Listeners is what is queued for Listeners (Server.Listen), with an event that several wait for
	// counted once, and 250 bytes more for each of them.
	Listeners int64
	Limit     int64 // Limits.Memory; 0 if it is off
}

// Total returns the sum of the parts.
func (m MemoryStats) Total() int64 {
	return m.Outboxes + m.Reading + m.Members + m.Kept + m.Queued + m.Listeners
}

const (
	// minMemory is the least Limits.Memory. Less can only be a number without its unit.
	minMemory = 1 << 20

	memoryPace = 100 * time.Millisecond
	// The stages of Limits.Memory, in percent, and how far the use must fall for a stage to end.
	memoryLow      = 80
	memoryOverload = 90
	memoryFull     = 100
	memoryReturn   = 5
	// shedPart is the part of the queued bytes that is released at once at memoryFull. Clients
	// that wait for the same events share the memory, so it may be necessary several times.
	shedPart   = 8
	shedsAtOne = 16
	// frameForms is how often the bytes of an event that one client waits for are in memory: as
	// text, and in the form of the client's transport.
	frameForms = 2
)

// memoryGuard keeps the memory of a Server below Limits.Memory.
type memoryGuard struct {
	reading    atomic.Int64 // bodies and messages that are being read
	overloaded atomic.Bool
	low        bool // only the goroutine uses it
}

func defaultMemory() int64 {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 || limit/4*3 < minMemory {
		return -1
	}
	return limit / 4 * 3
}

// guardMemory starts the goroutine that measures.
func (s *Server) guardMemory() {
	if s.opts.Limits.Memory <= 0 {
		return
	}
	s.hub.Go(func(ctx context.Context) {
		wait := memoryPace
		for {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			begun := time.Now()
			s.limitMemory()
			// A census of very many frames must not take more than a tenth of a processor.
			wait = max(memoryPace, 10*time.Since(begun))
		}
	})
}

// memoryStats returns the present figures.
func (s *Server) memoryStats() MemoryStats {
	return s.measureMemory(s.engine.Census())
}

func (s *Server) measureMemory(outboxes int64) MemoryStats {
	m := s.hub.Memory()
	return MemoryStats{
		Outboxes:  outboxes,
		Reading:   s.memory.reading.Load(),
		Members:   m.Members,
		Kept:      m.Kept,
		Queued:    m.Queued,
		Listeners: s.hub.ListenerBytes(),
		Limit:     max(0, s.opts.Limits.Memory),
	}
}

// limitMemory measures, and does what the stage demands.
func (s *Server) limitMemory() {
	m := s.measureMemory(frameForms * s.engine.Waiting()) // at most that
	if s.memoryPercent(m) < memoryLow-memoryReturn {
		s.setMemoryStage(m)
		return
	}
	m.Outboxes = s.engine.Census()
	if m.Kept > 0 && s.memoryPercent(m) >= memoryLow {
		channels := s.hub.FreeKept()
		s.warnOfMemory("memory is low: kept events were freed, and clients that reconnect are served from the broker", m,
			slog.Int("channels", channels))
		m = s.measureMemory(m.Outboxes)
	}
	s.setMemoryStage(m) // before connections are closed, also if no measurement saw the stages before
	s.setMemoryStage(s.shedMemory(m))
}

// shedMemory closes the connections, and ends the Listeners, with the most queued bytes if the memory is
// full. It returns the figures after that.
func (s *Server) shedMemory(m MemoryStats) MemoryStats {
	closed, ended := 0, 0
	for range shedsAtOne {
		if s.memoryPercent(m) < memoryFull {
			break
		}
		if m.Listeners > m.Outboxes {
			if !s.hub.EndBusiestListener() {
				break
			}
			ended++
		} else {
			n := s.engine.Shed(max(1, s.engine.Waiting()/shedPart))
			if n == 0 {
				break
			}
			closed += n
		}
		m = s.measureMemory(s.engine.Census())
	}
	if closed > 0 {
		s.warnOfMemory("memory is full: the connections with the most queued bytes were closed", m,
			slog.Int("connections", closed))
	}
	if ended > 0 {
		s.warnOfMemory("memory is full: the Listeners with the most queued bytes were ended", m,
			slog.Int("listeners", ended))
	}
	return m
}

// memoryPercent returns the part of Limits.Memory that is in use.
func (s *Server) memoryPercent(m MemoryStats) int {
	return int(float64(m.Total()) / float64(s.opts.Limits.Memory) * 100)
}

// setMemoryStage refuses new connections and publishes, or stops to do so.
func (s *Server) setMemoryStage(m MemoryStats) {
	g := &s.memory
	used := s.memoryPercent(m)
	if low := passes(used, memoryLow, g.low); low != g.low {
		g.low = low
		s.hub.SetLowMemory(low)
		if low {
			s.warnOfMemory("memory is low: new connections are refused", m)
		} else {
			s.log.Info("there is memory again: connections are accepted")
		}
	}
	if over := passes(used, memoryOverload, g.overloaded.Load()); over != g.overloaded.Load() {
		g.overloaded.Store(over)
		if over {
			s.warnOfMemory("memory is nearly full: events are not published", m)
		} else {
			s.log.Info("there is memory again: events are published")
		}
	}
}

// passes reports whether a stage begins or goes on.
func passes(used, stage int, on bool) bool {
	if on {
		stage -= memoryReturn
	}
	return used >= stage
}

func (s *Server) warnOfMemory(kind string, m MemoryStats, attrs ...slog.Attr) {
	s.notices.Warn(kind, "", append(attrs,
		slog.Int64("used", m.Total()),
		slog.Int64("limit", s.opts.Limits.Memory),
		slog.Int64("outboxes", m.Outboxes),
		slog.Int64("reading", m.Reading),
		slog.Int64("members", m.Members),
		slog.Int64("kept", m.Kept),
		slog.Int64("queued", m.Queued),
		slog.Int64("listeners", m.Listeners),
		slog.String("hint", "raise Options.Limits.Memory and GOMEMLIMIT, add servers, "+
			"or lower Limits.ConnBuffer, Limits.Members or ChannelOptions.Keep"))...)
}

// Ready returns why load balancers should send no clients and publishers to this Server now, or
// nil: ErrClosed after Shutdown has begun, and ErrOverloaded while the Server uses more than 90 %
// of Limits.Memory. A Broker that cannot be reached is no reason, because the Server still serves
// its clients; see Stats.Away.
func (s *Server) Ready() error {
	switch {
	case s.hub.Stopping():
		return ErrClosed
	case s.memory.overloaded.Load():
		return fmt.Errorf("%w", ErrOverloaded)
	}
	return nil
}

// countedBody counts the bytes of a request's body while the request is handled.
type countedBody struct {
	io.ReadCloser
	reading *atomic.Int64
	n       int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	b.reading.Add(int64(n))
	return n, err
}

// countBody makes the body of r count as memory until release is called.
func (s *Server) countBody(r *http.Request) (counted *http.Request, release func()) {
	if s.opts.Limits.Memory <= 0 || r.Body == nil || r.Body == http.NoBody {
		return r, func() {}
	}
	body := &countedBody{
		ReadCloser: r.Body,
		reading:    &s.memory.reading,
	}
	counted = new(http.Request)
	*counted = *r
	counted.Body = body
	return counted, func() { s.memory.reading.Add(-body.n) }
}
