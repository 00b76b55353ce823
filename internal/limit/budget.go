// Package limit keeps clients and publishers within their bounds.
package limit

import "time"

// Budget is a token bucket for one connection's messages. Its zero value is
// full. It is not safe for concurrent use.
type Budget struct {
	spent   float64   // tokens gone from the bucket
	at      time.Time // when spent was right
	over    time.Time // since when the client has been over it
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

// Spend takes a token: rate a second come in, burst fit. A rate that is not
// above zero is no limit.
func (b *Budget) Spend(now time.Time, rate, burst int) Verdict {
	if rate <= 0 {
		return OK
	}
	b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*float64(rate))
	b.at = now
	if b.spent+1 <= float64(max(burst, 1)) {
		b.spent++
		return OK
	}
	if now.Sub(b.refused) > overEnds {
		b.over = now
	}
	b.refused = now
	if now.Sub(b.over) >= abuseAfter {
		return Abuse
	}
	return Over
}
