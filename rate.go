package pushy

import (
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/limit"
)

// refusedByRate is the reason for Stats of connections over Limits.ConnectRate.
const refusedByRate = "connectRate"

// sharedBudget is a limit.Budget for many goroutines.
type sharedBudget struct {
	mu     sync.Mutex
	budget limit.Budget
}

func (b *sharedBudget) take(now time.Time, tokens, rate, burst int) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.budget.Take(now, tokens, rate, burst)
}

// publishAllowed counts n events of other processes towards Limits.PublishRate. If these are too
// many, it returns the time after which they are allowed.
func (s *Server) publishAllowed(n int) (retry time.Duration, ok bool) {
	rate := s.opts.Limits.PublishRate
	if rate <= 0 {
		return 0, true
	}
	retry, ok = s.publishRate.take(time.Now(), n, rate, min(rate, math.MaxInt/2)*2)
	if !ok {
		s.notices.Warn("events of other processes refused: there are too many", "",
			slog.Int("publishRate", rate),
			slog.String("hint", "publish less, or raise Options.Limits.PublishRate, which is "+strconv.Itoa(rate)+
				" events a second, for each of their channels"))
	}
	return retry, ok
}

// connectAllowed counts a new connection towards Limits.ConnectRate. If the client has had too
// many, connectAllowed answers r.
func (s *Server) connectAllowed(w http.ResponseWriter, r *http.Request, client counted) bool {
	if s.opts.Address == nil {
		s.guessProxy(r)
	}
	if s.addresses == nil {
		return true
	}
	wait, ok := s.addresses.Take(time.Now(), client.network)
	if ok {
		return true
	}
	s.hub.Admission().Refuse(refusedByRate)
	limits := &s.opts.Limits
	message := "too many new connections of this address: Options.Limits.ConnectRate is " +
		strconv.Itoa(limits.ConnectRate) + " a second, ConnectBurst is " + strconv.Itoa(limits.ConnectBurst) +
		", and the address is " + client.String()
	s.notices.Warn("connection refused: too many new connections of one address", "",
		slog.Int("connectRate", limits.ConnectRate),
		slog.Int("connectBurst", limits.ConnectBurst),
		slog.String("address", client.address),
		slog.Int("addresses", s.addresses.Len()),
		slog.String("hint", message+"; if many clients share the address, raise ConnectBurst"))
	w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	w.Header().Set("Access-Control-Expose-Headers", "Retry-After") // for pages of other origins
	httperror.Write(w, http.StatusTooManyRequests, message)
	return false
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
	g := &s.proxies
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
