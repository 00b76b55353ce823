package load

import (
	"math"
	"math/rand/v2"
	"time"
)

// End is the end of a connection, or of an attempt to connect, of a client that returns.
type End struct {
	Code     int // of the close frame, or 1006 without one
	Failures int // attempts that have failed since the last connection
	// ReturnWithin and ReturnIn are what the server of the connection has said, in
	// milliseconds, or nil. They are nil after an attempt.
	ReturnWithin, ReturnIn *float64
}

// ReturnRule is how the clients of a Storm return: the rule of a browser client.
type ReturnRule struct {
	Path string // of the WebSocket
	// Wait returns the time before the next attempt. random is a number from 0 to 1.
	Wait func(e End, random float64) time.Duration
}

// The rules: Told is that of this tree, and Untold that of the commit f76b4aa, in which servers did
// not tell clients when to return. Both are delay in client/src/retry.js, and the path is that of
// the first transport that the client tries, with the default options.
var (
	Told = ReturnRule{
		Path: "/pushy/socket/websocket?v=2",
		Wait: told,
	}
	Untold = ReturnRule{
		Path: "/pushy/socket/websocket",
		Wait: untold,
	}
)

const (
	minDelay = 500
	maxDelay = 20_000
	lost     = 1006
)

func told(e End, random float64) time.Duration {
	switch {
	case e.ReturnIn != nil && *e.ReturnIn >= 0:
		return millisecond(min(*e.ReturnIn, 60_000))
	case e.Failures == 0 && e.ReturnWithin != nil:
		most := 60_000.0
		if e.Code == lost {
			most = 5000
		}
		return millisecond(random * min(max(*e.ReturnWithin, 1000), most))
	}
	doublings := e.Failures + 1
	if e.Code == tryAgain {
		doublings = e.Failures + 4
	}
	return backoff(doublings, random)
}

func untold(e End, random float64) time.Duration { return backoff(e.Failures+1, random) }

// backoff returns a time from minDelay to a bound that doubles up to maxDelay.
func backoff(doublings int, random float64) time.Duration {
	bound := min(maxDelay, minDelay*math.Pow(2, float64(doublings)))
	return millisecond(minDelay + random*max(0, bound-minDelay))
}

func millisecond(ms float64) time.Duration { return time.Duration(math.Round(ms)) * time.Millisecond }

func (r ReturnRule) wait(e End) time.Duration { return r.Wait(e, rand.Float64()) }
