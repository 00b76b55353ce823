package main

// point is the position of an event in a channel that keeps events.
type point struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// place is how far listen has printed the events of a channel that keeps them (PROTOCOL.md,
// section 14). The zero value is that of a channel of which nothing is known.
type place struct {
	last      *point // of the last event that was printed
	top       *point // after the replay
	replay    int    // the number of events that are still to be replayed
	recovered bool   // the replay continues at last
}

// subscribed takes the answer to a subscription.
func (p *place) subscribed(d messageData) {
	p.replay, p.recovered, p.top = d.Replay, d.Recovered, nil
	if d.Epoch != "" {
		p.top = &point{d.Epoch, d.Offset}
	}
	if p.replay == 0 {
		p.last = p.top
	}
}

// received takes an event.
func (p *place) received(m message) {
	switch {
	case m.Event == "pushy:resync" && m.Data.Epoch != "":
		p.last = &point{m.Data.Epoch, m.Data.Offset}
	case m.Offset == 0:
	case p.replay > 0:
		p.replay--
		if p.replay == 0 {
			p.last = p.top
		} else if p.recovered && p.top != nil {
			p.last = &point{p.top.Epoch, m.Offset}
		}
	case p.last != nil:
		p.last = &point{p.last.Epoch, m.Offset}
	}
}
