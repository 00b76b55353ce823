package pushy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/limit"
	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/untrusted"
)

// Bounds on what arrives from a broker of the host's. Other nodes may have other
// Limits, so these are far above what a node would send by default.
const (
	maxEventBytes  = 16 << 20
	maxMemberBytes = 256 << 10
)

// checked wraps the broker of the host. It validates deliveries, and turns a panic or
// runtime.Goexit of a method into the error of that call. Other programs may be able to
// write to the broker's store, so invalid entries are skipped, with at most one log line a
// minute for each kind.
func (s *Server) checked(b broker.Broker) broker.Broker {
	l := s.opts.Limits
	// A node must be able to receive what it lets its own clients send.
	return untrusted.Wrap(b, untrusted.Options{
		EventBytes:  max(maxEventBytes, l.TriggerBytes),
		MemberBytes: max(maxMemberBytes, 2*limit.Or(l.PresenceBytes, 0)),
		GapEvent:    hub.GapEvent,
		Call:        s.callBroker,
		Appended:    func(began time.Time, err error) { s.counts.brokerCall("Broker.Append", began, err) },
		Failed:      func(name string, p any) error { return s.callFailed(name, failed(p)) },
		Readable:    readable,
		Skipped: func(kind, channel string, reason error) {
			s.notices.Warn(kind, "", slog.String("channel", channel), slog.Any("reason", reason))
		},
	})
}

// callBroker runs one call of the host's broker.
func (s *Server) callBroker(name string, run func() error) (err error) {
	began := time.Now()
	if f := hosted(func() { err = readable(run()) }); f != nil {
		err = s.callFailed(name, f)
	}
	s.counts.brokerCall(name, began, err)
	return err
}

// callFailed logs a call of the broker that panicked or called runtime.Goexit, and returns
// the error of that call.
func (s *Server) callFailed(name string, f *failure) error {
	attrs := append([]slog.Attr{slog.String("call", name)}, f.attrs()...)
	s.notices.Warn("a call of the broker "+f.String(), name, attrs...)
	return fmt.Errorf("%s: %w", name, f)
}

// closeBroker closes the broker of a Server that could not be created. A broker that was
// not opened returns broker.ErrClosed, which is no error here.
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

// settings returns the options that must be equal on all nodes. Options.Channel must be
// equal, too, but funcs cannot be compared: nodes can tell only whether it is set. If nodes keep
// different numbers of events, hub.Channel finds that when it receives the first one.
func (s *Server) settings() map[string]string {
	channel := "not set"
	if s.opts.Channel != nil {
		channel = "set"
	}
	return map[string]string{
		"Channel":                     channel,
		"Limits.KeepBytes":            strconv.Itoa(max(s.opts.Limits.KeepBytes, -1)),
		"RepeatWindow":                s.opts.RepeatWindow.String(),
		"Grace":                       s.opts.Grace.String(),
		"Limits.PagedMembers":         strconv.Itoa(max(s.opts.Limits.PagedMembers, -1)),
		"Limits.Members":              strconv.Itoa(max(s.opts.Limits.Members, -1)),
		"SecretKey and OldSecretKeys": keysFingerprint(s.keys),
	}
}

// keysFingerprint returns the same string for Servers that accept the same keys, whichever
// key signs. It has only 16 bits, because it is stored in the broker: with it, a reader can
// exclude guesses at a key but never confirm one, since one guess in 65,536 matches by
// chance. With the same probability, two nodes with different keys are not detected.
func keysFingerprint(keys []string) string {
	if len(keys) == 0 {
		return "none"
	}
	ids := make([]string, 0, len(keys))
	for _, key := range keys {
		ids = append(ids, sign.KeyID(key))
	}
	slices.Sort(ids)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(ids), ",")))
	return hex.EncodeToString(sum[:2])
}
