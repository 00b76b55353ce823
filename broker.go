package pushy

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/untrusted"
)

// Bounds on what arrives from a broker of the host's. Other nodes may have other
// Limits, so these are far above what a node would send by default.
const (
	maxEventBytes  = 16 << 20
	maxMemberBytes = 256 << 10
)

// checked is a broker of the host's whose deliveries are checked, and whose panics, and
// calls of runtime.Goexit, are errors of the one call. What the broker works with may be
// written to by others, so nothing of it is trusted: what is broken is skipped, with one
// log line a minute.
func (s *Server) checked(b broker.Broker) broker.Broker {
	l := s.opts.Limits
	// A node must be able to receive what it lets its own clients send.
	return untrusted.Wrap(b, untrusted.Options{
		EventBytes:  max(maxEventBytes, l.TriggerBytes),
		MemberBytes: max(maxMemberBytes, 2*limit.Or(l.PresenceBytes, 0)),
		GapEvent:    hub.GapEvent,
		Call:        s.callBroker,
		Failed:      func(name string, p any) error { return s.callFailed(name, failed(p)) },
		Readable:    readable,
		Skipped: func(kind, channel string, reason error) {
			s.notices.Warn(kind, "", slog.String("channel", channel), slog.Any("reason", reason))
		},
	})
}

// callBroker runs one call of the host's broker.
func (s *Server) callBroker(name string, run func() error) (err error) {
	if f := hosted(func() { err = readable(run()) }); f != nil {
		return s.callFailed(name, f)
	}
	return err
}

// callFailed logs a call of the host's broker that did not return, and turns it into
// that call's error.
func (s *Server) callFailed(name string, f *failure) error {
	attrs := append([]slog.Attr{slog.String("call", name)}, f.attrs()...)
	s.notices.Warn("a call of the broker "+f.String(), name, attrs...)
	return fmt.Errorf("%s: %w", name, f)
}

// closeBroker closes the broker of a Server that could not be made. One that was not
// opened has nothing to close, and says so.
func closeBroker(b broker.Broker) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	if f := hosted(func() { err = readable(b.Close(ctx)) }); f != nil {
		return fmt.Errorf("Broker.Close: %w", f)
	}
	if errors.Is(err, broker.ErrClosed) {
		return nil
	}
	return err
}

// settings are what must be equal on all nodes. Options.Channel must be, too, but a func
// cannot be compared.
func (s *Server) settings() map[string]string {
	return map[string]string{
		"Limits.Members":              strconv.Itoa(max(s.opts.Limits.Members, -1)),
		"SecretKey and OldSecretKeys": keysFingerprint(s.keys),
	}
}

// keysFingerprint is the same for Servers that accept the same keys, whichever of them
// signs. It has 16 bits, since it is written to where the broker keeps its nodes: whoever
// reads it there can exclude guesses at a key and never confirm one, because one guess in
// 65,536 fits by chance. As rarely it does not show that two nodes have different keys.
func keysFingerprint(keys []string) string {
	if len(keys) == 0 {
		return "none"
	}
	ids := make([]string, 0, len(keys))
	for _, key := range keys {
		ids = append(ids, keyID(key))
	}
	slices.Sort(ids)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(ids), ",")))
	return hex.EncodeToString(sum[:2])
}

// keyID names a secret key without giving it away.
func keyID(key string) string {
	mac := hmac.New(sha256.New, []byte(key))
	_, _ = mac.Write([]byte("pushy2-key-id")) // never returns an error
	return hex.EncodeToString(mac.Sum(nil)[:4])
}
