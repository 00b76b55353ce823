package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy/internal/names"
)

// callbacks are what a connection tells its owner, one at a time.
type callbacks struct {
	up      func(nc *natsgo.Conn)             // connected, first or again
	down    func(err error)                   // was connected, or could not
	trouble func(*natsgo.Subscription, error) // a slow consumer, for one
}

// connect returns a connection that lasts until it is closed; it may not be up
// yet, unless RequireAtStart is set. The error is a *SettingError.
func (o Options) connect(ctx context.Context, name string, e callbacks) (*natsgo.Conn, error) {
	c := natsgo.GetDefaultOptions()
	c.Url, c.Name = o.URL, name
	c.User, c.Password, c.Token = o.User, o.Password, o.Token
	c.TLSConfig, c.Secure = o.TLS, o.TLS != nil
	c.Timeout, c.FlusherTimeout = o.Timeout, o.Timeout
	if deadline, has := ctx.Deadline(); has {
		c.Timeout = max(min(c.Timeout, time.Until(deadline)), time.Millisecond)
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
	if o.Credentials != "" {
		if err := natsgo.UserCredentials(o.Credentials)(&c); err != nil {
			return nil, &SettingError{"Credentials", err}
		}
	}
	nc, err := c.Connect()
	if err == nil {
		return nc, nil
	}
	said := o.explain(err)
	if o.RequireAtStart || said.Setting != "URL" {
		return nil, said
	}
	e.down(said)
	c.RetryOnFailedConnect, c.Timeout = true, o.Timeout
	if nc, err = c.Connect(); err != nil {
		return nil, o.explain(err)
	}
	return nc, nil
}

// backoff is how long to wait before the next round of attempts.
func backoff(attempts int) time.Duration {
	most := min(50*time.Millisecond<<min(attempts, 6), 2*time.Second)
	return most/2 + rand.N(most/2)
}

// explain names the setting that an error of the connection is about.
func (o Options) explain(err error) *SettingError {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case err == nil:
		return &SettingError{"URL", errors.New(o.shown() + ": connection lost")}
	case errors.Is(err, natsgo.ErrAuthorization), errors.Is(err, natsgo.ErrAuthExpired), errors.Is(err, natsgo.ErrAuthRevoked), errors.Is(err, natsgo.ErrAccountAuthExpired):
		setting := "Password"
		switch {
		case o.Credentials != "":
			setting = "Credentials"
		case o.Token != "":
			setting = "Token"
		}
		return &SettingError{setting, fmt.Errorf("%s refuses it: %w", o.shown(), err)}
	case errors.As(err, &certificate), errors.As(err, &record), errors.Is(err, natsgo.ErrSecureConnRequired), errors.Is(err, natsgo.ErrSecureConnWanted):
		return &SettingError{"TLS", fmt.Errorf("%s: %w", o.shown(), err)}
	}
	return &SettingError{"URL", fmt.Errorf("%s: %w", o.shown(), err)}
}

// token is a channel's name as one token of a subject.
func token(channel string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(channel) {
		if c := channel[i]; 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// channelOf is token's inverse.
func channelOf(token string) (channel string, ok bool) {
	channel, err := url.PathUnescape(token)
	return channel, err == nil
}

// newID returns a node's id.
func newID() string { return names.RandomHex(8) }
