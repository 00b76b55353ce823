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
	errReplica = errors.New("the server is a replica, which takes no writes")
	errOther   = errors.New("another server answers at the address")
)

// awayError is a SettingError that may right itself: nobody answers there now.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

// isSetting reports whether an error is about Options that are wrong, and not about
// a Redis that is away.
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

// isRole reports whether an error says that the server does not take writes now: it
// is a replica, perhaps since a moment ago, or it is starting. Its clients must
// connect again. Inside of a script Redis 6 puts the code into the middle.
func isRole(err error) bool {
	return contains(err, "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", errReplica.Error())
}

// isForbidden reports whether the user lacks a permission. Inside of a script each
// version of Redis words it differently.
func isForbidden(err error) bool {
	return contains(err, "NOPERM", "ACL failure", "no permissions", "No permissions", "user executing the script can't")
}

// explain says which setting an error of a new connection is about. An error that
// is about none is an awayError.
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
		err = fmt.Errorf("it is not accepted: %w", err)
	case contains(err, "NOAUTH"):
		setting = "Password"
		err = fmt.Errorf("one is required: %w", err)
	case contains(err, wordVersion):
		return versionError(err)
	case isForbidden(err):
		setting = "Username"
		err = fmt.Errorf("the user lacks a permission that pushy needs: %w", err)
	case contains(err, "DENIED"):
		err = fmt.Errorf("the server at %s is in protected mode: give it a password, or have it bind to one address", where)
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
		err = awayError{fmt.Errorf("%s does not take writes: %w", where, err)}
	case isAnswer(err):
		err = awayError{fmt.Errorf("the server at %s refuses: %w", where, err)}
	default:
		err = awayError{fmt.Errorf("nobody answers as Redis at %s: %w", where, err)}
	}
	return &SettingError{Setting: setting, Err: err}
}

// serverError is an error that the server answered before rueidis had the connection.
type serverError string

func (e serverError) Error() string { return string(e) }

// isAnswer reports whether an error is what a server answered.
func isAnswer(err error) bool {
	var answer serverError
	_, said := rueidis.IsRedisErr(err)
	return said || errors.As(err, &answer)
}

// explainTLS finds out whether a connection failed because only one side uses TLS:
// the error itself says no more than that nothing was understood.
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
		// Nothing is sent over this connection, so nothing need be verified.
		shaken := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
		var alert tls.AlertError
		if shaken == nil || errors.As(shaken, &alert) || contains(shaken, "remote error: tls") {
			return wrong("TLS", "the server at %s speaks TLS, but Options.TLS is not set", address)
		}
		return err
	}
	if _, writeErr := conn.Write([]byte("PING\r\n")); writeErr != nil {
		return err
	}
	first, readErr := bufio.NewReader(conn).ReadByte()
	if readErr == nil && (first == '+' || first == '-') {
		return wrong("TLS", "it is set, but the server at %s does not speak TLS", address)
	}
	if alert := o.alert(address); alert != nil {
		return wrong("TLS", "no TLS connection to %s: %w", address, alert)
	}
	return err
}

// alert returns what a server says against a TLS connection after the handshake,
// such as that a client certificate is required: a client that writes at once may
// get no more than a reset.
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

// away says that the store cannot be reached.
func away(what string, err error) error {
	return fmt.Errorf("redis: %s: %w: %w", what, broker.ErrAway, err)
}

func wrapped(what string, err error) error { return fmt.Errorf("redis: %s: %w", what, err) }

// versionError names the version of other nodes, which ends the error of a script.
func versionError(err error) error {
	_, other, _ := strings.Cut(err.Error(), wordVersion+" ")
	other, _, _ = strings.Cut(other, " ")
	return &SettingError{
		Setting: "Prefix",
		Err:     fmt.Errorf("%w: version %q, and this node has version %d", broker.ErrVersion, other, broker.FormatVersion),
	}
}

// isMoved reports whether an error says that the Cluster has moved a slot.
func isMoved(err error) bool {
	if said, ok := rueidis.IsRedisErr(err); ok {
		_, moved := said.IsMoved()
		_, asked := said.IsAsk()
		return moved || asked || said.IsClusterDown()
	}
	return false
}
