package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// record is the data of a member of the reserved log. Each node adds one for itself, one for each
// channel that it has open, and one for each membership or connection. If the node fails, they
// leave the log when its lease expires, so the other nodes report what it cannot report.
type record struct {
	Version  int             `json:"v"`
	Kind     kind            `json:"kind"`
	Channel  string          `json:"channel,omitempty"`
	ID       string          `json:"id,omitempty"` // of a member, a connection or a node
	User     string          `json:"user,omitempty"`
	Identity string          `json:"identity,omitempty"` // equal for all members of a user
	Member   json.RawMessage `json:"member,omitempty"`   // as clients see it

	// Events happened on the node; they are of kindEvents. Lost and TooLarge are the numbers of
	// those that are not among them, because too many waited or because of their size.
	Events   []event `json:"events,omitempty"`
	Lost     int     `json:"lost,omitempty"`
	TooLarge int     `json:"tooLarge,omitempty"`
}

// ending is the state of a member of the log that is about to leave.
type ending struct {
	Reason string `json:"reason,omitempty"`
	Code   int    `json:"code,omitempty"`
}

type kind string

const (
	kindNode       kind = "node"
	kindChannel    kind = "channel"
	kindMember     kind = "member"
	kindConnection kind = "connection"
	kindEvents     kind = "events"
)

const recordVersion = 1

const (
	workers       = 16
	appendTimeout = 10 * time.Second
	appendPause   = time.Second
)

// writer makes the reserved log have what this node wants it to have. A broker that is away
// delays that and nothing is lost by it, except that a record which came and went meanwhile
// never appears.
type writer struct {
	broker  broker.Broker
	channel string
	node    string
	owner   string
	local   bool // no call of the broker blocks
	failed  func(kind string, err error)
	refused func() // called for each record that is too large for the broker
	seed    maphash.Seed

	mu     sync.Mutex
	own    map[string]*owned // by id in the log
	shards [workers]shard
}

// owned is a record that this node wants in the log, or that it has to remove.
type owned struct {
	data   json.RawMessage
	user   string
	wanted bool
	ending ending
	inLog  bool
	queued bool
	once   bool // it is not written again if it is missing in the log
	shard  int  // always the same, so that its changes are written in order
}

type shard struct {
	ids  []string
	wake chan struct{} // has an element when there are ids
}

func newWriter(b broker.Broker, channel, node, owner string, local bool) *writer {
	w := &writer{
		broker:  b,
		channel: channel,
		node:    node,
		owner:   owner,
		local:   local,
		seed:    maphash.MakeSeed(),
		own:     map[string]*owned{},
	}
	for i := range w.shards {
		w.shards[i].wake = make(chan struct{}, 1)
	}
	return w
}

// id returns the id of a record in the log.
func (w *writer) id(k kind, parts ...string) string { return recordID(k, w.node, parts...) }

func recordID(k kind, node string, parts ...string) string {
	h := sha256.New()
	h.Write([]byte(k))
	for _, p := range append([]string{node}, parts...) {
		h.Write([]byte{0})
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// add adds a record to the log.
func (w *writer) add(id string, r record) {
	w.mu.Lock()
	o := w.wantLocked(id, r)
	if o == nil {
		w.mu.Unlock()
		return
	}
	w.changedLocked(id, o)
	w.mu.Unlock()
	w.now(id)
}

// wantLocked makes r a record that is to be in the log. It returns nil if that is not possible.
func (w *writer) wantLocked(id string, r record) *owned {
	r.Version = recordVersion
	data, err := jsvalue.Encode(r) // json.Marshal would make < six bytes long
	if err != nil {
		w.failed("cannot encode a webhook", err)
		return nil
	}
	o := w.own[id]
	if o == nil {
		o = &owned{shard: w.shardLocked(id, r)}
		w.own[id] = o
	}
	o.wanted = true
	o.data = data
	o.user = r.User
	o.ending = ending{}
	return o
}

// shardLocked returns the shard of a new record. A member of a channel whose own record is not in the log
// yet has the shard of that record, so that a channel is occupied before members join it.
func (w *writer) shardLocked(id string, r record) int {
	if r.Kind == kindMember && !w.local {
		if ch := w.own[w.id(kindChannel, r.Channel)]; ch != nil && !ch.inLog {
			return ch.shard
		}
	}
	return int(maphash.String(w.seed, id) % workers)
}

// want makes r a record that is to be in the log once. The caller calls write.
func (w *writer) want(id string, r record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.wantLocked(id, r); o != nil {
		o.once = true
	}
}

// remove removes a record from the log.
func (w *writer) remove(id string, why ending) {
	w.mu.Lock()
	o := w.own[id]
	if o == nil {
		w.mu.Unlock()
		return
	}
	o.wanted = false
	o.ending = why
	w.changedLocked(id, o)
	w.mu.Unlock()
	w.now(id)
}

func (w *writer) changedLocked(id string, o *owned) {
	if w.local || o.queued {
		return
	}
	o.queued = true
	s := &w.shards[o.shard]
	s.ids = append(s.ids, id)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// now writes a change at once if the broker cannot block, so that nothing is left when the
// broker is closed.
func (w *writer) now(id string) {
	if !w.local {
		return
	}
	err := w.write(context.Background(), id)
	switch {
	case err == nil, errors.Is(err, broker.ErrClosed):
	case errors.Is(err, broker.ErrTooLarge):
		w.drop(id, err)
	default:
		w.failed("cannot log a webhook", err)
	}
}

// work writes the changes of one shard until ctx ends. Those of one record are written in order.
func (w *writer) work(ctx context.Context, n int) {
	s := &w.shards[n]
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		for {
			w.mu.Lock()
			if len(s.ids) == 0 {
				s.ids = nil
				w.mu.Unlock()
				break
			}
			id := s.ids[0]
			s.ids = s.ids[1:]
			w.own[id].queued = false
			w.mu.Unlock()
			if w.retry(ctx, id) != nil {
				return
			}
		}
	}
}

// retry tries until a change is written, or ctx ends.
func (w *writer) retry(ctx context.Context, id string) error {
	for {
		if w.try(ctx, id) {
			return nil
		}
		select {
		case <-time.After(appendPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try writes a change. It returns false if that is to be tried again.
func (w *writer) try(ctx context.Context, id string) bool {
	err := w.write(ctx, id)
	switch {
	case err == nil:
		return true
	case errors.Is(err, broker.ErrTooLarge):
		w.drop(id, err)
		return true
	case !errors.Is(err, broker.ErrAway) && ctx.Err() == nil:
		w.failed("cannot log a webhook; pushy retries", err)
	}
	return false
}

// drop gives up a record that the broker does not accept.
func (w *writer) drop(id string, err error) {
	w.failed("a webhook is too large for the broker, and is lost", err)
	w.mu.Lock()
	if o := w.own[id]; o != nil && !o.inLog && !o.queued {
		delete(w.own, id)
	}
	w.mu.Unlock()
	w.refused()
}

// write makes the log agree with one record.
func (w *writer) write(ctx context.Context, id string) error {
	for {
		w.mu.Lock()
		o := w.own[id]
		if o == nil || o.wanted == o.inLog {
			if o != nil && !o.wanted && !o.queued {
				delete(w.own, id)
			}
			w.mu.Unlock()
			return nil
		}
		want := *o
		w.mu.Unlock()
		if err := w.append(ctx, id, want); err != nil {
			return err
		}
		w.mu.Lock()
		o.inLog = want.wanted
		w.mu.Unlock()
	}
}

func (w *writer) append(ctx context.Context, id string, o owned) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if o.wanted {
		_, err := w.broker.Append(ctx, w.channel, broker.Entry{
			Kind:   broker.Join,
			Member: id,
			Owner:  w.owner,
			Data:   o.data,
			User:   o.user,
			Joined: time.Now(),
		})
		return err
	}
	if o.ending != (ending{}) {
		state, err := json.Marshal(o.ending)
		if err == nil {
			_, err = w.broker.Append(ctx, w.channel, broker.Entry{
				Kind:   broker.Update,
				Member: id,
				Owner:  w.owner,
				Data:   o.data,
				State:  state,
			})
		}
		if err != nil && !errors.Is(err, broker.ErrNotOwner) {
			return err
		}
	}
	_, err := w.broker.Append(ctx, w.channel, broker.Entry{
		Kind:   broker.Leave,
		Member: id,
		Owner:  w.owner,
	})
	if errors.Is(err, broker.ErrNotOwner) {
		return nil // the lease of this node had expired
	}
	return err
}

// reset compares a State of the log with what this node wants.
func (w *writer) reset(s broker.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	inLog := map[string]bool{}
	for _, m := range s.Members {
		if m.Owner != w.owner {
			continue
		}
		inLog[m.ID] = true
		if w.own[m.ID] == nil {
			w.own[m.ID] = &owned{
				data:  m.Data,
				shard: w.shardLocked(m.ID, record{}),
			}
		}
	}
	compare := func(id string, o *owned) {
		if o.once && o.inLog && !inLog[id] {
			o.wanted = false // it was in the log, so the other nodes have received it
		}
		o.inLog = inLog[id]
		if o.inLog != o.wanted {
			w.changedLocked(id, o)
		}
	}
	// The record of the node is the first, because what leaves the log without it was lost with the node.
	if id := w.id(kindNode); w.own[id] != nil {
		compare(id, w.own[id])
	}
	for id, o := range w.own {
		compare(id, o)
	}
}

func (s *Sender) logFailed(kind string, err error) {
	s.notices.Warn(kind, s.opts.Name, slog.Any("error", err))
}
