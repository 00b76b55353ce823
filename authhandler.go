package pushy

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/protocol/pushyjson"
	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/token"
)

// AuthHandler returns a handler that gives browsers tokens for private channels. A page
// POSTs the fields channel, which can be repeated up to 100 times, and connection_id, as a
// form or a JSON object. The same origins are allowed as for connections. The func allow
// decides by the request, for example by its session cookie. It is called for one channel at
// a time; see AuthAll. It returns the member's presence data, a value that is encoded as a
// JSON object, or nil. It need not check that connID belongs to the user who sent the request,
// because a token is valid only for that connection. The answer is {"auth":…,"data":…}, or
// {"channels":{…}} for several channels (PROTOCOL.md, section 11); data is what allow
// returned, never what the browser sent. It also says that several channels can be asked for
// ("batch":100), and so do refusals. Bodies are limited to 64 KiB.
//
// The tokens have version 2, and one channel each, because each has its own data. For a client
// that renews its subscriptions, as the browser client does, they end after Options.TokenLife;
// for other clients they are valid as long as the connection, unless Options.DisableV1 is set.
// A client renews if its connection is on this Server and was opened with "v=2", or, if it is
// on another, if the request has a field v with the value 2. Tokens allow client events where
// ChannelOptions.ClientEvent is set. With presence data for which a token of version 2 would
// be over 8 KiB, the token has version 1, unless Options.DisableV1 is set.
//
// If allow returns ErrDenied the status is 403, for ErrNeedAuth it is 401. An *Error is
// answered with its Message and Code and with status 403, or with its Code as the status if
// that is a number from 400 to 499. The browser client does not retry after these. If an
// error wraps several of these, the first *Error decides the message and the code; the
// status is its Code if that is a status, otherwise 401 if the error also wraps
// ErrNeedAuth. Any other error, a panic, and data that Limits.PresenceBytes does not allow
// are answered with status 500, after which the client retries, and are logged at most once
// a minute. In the answer for several channels, each channel has its own status.
func (s *Server) AuthHandler(allow func(r *http.Request, connID, channel string) (data any, err error)) http.Handler {
	return s.authHandler(func(r *http.Request, t *tokenMaker, channels []string, answers []httpapi.AuthAnswer) {
		for i, channel := range channels {
			err := errAllowFailed         // unless it returns
			if r.Context().Err() == nil { // else the client has left
				s.decide("the func given to AuthHandler", func() {
					data, refused := allow(r, t.connID, channel)
					if refused == nil {
						answers[i], refused = t.token(channel, data) // calls MarshalJSON of data
					}
					err = readable(refused)
				})
			}
			if err != nil {
				answers[i] = httpapi.AuthAnswer{Refused: s.refusal(r, channel, err)}
			}
		}
	})
}

// AuthAll is AuthHandler with a func that decides about all channels of a request at once, so
// that it can look the session up once. The names of the channels, of which there is at least
// one, are different and in lower case. The map has, for each channel that the client may
// subscribe to, the presence data or nil; or an error, which has the same meaning as if the
// func of AuthHandler had returned it. A channel that is not in the map is refused as with
// ErrDenied. If allow returns an error, it is that of all channels.
func (s *Server) AuthAll(
	allow func(r *http.Request, connID string, channels []string) (map[string]any, error),
) http.Handler {
	return s.authHandler(func(r *http.Request, t *tokenMaker, channels []string, answers []httpapi.AuthAnswer) {
		var allowed map[string]any
		failed := errAllowFailed // unless it returns
		s.decide("the func given to AuthAll", func() {
			all, refused := allow(r, t.connID, slices.Clone(channels))
			allowed = all
			failed = readable(refused)
		})
		for i, channel := range channels {
			err := failed
			data, known := allowed[channel]
			switch {
			case err != nil:
			case !known:
				err = ErrDenied
			default:
				err = errAllowFailed
				s.decide("the func given to AuthAll", func() {
					refused, is := data.(error)
					if !is {
						answers[i], refused = t.token(channel, data)
					}
					err = readable(refused)
				})
			}
			if err != nil {
				answers[i] = httpapi.AuthAnswer{Refused: s.refusal(r, channel, err)}
			}
		}
	})
}

// authHandler returns the handler of AuthHandler and AuthAll. The func decide sets the answers
// for channels that need a token.
func (s *Server) authHandler(
	decide func(r *http.Request, t *tokenMaker, channels []string, answers []httpapi.AuthAnswer),
) http.Handler {
	h := &httpapi.AuthHandler{
		FromAllowedOrigin: func(w http.ResponseWriter, r *http.Request) bool {
			_, ok := s.fromAllowedOrigin(w, r)
			return ok
		},
		BodyTimeout: limit.Or(s.opts.BodyTimeout, forever),
		Channel:     s.channelName,
		Client: func(connID string, v2 bool) httpapi.AuthClient {
			if c := s.hub.Conn(connID); c != nil {
				v2 = c.Version() >= 2
				return httpapi.AuthClient{
					Renews:  v2,
					Batches: v2,
				}
			}
			return httpapi.AuthClient{
				Renews:  v2,
				Batches: true, // it is not known
			}
		},
		Grant: func(
			r *http.Request, connID string, client httpapi.AuthClient, channels []string,
		) []httpapi.AuthAnswer {
			answers := make([]httpapi.AuthAnswer, len(channels))
			t := &tokenMaker{
				srv:    s,
				connID: connID,
				ends:   client.Renews || s.opts.DisableV1,
				events: map[string]bool{},
			}
			var private []string // those that need a token
			var places []int
			for i, channel := range channels {
				if s.needsToken(r, t, channel, &answers[i]) {
					private = append(private, channel)
					places = append(places, i)
				}
			}
			if len(private) == 0 {
				return answers
			}
			decided := make([]httpapi.AuthAnswer, len(private))
			decide(r, t, private, decided)
			for i, place := range places {
				answers[place] = decided[i]
			}
			return answers
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, release := s.countBody(r)
		defer release()
		h.ServeHTTP(w, r)
	})
}

// needsToken reports whether a channel needs a token. Otherwise it sets the answer.
func (s *Server) needsToken(r *http.Request, t *tokenMaker, channel string, answer *httpapi.AuthAnswer) bool {
	policy, err := s.hub.PolicyOf(channel)
	switch {
	case err != nil:
		answer.Refused = httpapi.Refuse(http.StatusInternalServerError, "Internal error")
	case !policy.Private && names.Private(channel):
		// Clients that go by the name ask for a token first, and give up if they are refused.
	case !policy.Private:
		answer.Refused = httpapi.Refuse(http.StatusForbidden, "the channel is not private: it needs no token")
	case s.opts.SecretKey == "":
		answer.Refused = s.refusal(r, channel, errNoKey)
	default:
		t.events[channel] = policy.ClientEvents
		return true
	}
	return false
}

// tokenMaker makes the tokens of one request.
type tokenMaker struct {
	srv    *Server
	connID string
	ends   bool            // the tokens end after Options.TokenLife
	events map[string]bool // the channels that need a token, and whether clients can send events
}

// token returns the token for a channel, with the presence data that the host has returned.
func (t *tokenMaker) token(channel string, data any) (a httpapi.AuthAnswer, err error) {
	s := t.srv
	raw, err := jsvalue.EncodePresence(data)
	if err != nil {
		return a, err
	}
	if _, refused := pushyjson.PresenceFields(raw, s.opts.Limits.PresenceBytes); refused != nil {
		return a, refused
	}
	now := s.now()
	claims := token.Claims{
		Channels: []string{channel},
		Conn:     t.connID,
		Issued:   now,
		Data:     raw,
		Publish:  t.events[channel],
	}
	if t.ends {
		claims.Expires = time.Unix(now.Add(s.opts.TokenLife).Unix(), 0)
		a.Expires = claims.Expires.UnixMilli()
	}
	a.Data = raw
	a.Auth, err = token.Sign(s.opts.SecretKey, claims, now)
	if errors.Is(err, token.ErrSize) && !s.opts.DisableV1 {
		a.Expires = 0
		a.Auth, err = sign.Token(s.opts.SecretKey, t.connID, channel, raw)
	}
	return a, err
}

var (
	errAllowFailed = errors.New("pushy: the func given to AuthHandler failed")
	errNoKey       = errors.New("pushy: AuthHandler cannot sign tokens: Options.SecretKey is empty")
)

// refusal is AuthHandler's answer to an error.
func (s *Server) refusal(r *http.Request, channel string, err error) *httpapi.Refusal {
	seen := visible(err)
	if seen != nil || errors.Is(err, ErrNeedAuth) || errors.Is(err, ErrDenied) {
		refusal := &httpapi.Refusal{Status: refusedStatus(err)}
		if seen != nil {
			refusal.Code = seen.Code
			refusal.Message = seen.Message
		}
		if refusal.Message == "" {
			refusal.Message = "not authorized"
			if refusal.Status == http.StatusUnauthorized {
				refusal.Message = "authentication needed"
			}
		}
		return refusal
	}
	if !errors.Is(err, errAllowFailed) && r.Context().Err() == nil { // else it is logged, or the client has left
		hint := "to refuse a client return pushy.ErrDenied, pushy.ErrNeedAuth or an *pushy.Error"
		var data *pushyjson.PresenceError
		if errors.As(err, &data) {
			hint = "the data that the func given to AuthHandler returned cannot be used for presence"
		}
		s.notices.Warn("AuthHandler cannot give a token", "",
			slog.String("channel", channel),
			slog.String("error", err.Error()),
			slog.String("hint", hint))
	}
	return httpapi.Refuse(http.StatusInternalServerError, "Internal error")
}
