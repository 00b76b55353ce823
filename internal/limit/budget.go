// Package limit has the limits for clients and publishers, and helpers for options that are
// limits.
package limit

import "time"

// Bucket is a token bucket. The zero value is full. It is not safe for concurrent use. It is
// small, because a server has at least one for each connection.
type Bucket struct {
	spent float64       // tokens that are missing from the bucket
	last  time.Duration // the time since loaded for which spent is correct
}

// loaded is the origin of Bucket.last, which has a third of the size of a time.Time.
var loaded = time.Now()

// Budget is a Bucket for the messages of one connection. The zero value is full. It is not
// safe for concurrent use.
type Budget struct {
	Bucket
	over *excess // nil until the first refusal, which most connections never have
}

// excess is a period in which a client exceeds its budget.
type excess struct {
	since   time.Time
	refused time.Time // the last refusal
}

// Verdict is the decision about a message.
type Verdict uint8

const (
	OK    Verdict = iota
	Over          // refuse the message
	Abuse         // refuse the message and end the connection
)

const (
	// abuseAfter is how long a client can exceed its budget before the verdict is Abuse.
	abuseAfter = 10 * time.Second
	// overEnds is the time without a refusal after which the excess has ended.
	overEnds = 2 * time.Second
)

// Pause returns the time from the last call of Spend or Take, of which there must be one, to now.
func (b *Bucket) Pause(now time.Time) time.Duration { return now.Sub(loaded) - b.last }

// Charge takes tokens from the bucket. The bucket can become negative; then messages are
// refused until enough tokens have been added.
func (b *Bucket) Charge(tokens int) { b.spent += float64(tokens) }

// Take takes tokens from the bucket at the time now, as Budget.Spend takes one for a message. If the
// bucket has too few of them, Take takes none and returns the time after which it has enough. A
// full bucket has enough for any number, and becomes negative.
func (b *Bucket) Take(now time.Time, tokens, rate, burst int) (wait time.Duration, ok bool) {
	if rate <= 0 {
		return 0, true
	}
	missing := b.Missing(now, rate)
	b.spent = missing
	b.last = now.Sub(loaded)
	burst = max(burst, 1)
	over := missing + float64(min(tokens, burst)) - float64(burst)
	if over > 0 {
		return time.Duration(over / float64(rate) * float64(time.Second)), false
	}
	b.spent += float64(tokens)
	return 0, true
}

// Missing returns how many tokens are missing from the bucket at the time now.
func (b *Bucket) Missing(now time.Time, rate int) float64 {
	return max(0, b.spent-max(0, b.Pause(now)).Seconds()*float64(rate))
}

// Spend takes a token for a message at the time now. Each second, rate tokens are added to
// the bucket, up to burst. If rate is not positive, there is no limit.
func (b *Budget) Spend(now time.Time, rate, burst int) Verdict {
	missing := b.Missing(now, rate)
	b.last = now.Sub(loaded)
	if rate <= 0 {
		return OK
	}
	b.spent = missing
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
