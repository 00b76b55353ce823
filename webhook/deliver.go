package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/gopushy/pushy/internal/guard"
	"github.com/gopushy/pushy/internal/names"
)

const (
	tryTimeout = 10 * time.Second
	firstPause = time.Second
	maxPause   = time.Minute
	maxAnswer  = 4 << 10
)

// outcome is what became of a request with all its tries.
type outcome uint8

const (
	accepted outcome = iota + 1
	expired          // the receiver did not accept it for form.trying
	refused          // the receiver wants no more requests
	aborted          // ctx has ended, or another node sends
)

// post sends events until the receiver has accepted them.
func (s *Sender) post(ctx context.Context, items []item) outcome {
	id := "msg_" + names.RandomHex(16)
	sent := slices.DeleteFunc(slices.Clone(items), func(it item) bool { return len(it.json) == 0 })
	if len(sent) == 0 {
		return accepted
	}
	content := s.form.body(time.Now(), sent)
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		status, after, err := s.try(ctx, id, content)
		switch {
		case status >= 200 && status < 300:
			return accepted
		case s.form.ends(status):
			return refused
		case ctx.Err() != nil:
			return aborted
		}
		rest := s.form.trying() - time.Since(began)
		if rest <= 0 {
			return expired
		}
		wait := pause/2 + rand.N(pause/2+1)
		wait = min(max(wait, after), rest)
		kind := "the receiver of webhooks does not accept a request; pushy tries again"
		if errors.Is(err, errAddress) {
			kind = "the address of the receiver of webhooks is not allowed; pushy tries again"
		}
		s.notices.Warn(kind, s.opts.Name,
			slog.Int("status", status),
			slog.Any("error", err),
			slog.Int("events", s.queue.len()),
			slog.Duration("wait", wait.Round(time.Millisecond)))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-s.phase.retiring:
		}
		timer.Stop()
		if ctx.Err() != nil || s.phase.isRetired() || !s.isSender() {
			return aborted
		}
	}
}

// try sends a request once. It returns the status of the answer, or 0 without one, and the time
// for which the receiver wants no other request.
func (s *Sender) try(ctx context.Context, id string, content []byte) (status int, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.URL, bytes.NewReader(content))
	if err != nil {
		return 0, 0, err
	}
	now := time.Now()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "pushy-webhook/1")
	s.form.sign(r.Header, id, now, content)
	var answer *http.Response
	err = guard.Call(func() (err error) { // Options.Transport can panic
		answer, err = s.client.Do(r)
		return err
	})
	if err != nil {
		return 0, 0, shortened(err)
	}
	// The rest of a short answer is read, so that the connection can be used again. The answer
	// counts even if it does not end.
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer)
	_ = answer.Body.Close()
	if answer.StatusCode >= 300 {
		after = retryAfter(answer.Header.Get("Retry-After"), now)
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	return answer.StatusCode, after, err
}

// shortened returns the cause of an error of http.Client, without the URL, whose query can be a
// secret.
func shortened(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// retryAfter reads a header Retry-After, which is a number of seconds or a time.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(0, at.Sub(now))
}
