package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// callbacks are what a connection tells its owner, one at a time.
type callbacks struct {
	up      func(nc *natsgo.Conn)             // connected, first or again
	down    func(err error)                   // was connected, or could not
	trouble func(*natsgo.Subscription, error) // a slow consumer, for one
}

// connect returns a connection that lasts until it is closed; it may not be up
// yet, unless RequireAtStart is set. The error is a *SettingError.
func (o settings) connect(ctx context.Context, name string, e callbacks) (*natsgo.Conn, error) {
	c := natsgo.GetDefaultOptions()
	c.Name = name
	for _, s := range o.servers {
		c.Servers = append(c.Servers, s.withUser())
		if u := s.url.User; u != nil && c.User == "" && c.Token == "" {
			// For the servers that the first tells of, whose addresses have none.
			if password, has := u.Password(); has {
				c.User, c.Password = u.Username(), password
			} else {
				c.Token = u.Username()
			}
		}
	}
	if err := o.authenticate(&c); err != nil {
		return nil, err
	}
	c.InboxPrefix = o.InboxPrefix
	c.TLSConfig, c.Secure = o.TLS, o.TLS != nil
	c.Timeout, c.FlusherTimeout = o.Timeout, o.Timeout
	if deadline, has := ctx.Deadline(); has {
		each := time.Until(deadline) / time.Duration(len(o.servers))
		c.Timeout = max(min(c.Timeout, each), time.Millisecond)
	}
	c.PingInterval, c.MaxPingsOut = o.Timeout/2, 1 // finds a server that is there and silent
	// What is published while away must fail: sent later, it would be a
	// message that its publisher was told is lost.
	c.ReconnectBufSize = -1
	c.MaxReconnect, c.IgnoreAuthErrorAbort = -1, true
	c.CustomReconnectDelayCB = backoff
	c.ConnectedCB, c.ReconnectedCB = e.up, e.up
	c.DisconnectedErrCB = func(_ *natsgo.Conn, err error) { e.down(o.explain(err)) }
	c.ReconnectErrCB = c.DisconnectedErrCB
	c.AsyncErrorCB = func(_ *natsgo.Conn, sub *natsgo.Subscription, err error) { e.trouble(sub, err) }
	nc, err := c.Connect()
	// A server that refuses the certificate closes, and whether its reason or the
	// end of the connection is seen first is chance.
	for range handshakeRetries {
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			break
		}
		nc, err = c.Connect()
	}
	if err == nil {
		return nc, nil
	}
	if !isRefusal(err) && o.wantsTLS() {
		err = fmt.Errorf("%w: %w", natsgo.ErrSecureConnRequired, err)
	}
	said := o.explain(err)
	if o.RequireAtStart || isRefusal(err) {
		return nil, said
	}
	e.down(said)
	c.RetryOnFailedConnect, c.Timeout = true, o.Timeout
	if nc, err = c.Connect(); err != nil {
		return nil, o.explain(err)
	}
	return nc, nil
}

// wantsTLS reports whether a server that was spoken to without TLS over ws wants it:
// nats.go's error says no more than that the answer was not understood.
func (o settings) wantsTLS() bool {
	s := o.servers[0]
	if s.url.Scheme != "ws" || o.TLS != nil {
		return false
	}
	address := s.url.Host
	if s.url.Port() == "" {
		address = net.JoinHostPort(s.url.Hostname(), "80")
	}
	// Nothing is sent over this connection, so nothing need be verified.
	dialer := &net.Dialer{Timeout: min(o.Timeout, time.Second)}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

const handshakeRetries = 8

// backoff is how long to wait before the next round of attempts.
func backoff(attempts int) time.Duration {
	most := min(50*time.Millisecond<<min(attempts, 6), 2*time.Second)
	return most/2 + rand.N(most/2)
}

// isUnauthorized reports whether err says that NATS does not know this node's user.
func isUnauthorized(err error) bool {
	for _, refusal := range []error{natsgo.ErrAuthorization, natsgo.ErrAuthExpired, natsgo.ErrAuthRevoked,
		natsgo.ErrAccountAuthExpired, natsgo.ErrNkeysNotSupported} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// isInsecure reports whether err says that the two sides do not agree on TLS.
func isInsecure(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	return errors.As(err, &certificate) || errors.As(err, &record) ||
		errors.As(err, &op) && op.Op == "remote error" || // an alert, such as "certificate required"
		errors.Is(err, natsgo.ErrSecureConnRequired) || errors.Is(err, natsgo.ErrSecureConnWanted)
}

// isRefusal reports whether err is about this node's settings, and so will not
// pass by itself.
func isRefusal(err error) bool {
	return isUnauthorized(err) || isInsecure(err) || errors.Is(err, natsgo.ErrPermissionViolation)
}

// explain names the setting that an error of the connection is about.
func (o settings) explain(err error) *SettingError {
	at := shown(o.servers)
	switch {
	case err == nil:
		return &SettingError{"URL", errors.New(at + ": connection lost")}
	case isUnauthorized(err):
		setting := o.identity()
		if setting == "User" {
			setting = "Password"
		}
		return &SettingError{setting, fmt.Errorf("%s refuses it: %w", at, err)}
	case isInsecure(err):
		return &SettingError{"TLS", fmt.Errorf("%s: %w", at, err)}
	}
	return &SettingError{"URL", fmt.Errorf("%s: %w", at, err)}
}
