package load

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// attendant is one client of a Crowd.
type attendant struct {
	index   int
	channel string
	sock    *socket // nil while it is not connected
	rest    []byte  // the beginning of a frame
	state   attendance
	told    int64 // messages that do not answer a command

	// These outlive a connection.
	id       string // of the last connection
	was      string // of the one before
	epoch    string
	at       uint64 // the offset of the last event
	until    uint64 // the offset of the success: when the replay is complete, at is the same
	replay   int    // events of the replay that have not arrived
	member   string
	key      string
	revision string
	members  int // the number of members of the channel
}

// attendance is how far a client has connected.
type attendance uint8

const (
	dialing   attendance = iota // the server has not accepted the connection
	shaking                     // the answer to the handshake has not arrived
	greeting                    // pushy:connect has not arrived
	connected                   // it has not subscribed
	asking                      // the success has not arrived
	catching                    // the replay is not complete
	present
)

// connects reports whether a client has begun and not arrived.
func (s attendance) connects() bool { return s != connected && s != present }

// consume handles what has arrived, and returns the incomplete rest.
func (a *attendant) consume(c *Crowd, in []byte) (rest []byte, err error) {
	if a.state == shaking {
		head, body, whole := bytes.Cut(in, []byte("\r\n\r\n"))
		if !whole {
			return in, nil
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			return nil, fmt.Errorf("handshake: got %.200q", head)
		}
		a.state = greeting
		in = body
	}
	for {
		opcode, payload, size := frame(in)
		if size == 0 {
			return in, nil
		}
		c.arrival.Bytes += int64(size)
		if err := a.handle(c, opcode, payload); err != nil {
			return nil, err
		}
		in = in[size:]
	}
}

// frame returns the first WebSocket frame of a server. size is 0 if it is not complete.
func frame(in []byte) (opcode byte, payload []byte, size int) {
	if len(in) < 2 {
		return 0, nil, 0
	}
	head := 2
	n := int(in[1])
	switch n {
	case 126:
		head = 4
		if len(in) < head {
			return 0, nil, 0
		}
		n = int(binary.BigEndian.Uint16(in[2:]))
	case 127:
		head = 10
		if len(in) < head {
			return 0, nil, 0
		}
		n = int(binary.BigEndian.Uint64(in[2:]))
	}
	if len(in) < head+n {
		return 0, nil, 0
	}
	return in[0] & 0xf, in[head : head+n], head + n
}

// handle handles one frame.
func (a *attendant) handle(c *Crowd, opcode byte, payload []byte) error {
	const (
		text   = 1
		closed = 8
		ping   = 9
	)
	switch opcode {
	case ping:
		_, err := a.sock.Write([]byte{0x8a, 0x80, 0, 0, 0, 0})
		return err
	case closed:
		return &closedError{fmt.Sprintf("%q", payload)}
	case text:
	default:
		return fmt.Errorf("got a frame with opcode %d", opcode)
	}
	if event, ok := bytes.CutPrefix(payload, []byte(`{"event":"pushy:`)); ok {
		switch {
		case bytes.HasPrefix(event, []byte(`connect"`)):
			return a.greeted(c, payload)
		case bytes.HasPrefix(event, []byte(`subscription-success"`)):
			return a.subscribed(c, payload)
		case bytes.HasPrefix(event, []byte(`presence-diff"`)):
			a.told++
			return a.diff(payload)
		}
		return fmt.Errorf("got %.300q", payload)
	}
	return a.event(c, payload)
}

// greeted subscribes the client.
func (a *attendant) greeted(c *Crowd, message []byte) error {
	var m struct{ Data struct{ SocketID string } }
	if err := json.Unmarshal(message, &m); err != nil {
		return err
	}
	a.was = a.id
	a.id = m.Data.SocketID
	if c.entry == ConnectOnly {
		c.arrived(a, connected)
		return nil
	}
	a.state = asking
	return a.subscribe(c)
}

// subscribe sends the command of a client.
func (a *attendant) subscribe(c *Crowd) error {
	b := fmt.Appendf(nil, `{"command":"subscribe","data":{"channel":%q`, a.channel)
	returns := c.entry == Resume
	if c.cfg.Hold {
		data := fmt.Sprintf(`{"name":"member %d"}`, a.index)
		sum := sha256.Sum256([]byte(a.id + ":" + a.channel + ":" + data + ":" + Secret))
		b = fmt.Appendf(b, `,"auth":%q,"data":%s,"hold":true`, hex.EncodeToString(sum[:]), data)
		switch {
		case returns:
			b = fmt.Appendf(b, `,"member":{"id":%q,"key":%q},"presence":{"mode":"diff","since":%q}`, a.member, a.key, a.revision)
		case a.index == 0:
			b = append(b, `,"presence":"diff"`...)
		default:
			// The list of all members for each client would be larger than everything else.
			b = append(b, `,"presence":"count"`...)
		}
	} else if returns {
		b = fmt.Appendf(b, `,"since":{"epoch":%q,"offset":%d},"was":[%q]`, a.epoch, a.at, a.was)
	}
	_, err := a.sock.Write(maskedText(string(append(b, `},"id":1}`...))))
	return err
}

// success is the data of a pushy:subscription-success.
type success struct {
	MemberID  string
	Epoch     string
	Offset    uint64
	Recovered bool
	Reason    string
	Replay    int
	Key       string
	Resumed   bool
	Members   *membersView
}

type membersView struct {
	Revision string
	Count    int
	Since    string
	Add      []json.RawMessage
	Quit     []json.RawMessage
	Update   []json.RawMessage
}

// subscribed handles the success of the client's subscription.
func (a *attendant) subscribed(c *Crowd, message []byte) error {
	if a.state != asking {
		return errors.New("a second success")
	}
	var m struct{ Data success }
	if err := json.Unmarshal(message, &m); err != nil {
		return err
	}
	s := m.Data
	if v := s.Members; v != nil {
		if c.entry == Resume && v.Since == a.revision {
			c.arrival.Changes += len(v.Add) + len(v.Quit) + len(v.Update)
		} else if c.entry == Resume {
			return fmt.Errorf("the answer has a list instead of a diff: %.300q", message)
		}
		a.revision = v.Revision
		a.members = v.Count
	}
	if s.Resumed {
		if s.MemberID != a.member {
			return fmt.Errorf("resumed as %q, but it was %q", s.MemberID, a.member)
		}
		c.arrival.Resumed++
	}
	a.member = s.MemberID
	a.key = s.Key
	if c.entry == Resume && s.Recovered {
		c.arrival.Recovered++
		c.arrival.Replayed += int64(s.Replay)
		a.replay = s.Replay
	} else {
		a.at = s.Offset
	}
	a.epoch = s.Epoch
	a.until = s.Offset
	a.state = catching
	return a.caughtUp(c)
}

// caughtUp ends the replay when its last event has arrived.
func (a *attendant) caughtUp(c *Crowd) error {
	if a.state != catching || a.replay > 0 {
		return nil
	}
	if a.at != a.until {
		return fmt.Errorf("the replay ended at %d, not at %d", a.at, a.until)
	}
	c.arrived(a, present)
	return nil
}

// event checks that an event is the next one.
func (a *attendant) event(c *Crowd, message []byte) error {
	const key = `,"offset":`
	i := bytes.LastIndex(message, []byte(key))
	if i < 0 {
		return fmt.Errorf("got %.300q", message)
	}
	offset, err := strconv.ParseUint(string(bytes.TrimSuffix(message[i+len(key):], []byte("}"))), 10, 64)
	if err != nil {
		return fmt.Errorf("an event's offset: %w", err)
	}
	// Publish numbers the events of a channel as the log does.
	if n := fmt.Sprintf(`"data":{"n":%d,`, offset); !bytes.Contains(message, []byte(n)) {
		return fmt.Errorf("event %d has other data: %.300q", offset, message)
	}
	if a.state < catching || offset != a.at+1 {
		return fmt.Errorf("got event %d after %d", offset, a.at)
	}
	a.at = offset
	if a.state == present {
		a.told++
		return nil
	}
	a.replay--
	return a.caughtUp(c)
}

// diff handles changes of the members.
func (a *attendant) diff(message []byte) error {
	var m struct{ Data membersView }
	if err := json.Unmarshal(message, &m); err != nil {
		return err
	}
	a.revision = m.Data.Revision
	a.members = m.Data.Count
	return nil
}
