package sse

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/token"
)

// request is what a client asks for.
type request struct {
	channels []string // in lower case, without duplicates
	form     fanout.Form
	auth     string
	user     string // of the token, where Options.Accept does not say who the users are
	since    since
}

// maxURLLife is the longest life of a token in a URL, because logs and the history of browsers have
// URLs.
const maxURLLife = 10 * time.Minute

// maxBearerLife is the longest life of a token where Options.Accept does not say who the users are: whoever
// has the token is its user.
const maxBearerLife = time.Hour

func invalid(format string, args ...any) *seam.Refusal {
	return &seam.Refusal{
		Status:  http.StatusBadRequest,
		Message: fmt.Sprintf(format, args...),
	}
}

// parse reads the parameters of a request. Unknown ones are ignored: Datastar adds its own.
func (h *handler) parse(r *http.Request) (request, *seam.Refusal) {
	var want request
	if r.ContentLength != 0 {
		return want, invalid("the request must not have a body")
	}
	query := r.URL.Query()
	refused := h.parseChannels(&want, query["channel"])
	if refused != nil {
		return want, refused
	}
	form, ok := formOf(query.Get("names"), query.Get("data"))
	if !ok {
		return want, invalid(`names must be "event", "channel", "none" or "datastar", and data "raw", "json" or "envelope", ` +
			`which is "raw" for "datastar"`)
	}
	want.form = form
	last := query.Get("since")
	if header := r.Header.Get("Last-Event-ID"); header != "" {
		last = header
	}
	want.since = parseSince(last, len(want.channels))
	return want, h.parseAuth(&want, r, query.Get("auth"))
}

func (h *handler) parseChannels(want *request, asked []string) *seam.Refusal {
	for _, name := range asked {
		channel, err := h.server.Channel(name)
		switch {
		case errors.Is(err, names.ErrNotChecked):
			return unavailable("the name of a channel cannot be checked now")
		case err != nil:
			return invalid("channel %s: %v", httperror.Shown(name), err)
		}
		if !slices.Contains(want.channels, channel) {
			want.channels = append(want.channels, channel)
		}
	}
	switch n := len(want.channels); {
	case n == 0:
		return invalid("no channel: add the parameter channel, once for each channel")
	case n > h.options.MaxChannels:
		return invalid("%d channels, at most %d are allowed (sse.Options.MaxChannels)", n, h.options.MaxChannels)
	}
	return nil
}

// parseAuth reads the client's token.
func (h *handler) parseAuth(want *request, r *http.Request, inURL string) *seam.Refusal {
	auth := inURL
	scheme, bearer, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	inHeader := ok && strings.EqualFold(scheme, "Bearer")
	if inHeader {
		auth = strings.TrimSpace(bearer)
	}
	if auth == "" {
		return nil
	}
	want.auth = auth
	if !strings.HasPrefix(auth, token.Prefix) {
		if h.server.OwnAuthorizer {
			return nil
		}
		return invalid("the token does not have version 2: a token of version 1 is for a connection that does not exist yet")
	}
	now := h.server.Now()
	claims, _, err := h.tokens.Verify(auth, now)
	if err != nil { // it is refused, and logged, as for all protocols
		return nil
	}
	life := claims.Expires.Sub(claims.Issued)
	switch {
	case !claims.Expires.IsZero() && !now.Before(claims.Expires):
		return &seam.Refusal{
			Status:  http.StatusUnauthorized,
			Message: "the token has expired",
		}
	case !inHeader && life > maxURLLife:
		return invalid("a token in a URL must expire at most %v after it was signed; "+
			"send others in the header Authorization", maxURLLife)
	case h.server.HasAccept || claims.Conn != "":
	case life > maxBearerLife:
		return invalid("a token must expire at most %v after it was signed, because this server knows its users only "+
			"from tokens (Options.Accept is not set)", maxBearerLife)
	default:
		want.user = claims.User
	}
	return nil
}

// joins are the requests to the core. A stream receives no events about members.
func (q *request) joins() []hub.JoinRequest {
	joins := make([]hub.JoinRequest, len(q.channels))
	for i, channel := range q.channels {
		joins[i] = hub.JoinRequest{
			Channel:  channel,
			Auth:     q.auth,
			Past:     hub.Past{Since: q.since.of(i)},
			Hold:     true,
			Presence: hub.Presence{Mode: hub.PresenceNone},
		}
	}
	return joins
}
