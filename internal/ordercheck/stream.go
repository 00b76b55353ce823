package ordercheck

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// Stream is what a server has sent to a channel that keeps nothing, in this order: events, of
// which a slow client need not receive all (PROTOCOL.md, section 2), and messages about members. It is
// safe for concurrent use.
type Stream struct {
	mu   sync.Mutex
	sent []message
	at   map[string]int // the index of each message, by its text
}

type message struct {
	text      string
	latest    string
	droppable bool
}

// Sent records an event. The text of a message is unique in its Stream.
func (s *Stream) Sent(text, latest string, droppable bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.at[text]; twice {
		return fmt.Errorf("%s was sent twice", text)
	}
	if s.at == nil {
		s.at = map[string]int{}
	}
	s.at[text] = len(s.sent)
	s.sent = append(s.sent, message{
		text:      text,
		latest:    latest,
		droppable: droppable,
	})
	return nil
}

// Reader is the subscription of one client. Its methods are not safe for concurrent use. They
// return an error if a message breaks a rule.
type Reader struct {
	stream *Stream
	from   int // the index of the first message after the success
	next   int // the index after that of the last message received
	got    map[int]bool
	until  int // the index of the first message after the end; -1 while there is none

	subscribed, ended bool
	Told              int // the number of events that the client was told it has not received
}

// Reader returns a subscription that begins with the next message of the Stream.
func (s *Stream) Reader() *Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Reader{
		stream: s,
		from:   len(s.sent),
		next:   len(s.sent),
		got:    map[int]bool{},
		until:  -1,
	}
}

// Success handles the pushy:subscription-success.
func (r *Reader) Success() error {
	if r.subscribed {
		return errors.New("a second success")
	}
	r.subscribed = true
	return nil
}

// Leave says that the subscription ends before the next message of the Stream.
func (r *Reader) Leave() {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	r.until = len(r.stream.sent)
}

// End handles the pushy:subscription-end.
func (r *Reader) End() error {
	if r.until < 0 {
		return errors.New("an end, but the subscription goes on")
	}
	if err := r.within("the end"); err != nil {
		return err
	}
	r.ended = true
	return nil
}

func (r *Reader) within(what string) error {
	switch {
	case !r.subscribed:
		return fmt.Errorf("%s before the success", what)
	case r.ended:
		return fmt.Errorf("%s after the end", what)
	}
	return nil
}

// Message handles an event or a message about members.
func (r *Reader) Message(text string) error {
	if err := r.within(text); err != nil {
		return err
	}
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	at, known := r.stream.at[text]
	switch {
	case !known:
		return fmt.Errorf("%s was not sent", text)
	case r.got[at]:
		return fmt.Errorf("%s again", text)
	case at < r.next:
		return fmt.Errorf("%s after %s", text, r.stream.sent[r.next-1].text)
	case r.until >= 0 && at >= r.until:
		return fmt.Errorf("%s, which was sent after the end", text)
	}
	r.got[at] = true
	r.next = at + 1
	return nil
}

// Dropped handles the data of a pushy:dropped.
func (r *Reader) Dropped(data json.RawMessage) error {
	if err := r.within("a pushy:dropped"); err != nil {
		return err
	}
	var d struct{ Count int }
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	if d.Count <= 0 {
		return fmt.Errorf("a pushy:dropped of %s", data)
	}
	r.Told += d.Count
	return nil
}

// Complete checks, when the client has read all that it will be sent, what it has not received: of
// each key the newest event must have arrived, unless that is droppable, and all messages that are
// neither. The client was told of the number of the others, unless the subscription has ended.
func (r *Reader) Complete() error {
	if !r.subscribed {
		return errors.New("there was no success")
	}
	if r.ended != (r.until >= 0) {
		return errors.New("there was no end")
	}
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	until := r.until
	if until < 0 {
		until = len(r.stream.sent)
	}
	missing := 0
	newer := map[string]bool{} // keys of which a newer event was received
	for at := until - 1; at >= r.from; at-- {
		m := r.stream.sent[at]
		if r.got[at] {
			newer[m.latest] = true
			continue
		}
		missing++
		if !m.droppable && (m.latest == "" || !newer[m.latest]) {
			return fmt.Errorf("%s was not received, nor a newer one of the key %q", m.text, m.latest)
		}
	}
	if r.ended && r.Told <= missing {
		return nil
	}
	if r.Told != missing {
		return fmt.Errorf("%d events were not received, and the client was told of %d", missing, r.Told)
	}
	return nil
}
