package pushy

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/session"
)

const (
	// closeTryAgain closes connections over Limits.AcceptRate. Browsers show a page the close code
	// of a WebSocket, but not the status of a handshake that was refused.
	closeTryAgain  = 1013
	tryAgainReason = "too many new connections"
	// tryAgainRate is the number of connections a second that are closed with closeTryAgain.
	// Others are refused before the handshake, which costs less.
	tryAgainRate = 200
	// maxTryAgain is the largest Retry-After of the others, in seconds. Each has a random one, so
	// that they do not all come back at once.
	maxTryAgain = 10
)

// rates are the limits of what happens in a second. Those that are off are nil.
type rates struct {
	addresses *limit.Addresses // Limits.ConnectRate
	accepted  *limit.Rate      // Limits.AcceptRate
	tryAgain  *limit.Rate      // tryAgainRate
	published *limit.Rate      // Limits.PublishRate
	proxies   proxyGuess
}

func (r *rates) set(l *Limits) {
	if l.ConnectRate > 0 {
		r.addresses = limit.NewAddresses(l.ConnectRate, l.ConnectBurst)
	}
	r.accepted = limit.NewRate(l.AcceptRate, l.AcceptRate)
	r.tryAgain = limit.NewRate(tryAgainRate, tryAgainRate)
	r.published = limit.NewRate(l.PublishRate, min(l.PublishRate, math.MaxInt/2)*2)
}

// publishAllowed counts n events of other processes towards Limits.PublishRate. If these are too
// many, it returns the time after which they are allowed.
func (s *Server) publishAllowed(n int) (retry time.Duration, ok bool) {
	retry, ok = s.rates.published.Take(time.Now(), n)
	if !ok {
		rate := s.opts.Limits.PublishRate
		s.notices.Warn("events of other processes refused: there are too many", "",
			slog.Int("publishRate", rate),
			slog.String("hint", "publish less, or raise Options.Limits.PublishRate, which is "+strconv.Itoa(rate)+
				" events a second, for each of their channels"))
	}
	return retry, ok
}

// connectAllowed counts a new connection towards Limits.ConnectRate. The Refusal is not nil if the
// client has had too many.
func (s *Server) connectAllowed(r *http.Request, client counted) *seam.Refusal {
	if s.opts.Address == nil {
		s.guessProxy(r)
	}
	if s.rates.addresses == nil {
		return nil
	}
	wait, ok := s.rates.addresses.Take(time.Now(), client.network)
	if ok {
		return nil
	}
	s.hub.Admission().Refuse(hub.RefusedRate)
	limits := &s.opts.Limits
	message := "too many new connections of this address: Options.Limits.ConnectRate is " +
		strconv.Itoa(limits.ConnectRate) + " a second, ConnectBurst is " + strconv.Itoa(limits.ConnectBurst) +
		", and the address is " + client.String()
	s.notices.Warn("connection refused: too many new connections of one address", "",
		slog.Int("connectRate", limits.ConnectRate),
		slog.Int("connectBurst", limits.ConnectBurst),
		slog.String("address", client.address),
		slog.Int("addresses", s.rates.addresses.Len()),
		slog.String("hint", message+"; if many clients share the address, raise ConnectBurst"))
	return &seam.Refusal{
		Status:  http.StatusTooManyRequests,
		Message: message,
		Again:   seam.Rate,
		After:   wait,
	}
}

// overAcceptRate refuses a connection over Limits.AcceptRate, which has a reserved place. A client
// with a WebSocket gets a Place if it may be told so with a close code.
func (s *Server) overAcceptRate(socket bool, giveBack func()) (*seam.Place, *seam.Refusal) {
	s.hub.Admission().Refuse(hub.RefusedAcceptRate)
	rate := s.opts.Limits.AcceptRate
	message := "too many new connections: Options.Limits.AcceptRate is " + strconv.Itoa(rate) + " a second"
	s.notices.Warn("connection refused: too many new connections of this server", "",
		slog.Int("acceptRate", rate),
		slog.Int("closedWith1013", tryAgainRate),
		slog.String("hint", message+"; up to "+strconv.Itoa(tryAgainRate)+" WebSockets a second more are closed with code 1013, "+
			"and the others are answered with status 503; raise AcceptRate, or add servers"))
	if socket {
		if _, ok := s.rates.tryAgain.Take(time.Now(), 1); ok {
			return &seam.Place{
				Connect: func(session session.Session) *hub.Conn {
					s.hub.TurnAway(session, closeTryAgain, tryAgainReason, giveBack)
					return nil
				},
				GiveBack: giveBack,
			}, nil
		}
	}
	giveBack()
	return nil, &seam.Refusal{
		Status:  http.StatusServiceUnavailable,
		Message: message,
		Again:   seam.Rate,
		After:   time.Duration(1+rand.IntN(maxTryAgain)) * time.Second,
	}
}

// proxyGuess finds out whether most connections come from one private address.
type proxyGuess struct {
	mu     sync.Mutex
	total  int
	likely netip.Addr
	lead   int // of likely, over the others: the majority vote of Boyer and Moore
	own    int // connections of likely since it is that
}

// guessAfter is the number of connections after which proxyGuess decides, each time.
const guessAfter = 1000

// guessProxy logs that most connections come from one private address, which is most often that
// of a proxy.
func (s *Server) guessProxy(r *http.Request) {
	var addr netip.Addr
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && (at.Addr().IsPrivate() || at.Addr().IsLoopback()) {
		addr = at.Addr()
	}
	g := &s.rates.proxies
	g.mu.Lock()
	g.total++
	switch {
	case addr == g.likely:
		g.lead++
		g.own++
	case g.lead == 0:
		g.likely = addr
		g.lead = 1
		g.own = 1
	default:
		g.lead--
	}
	if g.total < guessAfter {
		g.mu.Unlock()
		return
	}
	likely, own := g.likely, g.own
	g.total, g.lead, g.own, g.likely = 0, 0, 0, netip.Addr{}
	g.mu.Unlock()
	if likely.IsValid() && own > guessAfter/2 {
		s.notices.Warn("most connections come from one private address", "",
			slog.String("address", likely.String()),
			slog.Int("connections", own),
			slog.Int("of", guessAfter),
			slog.String("hint", "if it is your proxy, set Options.Address, so that the limits of one address "+
				"(Limits.ConnectRate and PerAddress) can tell the clients apart"))
	}
}
