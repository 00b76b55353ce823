// Package limit keeps clients and publishers within their bounds.
package limit

import "time"

// Budget is a token bucket for one connection's messages. Its zero value is
// full. It is not safe for concurrent use.
type Budget struct {
	spent float64   // tokens gone from the bucket
	last  time.Time // the last call, when spent was right
	over  *excess   // nil until the first refusal: most never have one
}

// excess is a client's being over its budget.
type excess struct {
	since   time.Time
	refused time.Time // the last refusal
}

// Verdict is what becomes of a message.
type Verdict uint8

const (
	OK    Verdict = iota
	Over          // refuse the message
	Abuse         // and end the connection
)

const (
	abuseAfter = 10 * time.Second
	// A client that was not refused for this long has come to its senses.
	overEnds = 2 * time.Second
)

// Last returns when Spend was last called: the zero time if never.
func (b *Budget) Last() time.Time { return b.last }

// Charge takes tokens, also those that are not there: what comes next is refused
// until they have come in.
func (b *Budget) Charge(tokens int) { b.spent += float64(tokens) }

// Spend takes a token: rate a second come in, burst fit. A rate that is not
// above zero is no limit.
func (b *Budget) Spend(now time.Time, rate, burst int) Verdict {
	pause := now.Sub(b.last)
	b.last = now
	if rate <= 0 {
		return OK
	}
	b.spent = max(0, b.spent-pause.Seconds()*float64(rate))
	if b.spent+1 <= float64(max(burst, 1)) {
		b.spent++
		return OK
	}
	if b.over == nil {
		b.over = new(excess)
	}
	if now.Sub(b.over.refused) > overEnds {
		b.over.since = now
	}
	b.over.refused = now
	if now.Sub(b.over.since) >= abuseAfter {
		return Abuse
	}
	return Over
}
