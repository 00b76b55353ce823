package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/gopushy/pushy/internal/lifecycle"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/wire"
)

// ErrNotMember is returned for a connection that is not in the channel.
var ErrNotMember = errors.New("pushy: not a member of the channel")

// JoinError is a subscription that is refused; the client gets its Reason with
// pushy:subscription-failed (PROTOCOL.md, section 3).
type JoinError struct {
	Channel string
	Reason  string
	Code    string // of an *Error that an Authorizer returned, or ""
	Err     error  // for the host: of the Broker or PresenceStore, or about the presence data; or nil
}

func (e *JoinError) Error() string {
	s := "pushy: join " + e.Channel + ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *JoinError) Unwrap() error { return e.Err }

// Channels is a Server's channels that have subscribers on this node. A
// command gets one that always belongs to that command: what its Join and Leave
// send to the client carries the command's id. Server.Channels returns one that
// belongs to no command. All methods are safe for concurrent use.
type Channels struct {
	*registry
	id json.RawMessage // of the command; nil without one
}

type registry struct {
	srv *Server
	mu  sync.RWMutex
	all map[string]*Channel // by lower-cased name
}

// Lookup returns the channel of that name, in any case, if it has subscribers
// on this node.
func (cs *Channels) Lookup(name string) (*Channel, bool) {
	lower, err := names.Channel(name)
	if err != nil {
		return nil, false
	}
	ch := cs.find(lower)
	if ch == nil || ch.Len() == 0 {
		return nil, false
	}
	return ch, true
}

// All yields the channels that have subscribers on this node, in no order.
func (cs *Channels) All() iter.Seq[*Channel] {
	return func(yield func(*Channel) bool) {
		for _, ch := range cs.entries() {
			if ch.Len() > 0 && !yield(ch) {
				return
			}
		}
	}
}

// Join makes conn a member of a channel without asking the Authorizer: who
// calls it has decided. data is presence data for a private channel, nil for
// none, and ignored for others. The client gets pushy:subscription-success
// before Join returns nil, and nothing when it fails. The error is an *Error
// (301, 302), a *JoinError or ErrClosed. It waits for Broker and PresenceStore,
// as long as conn lives.
func (cs *Channels) Join(conn *Conn, name string, data json.RawMessage) error {
	lower, err := cs.srv.channelName(name)
	switch {
	case errors.Is(err, names.ErrNotChecked):
		return errInternal
	case err != nil:
		return errInvalidChannel
	}
	return cs.join(conn.connection, lower, data, cs.id)
}

// Leave ends conn's membership; the client gets pushy:subscription-end. A join
// that is under way ends as soon as it is through. The error is ErrNotMember.
func (cs *Channels) Leave(conn *Conn, name string) error {
	lower, err := names.Channel(name)
	if err != nil {
		return ErrNotMember
	}
	sub := conn.subscription(lower)
	end := wire.Object(nil).Text("channel", lower)
	if sub == nil || conn.srv != cs.srv || !sub.leaveSoon(replyFrame(eventEnd, end, cs.id)) {
		return ErrNotMember
	}
	return nil
}

// entries returns the channels in whatever state.
func (r *registry) entries() []*Channel {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.all))
}

func (r *registry) find(lower string) *Channel {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.all[lower]
}

// acquire returns the open channel of that name and holds it: it stays open
// until its life is released. It waits for Broker and PresenceStore as long as
// ctx allows.
func (r *registry) acquire(ctx context.Context, name string) (*Channel, error) {
	for {
		ch := r.entry(name)
		held, err := ch.life.Acquire(ctx)
		if held || err != nil {
			return ch, err
		}
		r.drop(ch)
	}
}

func (r *registry) entry(name string) *Channel {
	if ch := r.find(name); ch != nil {
		return ch
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := r.all[name]
	if ch == nil {
		ch = &Channel{reg: r, name: name, private: names.Private(name)}
		ch.life = lifecycle.New(lifecycle.Plan{
			Open: ch.open, Close: ch.close, Gone: func() { r.drop(ch) },
			Linger: r.srv.linger, Run: r.srv.background,
		})
		r.all[name] = ch
	}
	return ch
}

// drop takes an entry that is gone out of the registry.
func (r *registry) drop(ch *Channel) {
	r.mu.Lock()
	if r.all[ch.name] == ch {
		delete(r.all, ch.name)
	}
	r.mu.Unlock()
}
