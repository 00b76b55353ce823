package nats

import (
	"time"

	"github.com/gopushy/pushy/broker"
)

// QueueSize is the number of messages that a worker's queue can hold.
const QueueSize = queueSize

// Consume handles the messages of a worker's queue.
var Consume = consume

// Known returns the number of nodes and channels in this node's replica.
func (b *Broker) Known() (nodes, channels int) {
	r := b.replica.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.nodes), len(r.channels)
}

// EncodedKept returns a message of a log.
func EncodedKept(at broker.Position, e broker.Entry) []byte {
	return kept{at: at, time: time.Now(), entry: &e}.encode()
}

// Decoders are the decoders of messages from NATS. Each returns the decoded message in encoded
// form.
var Decoders = map[string]func(data []byte) ([]byte, error){
	"plain": func(data []byte) ([]byte, error) {
		e, err := decodePlain(data)
		return broker.AppendEntry([]byte{formPlain}, e), err
	},
	"kept": func(data []byte) ([]byte, error) {
		m, err := decodeKept(data)
		return m.encode(), err
	},
	"record": func(data []byte) ([]byte, error) {
		r, err := decodeRecord(data, "m1", fuzzedSeq)
		if err != nil {
			return nil, err
		}
		if r.kind == broker.Join {
			r.member.Since = 0 // as in the encoding
		}
		return r.encode(), nil
	},
	"sign": func(data []byte) ([]byte, error) {
		s, err := decodeHeartbeat(data)
		return s.encode(), err
	},
	"claim": func(data []byte) ([]byte, error) {
		r, err := decodeClaim(data)
		return r.encode(), err
	},
	"result": func(data []byte) ([]byte, error) {
		a, err := decodeResult(data)
		return encodeResult(a), err
	},
	"token": func(data []byte) ([]byte, error) {
		name, ok := untoken(string(data))
		if !ok {
			return nil, errBroken
		}
		return []byte(token(name)), nil
	},
	"class": func(data []byte) ([]byte, error) {
		size, life, ok := parseClass(string(data))
		if !ok {
			return nil, errBroken
		}
		return []byte(classOf(broker.Keep{Size: int(size), TTL: life / 10})), nil
	},
}

const fuzzedSeq = 1000

// Seeds returns valid messages for each of the Decoders.
func Seeds() map[string][][]byte {
	e := broker.Entry{Kind: broker.Event, Event: "said", Data: []byte(`{}`), ID: "id", Except: []string{"c"}}
	k := e
	k.Keep = broker.Keep{Size: 10, TTL: time.Minute, Bytes: 100}
	at, t := broker.Position{Epoch: "abc-7", Offset: 9}, time.UnixMilli(1_700_000_000_123)
	joined := record{
		kind:           broker.Join,
		member:         broker.Member{ID: "m1", Owner: "o1", Node: "n1", User: "u1", Data: []byte(`{}`), Joined: t},
		joinedWithData: true,
		past:           past{since: 3, left: 5, joinedWithData: true},
		tail:           []uint64{3, 5},
	}
	adopted := joined
	adopted.kind, adopted.oldOwner, adopted.member.Since, adopted.onAt = broker.Adopt, "o1", 7, 6
	adopted.adopted = []adoption{{owner: "o1", until: t}}
	left := adopted
	left.kind = broker.Leave
	return map[string][][]byte{
		"plain":  {broker.AppendEntry([]byte{formPlain}, e)},
		"kept":   {kept{at: at, time: t, sum: 3000, tail: []uint64{8, 7}, entry: &k}.encode(), kept{at: at, time: t, moved: true}.encode()},
		"record": {joined.encode(), adopted.encode(), left.encode()},
		"sign": {
			heartbeat{lease: time.Second, settings: map[string]string{"Grace": "15s"}}.encode(),
			heartbeat{lease: time.Minute, settings: map[string]string{"Grace": "15s"}, closed: true}.encode(),
			heartbeat{}.encode(),
		},
		"claim":  {claim{key: "k", digest: "d", until: t, answered: true, answer: []byte("x")}.encode(), claim{key: "k"}.encode()},
		"result": {encodeResult(broker.Appended{At: at, Receivers: broker.None}), encodeResult(broker.Appended{})},
		"token":  {[]byte(token("a.b ü")), []byte(token(""))},
		"class":  {[]byte(classOf(broker.Keep{Size: 100, TTL: time.Hour}))},
	}
}
