package console

import (
	"math"
	"time"
)

// maxInterval is the longest time over which a rate is determined. After a longer one, when no page
// was open, the next sample has no rates.
const maxInterval = 15 * time.Second

// rates are what a node does, or all nodes do, in a second, on average since the sample before.
type rates struct {
	Published   float64 `json:"published"`
	Ended       float64 `json:"ended"`
	Refused     float64 `json:"refused"`
	MessagesIn  float64 `json:"messagesIn"`
	MessagesOut float64 `json:"messagesOut"`
	BytesIn     float64 `json:"bytesIn"`
	BytesOut    float64 `json:"bytesOut"`
}

// counts are what a node has done since it was started, and when it was asked. They only grow.
type counts struct {
	at          time.Time
	published   uint64
	ended       uint64
	refused     uint64
	messagesIn  uint64
	messagesOut uint64
	bytesIn     uint64
	bytesOut    uint64
}

// since returns the rates between two counts, or nil if there are none.
func (c *counts) since(before *counts) *rates {
	// The clock is the monotonic one, so a change of the time does not matter.
	interval := c.at.Sub(before.at)
	if before.at.IsZero() || interval <= 0 || interval > maxInterval {
		return nil
	}
	per := func(now, then uint64) float64 { return math.Round(float64(now-then)/interval.Seconds()*10) / 10 }
	return &rates{
		Published:   per(c.published, before.published),
		Ended:       per(c.ended, before.ended),
		Refused:     per(c.refused, before.refused),
		MessagesIn:  per(c.messagesIn, before.messagesIn),
		MessagesOut: per(c.messagesOut, before.messagesOut),
		BytesIn:     per(c.bytesIn, before.bytesIn),
		BytesOut:    per(c.bytesOut, before.bytesOut),
	}
}

// add adds the rates of a node, which can be nil.
func (r *rates) add(n *rates) *rates {
	switch {
	case n == nil:
		return r
	case r == nil:
		r = &rates{}
	}
	r.Published += n.Published
	r.Ended += n.Ended
	r.Refused += n.Refused
	r.MessagesIn += n.MessagesIn
	r.MessagesOut += n.MessagesOut
	r.BytesIn += n.BytesIn
	r.BytesOut += n.BytesOut
	return r
}
