package pushy

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/httpapi"
	"github.com/gopushy/pushy/internal/jsvalue"
)

const (
	// copyWait is how long a request waits for another one with the same id that is under way.
	copyWait = 10 * time.Second
	// copyPoll is how often it looks: the pause begins with the first and grows to the second.
	copyPoll, copyPollMax = 10 * time.Millisecond, 500 * time.Millisecond
	// runTimeout bounds a call, so that it ends before another node may take it over.
	runTimeout = broker.ClaimTimeout - 5*time.Second
	// storedHead is the form of a stored answer and its time. maxStored is the largest
	// answer that a Ledger stores after that.
	storedHead = 1 + 8
	maxStored  = 4<<10 - storedHead
	// rerunFor is how long after a request it can be run again without an effect. It is shorter
	// than the time for which a broker remembers the IDs of entries, 20 minutes, because the
	// clocks of nodes differ.
	rerunFor = 15 * time.Minute
)

// The forms in which the Ledger has the answer to a request, after which follows the time of the
// answer in Unix seconds. An answer that does not fit is made again by running the request again,
// which changes nothing for rerunFor: its entries have IDs. Those of other requests are forgotten.
const (
	storedJSON     = 'j'
	storedShort    = 's'
	storedComplete = 'c'
)

// content identifies the content of a request: its path and body. A request that is signed anew
// has the same content.
func content(c *httpapi.Call) string {
	h := sha256.New()
	_, _ = h.Write([]byte(c.Path + "\n")) // never returns an error
	_, _ = h.Write(c.Body)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// once runs a call unless a request with the same key id and id was complete within
// Options.RepeatWindow. Then it returns the answer to that request.
func (s *Server) once(ctx context.Context, c *httpapi.Call, call apiCall, run apiRun) ([]byte, *httpapi.Refusal) {
	key, digest := broker.RequestPrefix+c.KeyID+":"+c.ID, content(c)
	claim, refused := s.claim(ctx, c, key, digest)
	if refused != nil {
		return nil, refused
	}
	// A call does not end with the request: a publisher that leaves, or middleware with a
	// deadline, must not make an event look lost that a Broker has taken.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runTimeout)
	defer cancel()
	if claim.State == broker.Finished {
		if answer, ok := s.remembered(call, c, claim.Answer); ok {
			return answer, nil
		}
		if !s.canRerun(claim.Answer) {
			return nil, httpapi.Refuse(http.StatusConflict, "Id "+c.ID+" was used, and its answer is not stored")
		}
		answer, refused := run(ctx, c)
		if refused != nil {
			return nil, refused
		}
		return s.encodeAnswer(c.Path, answer)
	}
	complete := false
	defer func() {
		if complete {
			return
		}
		// The same request may be sent again at once. If this fails, it is refused with 503
		// until the claim expires.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
		defer cancel()
		_ = s.ledger.Release(ctx, key, digest)
	}()
	answer, refused := run(ctx, c)
	if refused != nil {
		return nil, refused
	}
	encoded, refused := s.encodeAnswer(c.Path, answer)
	if refused != nil {
		return nil, refused
	}
	complete = true
	stored := s.store(call, answer, encoded)
	if err := s.ledger.Finish(ctx, key, digest, stored); err != nil {
		s.notices.Warn("cannot remember the answer to a signed request", "",
			slog.Any("error", err),
			slog.String("hint", "it was done; the same request is refused with 503 for 30 s, and then changes nothing"))
	} else if p, ok := answer.(published); ok && stored[0] != storedComplete && !claim.Again {
		// With Again, another node may have stopped before it has published.
		s.finished.add(p.made)
	}
	return encoded, nil
}

// claim claims the id of a request. It waits while another request with that id is under way.
// The result is Claimed or Finished.
func (s *Server) claim(ctx context.Context, c *httpapi.Call, key, digest string) (broker.Claim, *httpapi.Refusal) {
	ctx, cancel := context.WithTimeout(ctx, copyWait)
	defer cancel()
	for pause := copyPoll; ; pause = min(2*pause, copyPollMax) {
		claim, err := s.ledger.Claim(ctx, key, digest, s.opts.RepeatWindow)
		switch {
		case errors.Is(err, broker.ErrBusy):
			s.notices.Warn("signed request refused: too many ids are remembered", "",
				slog.String("hint", "the Ledger of the Broker is full: send fewer requests, or several events with each"))
			return claim, httpapi.RefuseRetry(10*time.Second, "Too many ids are remembered")
		case err != nil && ctx.Err() == nil:
			if !errors.Is(err, broker.ErrAway) && !errors.Is(err, broker.ErrClosed) {
				s.notices.Warn("signed request refused: the Ledger of the Broker failed", "", slog.Any("error", err))
			}
			return claim, httpapi.Unavailable()
		case err == nil && claim.State == broker.Mismatch:
			return claim, httpapi.Refuse(http.StatusConflict, "Id "+c.ID+" was used with another path or body")
		case err == nil && claim.State != broker.Pending:
			return claim, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return claim, httpapi.RefuseRetry(time.Second, "The same request is still under way")
		}
	}
}

// store returns what the Ledger stores of an answer.
func (s *Server) store(call apiCall, answer any, encoded []byte) []byte {
	form, short := byte(storedJSON), encoded
	if call.shorten != nil {
		form, short = storedShort, call.shorten(answer)
	}
	if len(short) > maxStored {
		form, short = storedComplete, nil
	}
	out := make([]byte, 0, storedHead+len(short))
	out = binary.BigEndian.AppendUint64(append(out, form), uint64(s.now().Unix()))
	return append(out, short...)
}

// canRerun reports whether the request of a stored answer can be run again without an effect.
func (s *Server) canRerun(stored []byte) bool {
	if len(stored) < storedHead || stored[0] != storedComplete {
		return false
	}
	at := time.Unix(int64(binary.BigEndian.Uint64(stored[1:storedHead])), 0)
	return s.now().Sub(at).Abs() < rerunFor
}

// remembered returns the answer that the Ledger has stored. Other programs can write to its
// store, so the answer may be invalid; then ok is false.
func (s *Server) remembered(call apiCall, c *httpapi.Call, stored []byte) (answer []byte, ok bool) {
	if len(stored) < storedHead {
		return nil, false
	}
	form, stored := stored[0], stored[storedHead:]
	switch {
	case form == storedJSON:
		encoded, err := jsvalue.Compact(nil, stored, jsvalue.Limits{})
		return encoded, err == nil
	case form == storedShort && call.lengthen != nil:
		long, ok := call.lengthen(c.Body, stored)
		if !ok {
			return nil, false
		}
		encoded, refused := s.encodeAnswer(c.Path, long)
		return encoded, refused == nil
	}
	return nil, false
}
