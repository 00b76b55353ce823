package pushy

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/limit"
)

// counted is what Limits.PerAddress and ConnectRate count a client as.
type counted struct {
	network limit.Network
	address string // as it is shown; "" without one
	source  string // completes a sentence that begins with the address
}

// String completes "the address is".
func (c counted) String() string {
	if c.address == "" {
		return "not known: " + c.source
	}
	shown := c.address
	if network := c.network.Prefix(); network != "" {
		shown += " (all of " + network + " counts as one)"
	}
	return shown + ", " + c.source
}

// addressLimits names the limits of one address that are set.
func (s *Server) addressLimits() string {
	var names []string
	if s.opts.Limits.PerAddress > 0 {
		names = append(names, "Limits.PerAddress")
	}
	if s.rates.addresses != nil {
		names = append(names, "Limits.ConnectRate")
	}
	return strings.Join(names, ", ")
}

const ownAddress = "the connection's own (RemoteAddr)"

// count returns what Limits.PerAddress and ConnectRate count r's client as. What Options.Address
// returns may come from a header: if it is no address, the connection's own
// counts instead, so that clients cannot evade the limit.
func (s *Server) count(r *http.Request) counted {
	if s.opts.Address == nil && s.opts.Limits.PerAddress <= 0 && s.rates.addresses == nil {
		return counted{}
	}
	own := counted{
		network: limit.NetworkOf(r.RemoteAddr),
		address: httperror.Shown(r.RemoteAddr),
		source:  ownAddress,
	}
	if s.opts.Address == nil {
		if own.network == 0 && s.unaddressed.CompareAndSwap(false, true) {
			s.notices.Warn("limits of one address have no effect: the connections have no IP address", "",
				slog.String("limits", s.addressLimits()),
				slog.String("address", own.address),
				slog.String("hint", "behind a Unix socket set Options.Address, "+
					"so that it returns the client's address from the proxy's header"))
		}
		own.source += "; behind a proxy set Options.Address"
		return own
	}
	address := ""
	f := s.decide("Options.Address", func() { address = strings.TrimSpace(s.opts.Address(r)) })
	shown := httperror.Shown(address)
	if network := limit.NetworkOf(address); network != 0 {
		return counted{
			network: network,
			address: shown,
			source:  "from Options.Address",
		}
	}
	why := "Options.Address failed"
	if f == nil { // else it is logged
		why = "Options.Address returned " + shown + ", which is no IP address"
		s.notices.Warn("Options.Address returned what is no IP address", "",
			slog.String("address", shown),
			slog.String("remoteAddr", own.address),
			slog.String("hint", "the connection's own address counts instead; "+
				"does the proxy set the header that Options.Address reads?"))
	}
	if own.network == 0 {
		return counted{
			network: limit.Unknown,
			source:  why + ", and the connection has no address; all such clients count as one",
		}
	}
	own.source += ", because " + why
	return own
}
