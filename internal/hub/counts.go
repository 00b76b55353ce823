package hub

import (
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/gopushy/pushy/internal/tally"
)

// counts is what a Hub has done since New.
type counts struct {
	received   *tally.Traffic // messages of clients
	deliveries atomic.Uint64  // events and changes of the members that were queued for members
	slow       atomic.Uint64  // connections that were ended by the server because of queued bytes
	closed     *tally.Names   // by close code
	joins      *tally.Names   // by outcome
	resumes    *tally.Names   // by the reason of the answer, or recovered
}

// Outcomes of joins, as Counts has them, in addition to what a refusal of the host is.
const (
	joinNew         = "joined"
	joinResumed     = "resumed" // the client has taken its member over
	joinMember      = "already-subscribed"
	joinChannels    = "too-many-channels"
	joinRate        = "too-many-joins"
	joinFull        = "channel-full"
	joinTooLarge    = "data-too-large"
	joinNeedAuth    = "auth-needed"
	joinDenied      = "denied"
	joinUnavailable = "unavailable"
	joinEnded       = "disconnected" // the connection ended in the meantime
)

const recovered = "recovered"

// closeCodes are the codes that PROTOCOL.md, section 3, names. All others are those of applications:
// clients can choose them, so they are counted together.
var closeCodes = []string{
	"1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1013", "1014", "1015",
	"3001", "3008", "3500", "3501", "4001",
}

func newCounts() counts {
	return counts{
		received: new(tally.Traffic),
		closed:   tally.NewNames(closeCodes...),
		joins: tally.NewNames(joinNew, joinResumed, joinMember, joinChannels, joinRate, joinFull, joinTooLarge,
			joinNeedAuth, joinDenied, joinUnavailable, joinEnded),
		resumes: tally.NewNames(recovered, PastTrimmed, PastExpired, PastEpoch, PastRestarted, PastAhead, PastLarge,
			PastOff, PastDenied, PastUnavailable),
	}
}

// codeSlowConsumer is the code with which package fanout disconnects clients.
const codeSlowConsumer = 3008

// ended counts a connection that has ended.
func (n *counts) ended(code int, by Ender) {
	n.closed.Add(strconv.Itoa(code))
	if code == codeSlowConsumer && by == ByServer {
		n.slow.Add(1)
	}
}

// joined counts a join that has succeeded.
func (n *counts) joined(m *membership, past *pastRequest) {
	outcome := joinNew
	if m.entrance != entered {
		outcome = joinResumed
	}
	n.joins.Add(outcome)
	if past.Since == nil || past.answer == nil {
		return
	}
	reason := past.answer.Reason
	if reason == "" {
		reason = recovered
	}
	n.resumes.Add(reason)
}

// joinOutcome returns the outcome of a join that has failed.
func joinOutcome(err error) string {
	var refused *RefusedError
	var unavailable *UnavailableError
	switch {
	case errors.Is(err, ErrClosed):
		return joinEnded
	case errors.Is(err, ErrAlreadyMember):
		return joinMember
	case errors.Is(err, ErrTooManyChannels):
		return joinChannels
	case errors.Is(err, ErrTooManyJoins):
		return joinRate
	case errors.Is(err, ErrChannelFull):
		return joinFull
	case errors.Is(err, ErrDataTooLarge):
		return joinTooLarge
	case errors.Is(err, ErrNeedAuth):
		return joinNeedAuth
	case errors.Is(err, ErrDenied), errors.As(err, &refused):
		return joinDenied
	case errors.As(err, &unavailable):
		return joinUnavailable
	}
	return tally.Other
}

// Counts is what a Hub has done since New. The maps have an element for each key that is possible.
type Counts struct {
	Opened        uint64 // connections
	Slow          uint64 // connections that were ended because of queued bytes or a slow write
	Received      uint64 // messages of clients
	ReceivedBytes uint64
	Deliveries    uint64            // events and changes of the members that were queued for members
	Closed        map[string]uint64 // connections that have ended, by close code
	Joins         map[string]uint64 // by outcome
	Resumes       map[string]uint64 // subscriptions with a position, by the reason of the answer
}

// Counts returns what the Hub has done.
func (h *Hub) Counts() Counts {
	n := &h.counts
	messages, bytes := n.received.Load()
	return Counts{
		Opened:        h.admission.Opened(),
		Slow:          n.slow.Load(),
		Received:      messages,
		ReceivedBytes: bytes,
		Deliveries:    n.deliveries.Load(),
		Closed:        n.closed.Load(),
		Joins:         n.joins.Load(),
		Resumes:       n.resumes.Load(),
	}
}
