package webhook

import (
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/jsvalue"
)

// Fill pushes n events of a size into a queue that nobody empties, and then takes all of them. It
// returns the number of events that the queue kept, and what the EventsLost say.
func Fill(n, size int) (kept, lost int) {
	q := newQueue(func(count int, _ string) item { return item{json: []byte("{}"), count: -count} })
	for range n {
		q.push(item{json: make([]byte, size), count: 1})
	}
	for {
		items, _ := q.batch(time.Now(), true)
		if len(items) == 0 {
			return kept, lost
		}
		for _, it := range items {
			if it.count < 0 {
				lost -= it.count
			} else {
				kept++
			}
		}
		q.done(len(items))
	}
}

// Log is the log of a cluster as one node follows it, without a broker.
type Log struct {
	Events int // that were emitted
	Bytes  int // of the entries
	view   *view
	n      uint64
}

// NewLog returns an empty log that another node writes.
func NewLog() *Log {
	l := &Log{view: newView("here", defaultDelay)}
	l.view.wants = map[string]bool{ChannelOccupied: true, ChannelVacated: true, MemberJoined: true, MemberLeft: true}
	l.view.emit = func(item) { l.Events++ }
	l.view.skipped = func(kind string, err error) { panic(kind + ": " + err.Error()) }
	// What run does when it is woken, which is for each entry at most.
	l.view.changed = func() {
		l.view.sender()
		l.view.settled()
	}
	l.view.begin(broker.State{Revision: broker.Position{Epoch: "e"}})
	for _, node := range []string{"here", "there"} {
		l.join(node, record{
			Kind: kindNode,
			ID:   node,
		})
	}
	return l
}

// Open adds a channel.
func (l *Log) Open(channel string) {
	l.join(recordID(kindChannel, "there", channel), record{
		Kind:    kindChannel,
		Channel: channel,
	})
}

// Join adds a member.
func (l *Log) Join(channel, member, user string, shown []byte) {
	l.join(recordID(kindMember, "there", channel, member), record{
		Kind:     kindMember,
		Channel:  channel,
		ID:       member,
		User:     user,
		Identity: "u:" + user,
		Member:   shown,
	})
}

// Leave removes a member.
func (l *Log) Leave(channel, member string) {
	id := recordID(kindMember, "there", channel, member)
	l.deliver(broker.Entry{
		Kind:   broker.Update,
		Member: id,
		State:  []byte(`{"reason":"left"}`),
	})
	l.deliver(broker.Entry{
		Kind:   broker.Leave,
		Member: id,
	})
}

// Pass makes what waits for the delay happen.
func (l *Log) Pass() {
	l.view.finish()
	l.view.hurry = false
}

func (l *Log) join(id string, r record) {
	r.Version = recordVersion
	data, err := jsvalue.Encode(r)
	if err != nil {
		panic(err)
	}
	l.deliver(broker.Entry{
		Kind:   broker.Join,
		Member: id,
		Owner:  "owner",
		Data:   data,
	})
}

func (l *Log) deliver(e broker.Entry) {
	l.n++
	e.At = broker.Position{
		Epoch:  "e",
		Offset: l.n,
	}
	e.Time = time.Now()
	l.Bytes += len(e.Data) + len(e.State) + len(e.Member) + len(e.Owner)
	l.view.deliver(e)
}
