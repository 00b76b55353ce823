package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/gopushy/pushy/broker"
)

var (
	errLost    = errors.New("connection lost")
	errMoved   = errors.New("the Cluster has moved the channels")
	errFormat  = errors.New("unknown format")
	errReplica = errors.New("the server is a replica, which does not accept writes")
	errDeaf    = errors.New("the connection with the subscriptions is open, but messages do not arrive on it")
	errOther   = errors.New("another server answers at the address")
)

// awayError marks a SettingError that can be temporary: no server answers at this time.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

// isSetting reports whether an error means that an option is wrong, and not that Redis is
// away.
func isSetting(err error) bool {
	var setting *SettingError
	var away awayError
	return errors.As(err, &setting) && !errors.As(err, &away)
}

func contains(err error, words ...string) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// isRole reports whether an error means that the server does not accept writes now, because
// it is a replica or is starting. Its clients must reconnect. In errors of scripts, Redis 6
// puts the code into the middle of the message.
func isRole(err error) bool {
	return contains(err, "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", errReplica.Error())
}

// isForbidden reports whether the user lacks a permission. In errors of scripts, each
// version of Redis has another message for it.
func isForbidden(err error) bool {
	return contains(err, "NOPERM", "ACL failure", "no permissions", "No permissions", "user executing the script can't")
}

// explain returns the *SettingError for an error of a new connection. It is an awayError if
// no option is wrong.
func (o *Options) explain(err error) error {
	var known *SettingError
	if err == nil || errors.As(err, &known) {
		return err
	}
	where := strings.Join(o.Addresses, ", ")
	setting := "Addresses"
	switch {
	case contains(err, "x509: ", "tls: "):
		setting = "TLS"
		err = fmt.Errorf("no TLS connection to %s: %w", where, err)
	case contains(err, "WRONGPASS", "without any password configured"):
		setting = "Password"
		err = fmt.Errorf("the password is not accepted: %w", err)
	case contains(err, "NOAUTH"):
		setting = "Password"
		err = fmt.Errorf("a password is required: %w", err)
	case contains(err, wordVersion):
		return versionError(err)
	case isForbidden(err):
		setting = "Username"
		err = fmt.Errorf("the user lacks a permission that pushy needs: %w", err)
	case contains(err, "DENIED"):
		err = fmt.Errorf("the server at %s is in protected mode: set a password, or bind it to one address", where)
	case contains(err, "cluster support disabled"):
		setting = "Cluster"
		err = fmt.Errorf("%s is not a Redis Cluster: %w", where, err)
	case contains(err, "DB index", "SELECT is not allowed"):
		setting = "Database"
	case contains(err, "No such master"):
		setting = "SentinelMaster"
		err = fmt.Errorf("the Sentinels do not know %q", o.SentinelMaster)
	case o.SentinelMaster != "" && contains(err, "unknown command", "ERR unknown"):
		err = fmt.Errorf("%s is not a Sentinel: %w", where, err)
	case isRole(err):
		err = awayError{fmt.Errorf("%s does not accept writes: %w", where, err)}
	case isAnswer(err):
		err = awayError{fmt.Errorf("the server at %s refuses the connection: %w", where, err)}
	default:
		err = awayError{fmt.Errorf("no Redis server answers at %s: %w", where, err)}
	}
	return &SettingError{Setting: setting, Err: err}
}

// serverError is an error reply to a command of register, without rueidis.
type serverError string

func (e serverError) Error() string { return string(e) }

// isAnswer reports whether an error is a reply of a server.
func isAnswer(err error) bool {
	var answer serverError
	_, isReply := rueidis.IsRedisErr(err)
	return isReply || errors.As(err, &answer)
}

// explainTLS tests whether a connection failed because only one side uses TLS. The original
// error does not tell.
func (o *Options) explainTLS(ctx context.Context, err error) error {
	var unreachable *net.OpError
	if isSetting(err) || errors.As(err, &unreachable) && unreachable.Op == "dial" {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(o.Timeout, time.Second))
	defer cancel()
	address := o.Addresses[0]
	conn, dialErr := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if dialErr != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if o.TLS == nil {
		// Nothing is sent over this connection, so the certificate need not be verified.
		handshakeErr := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
		var alert tls.AlertError
		if handshakeErr == nil || errors.As(handshakeErr, &alert) || contains(handshakeErr, "remote error: tls") {
			return wrong("TLS", "the server at %s uses TLS, but this option is not set", address)
		}
		return err
	}
	if _, writeErr := conn.Write([]byte("PING\r\n")); writeErr != nil {
		return err
	}
	first, readErr := bufio.NewReader(conn).ReadByte()
	if readErr == nil && (first == '+' || first == '-') {
		return wrong("TLS", "is set, but the server at %s does not use TLS", address)
	}
	if alert := o.alert(address); alert != nil {
		return wrong("TLS", "no TLS connection to %s: %w", address, alert)
	}
	return err
}

// alert returns the TLS alert that a server sends after the handshake, such as that a client
// certificate is required, or nil. A client that writes at once can get a connection reset
// instead of the alert.
func (o *Options) alert(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), min(o.Timeout, time.Second))
	defer cancel()
	dialer := tls.Dialer{Config: o.TLS}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetReadDeadline(deadline)
	if _, err := conn.Read(make([]byte, 1)); contains(err, "tls: ") {
		return err
	}
	return nil
}

// away returns an error that wraps ErrAway.
func away(what string, err error) error {
	return fmt.Errorf("redis: %s: %w: %w", what, broker.ErrAway, err)
}

func wrapped(what string, err error) error { return fmt.Errorf("redis: %s: %w", what, err) }

// versionError returns the error for nodes of another format. Their version is at the end of
// the script's error.
func versionError(err error) error {
	_, other, _ := strings.Cut(err.Error(), wordVersion+" ")
	other, _, _ = strings.Cut(other, " ")
	return &SettingError{
		Setting: "Prefix",
		Err: fmt.Errorf("%w: they have version %q, this node has version %d",
			broker.ErrVersion, other, broker.FormatVersion),
	}
}

// isMoved reports whether an error means that the Cluster has moved a slot.
func isMoved(err error) bool {
	if reply, ok := rueidis.IsRedisErr(err); ok {
		_, moved := reply.IsMoved()
		_, asked := reply.IsAsk()
		return moved || asked || reply.IsClusterDown()
	}
	return false
}
