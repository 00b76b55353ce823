package pushy

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
	"github.com/gopushy/pushy/internal/tally"
)

// Stats has the figures of a Server at one moment. Counts begin at zero with New and only grow.
// Package metrics exports them. The keys of its maps never come from a client, and each map has an
// element for every key that is possible.
type Stats struct {
	Connections int
	Channels    int         // with subscribers on this node
	Listeners   int         // of Server.Listen and Server.Subscribe that have not ended
	Buffered    int64       // bytes queued for clients
	Memory      MemoryStats // what Limits.Memory limits
	Published   uint64      // events published on this node that the Broker accepted
	Dropped     uint64      // events not sent to a slow client, see Event.Latest and Event.Droppable
	// Refused counts connections and SockJS bodies by the reason why they were refused: "connections",
	// "address", "memory", "shutdown", "origin", "accept", "banned", "connectRate", "acceptRate",
	// "slow body", "large body" and "other".
	Refused map[string]uint64
	// Keys says how often each secret key was used, SecretKey first. When an old key is not
	// used any more on any node, it can be removed from Options.OldSecretKeys.
	Keys []KeyUse
	// Away is why the Broker cannot be reached, if it implements broker.Health. While it is
	// not nil, this node serves only its own clients.
	Away error

	Opened uint64 // connections that were accepted
	// Closed counts the connections that have ended, by close code. The key 0 has those with codes
	// that PROTOCOL.md, section 3, leaves to applications.
	Closed map[int]uint64
	// Slow is how many connections were disconnected with CloseSlowConsumer by the Server or the host.
	Slow        uint64
	MessagesIn  uint64 // of clients, also those that were refused
	BytesIn     uint64 // of these
	MessagesOut uint64 // passed to transports; the past events of one subscription can count as one
	BytesOut    uint64 // of these and of control frames, in the form of each transport
	Compressed  CompressionStats
	// Deliveries is how often an event, or a change of the members, was queued for a subscriber.
	Deliveries uint64
	// Joins counts subscriptions by outcome: "joined", "resumed" (the client has taken its member
	// over), "denied", "auth-needed", "channel-full", "too-many-channels", "too-many-joins",
	// "already-subscribed", "data-too-large", "unavailable", "disconnected" (meanwhile) and "other".
	Joins map[string]uint64
	// Resumes counts subscriptions for which the client has sent the position of its last event:
	// "recovered" if it receives all events since then, otherwise by the reason that it is told
	// (PROTOCOL.md, section 14), or "other".
	Resumes map[string]uint64
	// BrokerErrors counts the calls of Options.Broker that have failed, by method, such as
	// "append" and "follow", and "other" for those that are not methods of package broker.
	BrokerErrors map[string]uint64
	// BrokerTime has the calls of Options.Broker that wait for its store, also those that have failed.
	BrokerTime Histogram
	// Commands has the time that commands of clients took, by name in lower case: the protocol's own
	// commands and those that the host has registered. "unknown" has all other names.
	Commands map[string]Histogram
	// PublishTime has the time from the moment when this node had an event for its clients until it
	// was written to the socket of the last of them. It is sampled: once each time that the Server
	// writes to many sockets. Sockets that do not accept bytes at once, and SockJS sessions over
	// HTTP, are not in it.
	PublishTime Histogram
}

// CompressionStats has what Options.Compress has done. Each event counts once, or twice if both
// WebSockets with and without SockJS receive it, whatever the number of its receivers.
type CompressionStats struct {
	Events uint64 // that were compressed
	Before uint64 // bytes of the messages of these events
	After  uint64 // bytes of the compressed messages; those of Before where they did not become smaller
}

// Histogram counts durations in buckets.
type Histogram struct {
	// Counts has the number of durations in each bucket: Counts[i] has those over
	// HistogramBounds()[i-1] and at most HistogramBounds()[i], and the last one has no upper bound.
	Counts [12]uint64
	Sum    time.Duration // of all durations
}

// Count returns the number of durations.
func (h Histogram) Count() (n uint64) {
	for _, count := range h.Counts {
		n += count
	}
	return n
}

// HistogramBounds returns the upper bounds of all buckets of a Histogram except the last one, from
// 100 µs to 10 s.
func HistogramBounds() [11]time.Duration { return tally.Bounds }

// Stats returns the Server's figures. Each is read on its own, so they can differ by what
// happened in between. Stats looks at each channel and at each queued message, so it should not be
// called more often than every second or so.
func (s *Server) Stats() Stats {
	channels := 0
	for range s.channels.All() {
		channels++
	}
	hub := s.hub.Counts()
	sent := s.engine.Sent()
	closed := make(map[int]uint64, len(hub.Closed))
	for code, n := range hub.Closed {
		number, _ := strconv.Atoi(code) // 0 for the others
		closed[number] = n
	}
	return Stats{
		Connections:  s.hub.Admission().Len(),
		Channels:     channels,
		Listeners:    s.hub.Listeners(),
		Buffered:     s.engine.Waiting(),
		Memory:       s.memoryStats(),
		Published:    s.hub.Published(),
		Dropped:      s.engine.Dropped(),
		Refused:      s.hub.Admission().Refused(),
		Keys:         s.keyUses.list(),
		Away:         s.hub.Away(),
		Opened:       hub.Opened,
		Closed:       closed,
		Slow:         hub.Slow,
		MessagesIn:   hub.Received,
		BytesIn:      hub.ReceivedBytes,
		MessagesOut:  sent.Messages,
		BytesOut:     sent.Bytes,
		Compressed:   CompressionStats(s.engine.Compressed()),
		Deliveries:   hub.Deliveries,
		Joins:        hub.Joins,
		Resumes:      hub.Resumes,
		BrokerErrors: s.counts.brokerErrors.Load(),
		BrokerTime:   histogramOf(s.counts.brokerTime),
		Commands:     s.counts.commandTimes(),
		PublishTime: Histogram{
			Counts: sent.Delays,
			Sum:    sent.DelaySum,
		},
	}
}

// counts are the figures of the parts that are in this package.
type counts struct {
	brokerErrors *tally.Names
	brokerTime   *tally.Histogram
	commands     *commandTimes
}

// commandTimes has a Histogram for each command. The map is replaced when a command is registered, so
// that running one takes no lock.
type commandTimes struct {
	adding sync.Mutex
	byName atomic.Pointer[map[string]*tally.Histogram]
}

// unknownCommand is the name of all commands that are not registered, and of one of the host that has
// this name.
const unknownCommand = "unknown"

func newCounts() counts {
	c := counts{
		brokerErrors: tally.NewNames("open", "follow", "unfollow", "append", "close", "extend", "read", "tops", "forget",
			"claim", "finish", "release", "list", "nodes"),
		brokerTime: &tally.Histogram{},
		commands:   &commandTimes{},
	}
	c.commands.byName.Store(&map[string]*tally.Histogram{})
	for _, name := range append(pushyjson.Commands(), unknownCommand) {
		c.addCommand(name)
	}
	return c
}

// addCommand makes a command count under its own name, which is in lower case.
func (c counts) addCommand(name string) {
	t := c.commands
	t.adding.Lock()
	defer t.adding.Unlock()
	byName := maps.Clone(*t.byName.Load())
	if byName[name] == nil {
		byName[name] = &tally.Histogram{}
	}
	t.byName.Store(&byName)
}

// command counts a command that a client has sent.
func (c counts) command(name string, began time.Time) {
	var buf [64]byte
	byName := *c.commands.byName.Load()
	took := byName[string(names.AppendLowerASCII(buf[:0], name))]
	if took == nil {
		took = byName[unknownCommand]
	}
	took.Add(time.Since(began))
}

func (c counts) commandTimes() map[string]Histogram {
	byName := *c.commands.byName.Load()
	times := make(map[string]Histogram, len(byName))
	for name, took := range byName {
		times[name] = histogramOf(took)
	}
	return times
}

// brokerCall counts a call of a method of the broker.
func (c counts) brokerCall(method string, began time.Time, err error) {
	name := strings.ToLower(strings.TrimPrefix(method, "Broker."))
	switch name {
	case "away", "ledgersince": // they do not ask the store
		return
	case "open", "close":
	default:
		c.brokerTime.Add(time.Since(began))
	}
	if err != nil && !isAnswer(err) {
		c.brokerErrors.Add(name)
	}
}

// isAnswer reports whether an error of a broker is an answer to what was asked, and no failure.
func isAnswer(err error) bool {
	for _, answer := range []error{
		broker.ErrNotOwner, broker.ErrMemberExists, broker.ErrTooLarge, broker.ErrEpoch, errors.ErrUnsupported,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

func histogramOf(h *tally.Histogram) Histogram {
	counts, sum := h.Load()
	return Histogram{
		Counts: counts,
		Sum:    sum,
	}
}
