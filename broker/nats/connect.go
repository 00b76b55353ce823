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

// callbacks are called by a connection, never concurrently.
type callbacks struct {
	up         func(nc *natsgo.Conn)             // connected, first or again
	down       func(err error)                   // was connected, or could not
	asyncError func(*natsgo.Subscription, error) // a slow consumer, for one
}

// connect returns a connection that reconnects until it is closed. It may not be connected
// yet, unless RequireAtStart is set. The error is a *SettingError.
func (o settings) connect(ctx context.Context, name string, e callbacks) (*natsgo.Conn, error) {
	c := natsgo.GetDefaultOptions()
	c.Name = name
	for _, s := range o.servers {
		c.Servers = append(c.Servers, s.withUser())
		if u := s.url.User; u != nil && c.User == "" && c.Token == "" {
			// The addresses of servers that NATS announces do not contain it.
			if password, has := u.Password(); has {
				c.User = u.Username()
				c.Password = password
			} else {
				c.Token = u.Username()
			}
		}
	}
	if err := o.authenticate(&c); err != nil {
		return nil, err
	}
	c.InboxPrefix = o.InboxPrefix
	c.TLSConfig = o.TLS
	c.Secure = o.TLS != nil
	c.Timeout = o.Timeout
	c.FlusherTimeout = o.Timeout
	if deadline, has := ctx.Deadline(); has {
		each := time.Until(deadline) / time.Duration(len(o.servers))
		c.Timeout = max(min(c.Timeout, each), time.Millisecond)
	}
	// Pings detect a server that does not answer.
	c.PingInterval = o.Timeout / 2
	c.MaxPingsOut = 1
	// A message that is published while NATS is away must not be sent later, because its
	// publisher receives an error.
	c.ReconnectBufSize = -1
	c.MaxReconnect = -1
	c.IgnoreAuthErrorAbort = true
	c.CustomReconnectDelayCB = backoff
	c.ConnectedCB = e.up
	c.ReconnectedCB = e.up
	c.DisconnectedErrCB = func(_ *natsgo.Conn, err error) { e.down(o.explain(err)) }
	c.ReconnectErrCB = c.DisconnectedErrCB
	c.AsyncErrorCB = func(_ *natsgo.Conn, sub *natsgo.Subscription, err error) { e.asyncError(sub, err) }
	nc, err := c.Connect()
	// A server that refuses the certificate sends the reason and closes the connection. It is
	// chance which of the two this node detects first.
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
	explained := o.explain(err)
	if o.RequireAtStart || isRefusal(err) {
		return nil, explained
	}
	e.down(explained)
	c.RetryOnFailedConnect = true
	c.Timeout = o.Timeout
	if nc, err = c.Connect(); err != nil {
		return nil, o.explain(err)
	}
	return nc, nil
}

// wantsTLS reports whether a server requires TLS although the scheme is ws. The error of
// nats.go does not tell.
func (o settings) wantsTLS() bool {
	s := o.servers[0]
	if s.url.Scheme != "ws" || o.TLS != nil {
		return false
	}
	address := s.url.Host
	if s.url.Port() == "" {
		address = net.JoinHostPort(s.url.Hostname(), "80")
	}
	// Nothing is sent over this connection, so the certificate need not be verified.
	dialer := &net.Dialer{Timeout: min(o.Timeout, time.Second)}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

const handshakeRetries = 8

// backoff returns the pause before the servers are tried again.
func backoff(attempts int) time.Duration {
	most := min(50*time.Millisecond<<min(attempts, 6), 2*time.Second)
	return most/2 + rand.N(most/2)
}

// isUnauthorized reports whether err means that NATS does not accept this node's user.
func isUnauthorized(err error) bool {
	for _, refusal := range []error{natsgo.ErrAuthorization, natsgo.ErrAuthExpired, natsgo.ErrAuthRevoked,
		natsgo.ErrAccountAuthExpired, natsgo.ErrNkeysNotSupported} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// isInsecure reports whether err means that the TLS handshake failed, or that only one side
// uses TLS.
func isInsecure(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	return errors.As(err, &certificate) || errors.As(err, &record) ||
		errors.As(err, &op) && op.Op == "remote error" || // an alert, such as "certificate required"
		errors.Is(err, natsgo.ErrSecureConnRequired) || errors.Is(err, natsgo.ErrSecureConnWanted)
}

// isRefusal reports whether err is about this node's settings, and so is not temporary.
func isRefusal(err error) bool {
	return isUnauthorized(err) || isInsecure(err) || errors.Is(err, natsgo.ErrPermissionViolation)
}

// explain returns the *SettingError for an error of the connection.
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
