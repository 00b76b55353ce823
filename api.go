package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/strictjson"
)

// apiPath is where the signed API is served, after Options.Prefix (PROTOCOL.md, section 15).
const apiPath = "/api/"

// apiRun runs a call whose body is valid. The answer is encoded as JSON.
type apiRun func(ctx context.Context, c *httpapi.Call) (answer any, refused *httpapi.Refusal)

// apiCall is one call of the signed API.
type apiCall struct {
	// query means that the call changes nothing. Its id is not remembered.
	query bool
	// parse validates a body. It changes nothing.
	parse func(body []byte) (apiRun, *httpapi.Refusal)
	// shorten returns a short form of an answer, from which lengthen makes the answer to the
	// same body again. nil means that the JSON of the answer is stored.
	shorten  func(answer any) []byte
	lengthen func(body, short []byte) (answer any, ok bool)
}

// newCall returns a call whose body is decoded into a T. check validates the body; its error
// begins with the place, such as "events[3].channels[0]: must not contain :".
func newCall[T any](query bool, check func(T) (apiRun, *httpapi.Refusal)) apiCall {
	decoder, err := strictjson.New[T]()
	if err != nil {
		panic("pushy: " + err.Error()) // a mistake in T
	}
	return apiCall{
		query: query,
		parse: func(body []byte) (apiRun, *httpapi.Refusal) {
			if len(body) == 0 {
				body = []byte("{}")
			}
			value, err := decoder.Decode(body)
			if err != nil {
				message := err.Error()
				if rest, whole := strings.CutPrefix(message, "data "); whole {
					message = "the body " + rest
				}
				return nil, httpapi.Refuse(http.StatusBadRequest, message)
			}
			return check(value)
		},
	}
}

// newAPI sets what the signed API needs.
func (s *Server) newAPI(b broker.Broker) {
	s.calls = map[string]apiCall{
		"publish":     s.publishCall(),
		"channels":    s.channelsCall(),
		"members":     s.membersCall(),
		"connections": s.connectionsCall(),
		"history":     s.historyCall(),
		"position":    s.positionCall(),
		"kick":        s.kickCall(),
		"unban":       s.unbanCall(),
		"bans":        s.bansCall(),
		"send":        s.sendCall(),
	}
	s.signed = httpapi.SignedReader{
		BodyTimeout: limit.Or(s.opts.BodyTimeout, forever),
		Now:         s.now,
		Started:     func() time.Time { return s.idsSince },
	}
	for _, key := range s.keys {
		s.signed.Keys = append(s.signed.Keys, httpapi.SigningKey{
			ID:     sign.KeyID(key),
			Secret: key,
		})
	}
	ledger, shared := b.(broker.Ledger)
	if !shared {
		own := memory.New()
		_ = own.Open(context.Background(), broker.OpenOptions{Node: s.node, Lease: s.opts.Grace}, noSink{}) // cannot fail
		ledger = own
	}
	s.ledger = ledger
	s.sharedLedger = shared
	if volatile, ok := ledger.(broker.VolatileLedger); ok {
		s.idsSince = volatile.LedgerSince()
	}
	// Without a shared Ledger, another node has no answer: it needs the IDs.
	if _, can := s.opts.Broker.(broker.IDForgetter); shared && (can || s.local) {
		s.finished.ids, _ = b.(broker.IDForgetter)
	}
	s.finished.notices = s.notices
}

// noSink is the Sink of a broker that serves only as a Ledger.
type noSink struct{}

var _ broker.Sink = noSink{}

func (noSink) Deliver(string, broker.Entry)       {}
func (noSink) Reset(string, broker.State, string) {}

// apiName returns the name of the call from the path of a request under the prefix.
func apiName(rest string) (name string, ok bool) { return strings.CutPrefix(rest, apiPath) }

// serveAPI serves the signed API (PROTOCOL.md, section 15).
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request, name string) {
	answer, refused := s.answerAPI(w, r, name)
	if refused != nil {
		if code, reason, fault := refused.Fault(); fault {
			s.notices.Warn("signed request refused", code,
				slog.String("code", code),
				slog.String("call", httperror.Shown(name)),
				slog.String("hint", httperror.Shown(reason)))
		}
		refused.Write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(answer)
}

func (s *Server) answerAPI(w http.ResponseWriter, r *http.Request, name string) ([]byte, *httpapi.Refusal) {
	call, known := s.calls[name]
	switch {
	case len(s.keys) == 0:
		return nil, httpapi.Refuse(http.StatusNotFound, "the signed API is off here: Options.SecretKey is not set")
	case !known:
		return nil, httpapi.Refuse(http.StatusNotFound, "there is no call "+httperror.Shown(name))
	}
	c, refused := s.signed.Read(w, r, apiPath+name)
	if refused != nil {
		return nil, refused
	}
	s.usedKey(2, c.KeyID)
	run, refused := call.parse(c.Body)
	if refused != nil {
		return nil, refused
	}
	if !call.query {
		return s.once(r.Context(), c, call, run)
	}
	answer, refused := run(r.Context(), c)
	if refused != nil {
		return nil, refused
	}
	return s.encodeAnswer(name, answer)
}

func (s *Server) encodeAnswer(call string, answer any) ([]byte, *httpapi.Refusal) {
	if own, ok := answer.(interface{ JSON() jsvalue.Object }); ok {
		return own.JSON(), nil
	}
	encoded, err := jsvalue.Encode(answer)
	if err != nil {
		s.notices.Warn("cannot encode the answer of the signed API", call, slog.Any("error", err))
		return nil, httpapi.Refuse(http.StatusInternalServerError, "Internal error")
	}
	return encoded, nil
}

func badPlace(place string, format string, args ...any) *httpapi.Refusal {
	return httpapi.Refuse(http.StatusBadRequest, place+": "+fmt.Sprintf(format, args...))
}

// badName returns the Refusal of a name.
func badName(place string, err error) *httpapi.Refusal {
	if errors.Is(err, names.ErrNotChecked) {
		return httpapi.Refuse(http.StatusInternalServerError, "Internal error")
	}
	return badPlace(place, "%v", err)
}

// dataOf returns the data of an event in a body without its whitespace, and {} if it is missing.
func (s *Server) dataOf(place string, raw json.RawMessage) ([]byte, *httpapi.Refusal) {
	if raw == nil {
		return []byte("{}"), nil
	}
	data, err := jsvalue.Compact(make([]byte, 0, len(raw)), raw, jsvalue.TriggerLimits)
	if err != nil {
		return nil, badPlace(place, "%v", err)
	}
	if err := s.checkSize(data); err != nil {
		return nil, httpapi.Refuse(http.StatusRequestEntityTooLarge, place+": "+err.Error())
	}
	return data, nil
}
