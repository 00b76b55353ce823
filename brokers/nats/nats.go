// Package nats lets pushy Servers on several machines act as one, through a NATS
// server or cluster that they share:
//
//	shared, err := nats.New(ctx, nats.Options{URL: "nats://127.0.0.1:4222"})
//	if err != nil {
//		log.Fatal(err)
//	}
//	srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: shared, Presence: shared})
//
// Events go through core NATS: no storage, one subscription for each channel
// with members on this node, one message a publish. Presence is a log in a
// JetStream stream, so the server needs JetStream (nats-server -js) for it. NATS
// 2.9 and later will do.
//
// # Subjects
//
// A channel is one token: its name, with every byte but a-z, 0-9, "_" and "-"
// as %XX. With the default prefix an account needs these rights, and for
// presence $JS.API.> too:
//
//	pushy.e.{channel}    events
//	pushy.p.c.{channel}  presence entries, which the stream pushy-presence keeps
//	pushy.p.n.{node}     signs of life of the nodes, in the same stream
//	pushy.o.>            what the stream has stored, told again to the nodes
//
// # When NATS is away
//
// A node that cannot reach NATS serves its own clients alone: events reach the
// subscribers it has, members see those that come and go here. Its Server's Stats say so. It
// tries again at once and then at least every two seconds. When it is back,
// members get the list anew, and pushy:resync goes to the channels where
// something may have been missed: its own, and elsewhere those that it published
// to meanwhile.
package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/names"
)

// Options say where NATS is and how it is used. A zero field means its default.
type Options struct {
	// URL is a server's, or several with commas between: nats://host:4222, or
	// tls://. Default "nats://127.0.0.1:4222".
	URL string
	// Prefix begins every subject and the stream's name, so that apps with
	// different ones share a NATS: 1 to 64 of A-Z a-z 0-9 _ -. Default "pushy".
	Prefix string

	// User and Password, or Token, or Credentials, the name of a .creds file,
	// say who this is. Default: what the URL has, or nothing.
	User, Password string
	Token          string
	Credentials    string
	// TLS is used if not nil, and with tls:// URLs.
	TLS *tls.Config

	// RequireAtStart makes New return an error when NATS cannot be reached. By
	// default the node begins alone, and joins when it can.
	RequireAtStart bool

	// Timeout is how long a request, a new connection, or NATS's answer to a sign
	// of life may take. At least 100 ms, default 3 s.
	Timeout time.Duration

	// EventsOnly leaves presence out, and so needs no JetStream.
	EventsOnly bool
	// Lease is how long a node may be silent before its members count as gone.
	// At least 500 ms, default 15 s.
	Lease time.Duration
	// Replicas is on how many servers of a NATS cluster presence is kept, and
	// Memory keeps it in their memory rather than in files. They count when
	// the stream is made. Default 1, in files.
	Replicas int
	Memory   bool

	// Logger is told when NATS goes away and comes back. Default slog.Default().
	Logger *slog.Logger
}

// SettingError says which of the Options is wrong.
type SettingError struct {
	Setting string // the field's name
	Err     error
}

func (e *SettingError) Error() string {
	return "nats: Options." + e.Setting + ": " + e.Err.Error()
}
func (e *SettingError) Unwrap() error { return e.Err }

var (
	errClosed = errors.New("nats: closed")
	errAlone  = errors.New("nats: away, and too many channels have taken messages meanwhile")
	errNone   = errors.New("nats: Options.EventsOnly is set: there is no presence")
	errLost   = errors.New("nats: the connection was lost before NATS had confirmed")
)

// withDefaults returns a checked copy.
func (o Options) withDefaults() (Options, error) {
	bad := func(setting, format string, args ...any) (Options, error) {
		return o, &SettingError{setting, fmt.Errorf(format, args...)}
	}
	if o.URL == "" {
		o.URL = natsgo.DefaultURL
	}
	for one := range strings.SplitSeq(o.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err != nil || u.Host == "" {
			return bad("URL", "%q is not like nats://host:4222", redacted(one))
		} else if u.Scheme != "nats" && u.Scheme != "tls" {
			return bad("URL", "the scheme of %q is neither nats nor tls", u.Redacted())
		}
	}
	if o.Prefix == "" {
		o.Prefix = "pushy"
	}
	if !names.IsToken(o.Prefix) {
		return bad("Prefix", "%q is not 1 to 64 of A-Z a-z 0-9 _ -", o.Prefix)
	}
	if o.Password != "" && o.User == "" {
		return bad("User", "is empty, and Password is not")
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Timeout < 100*time.Millisecond {
		return bad("Timeout", "%v is under 100ms", o.Timeout)
	}
	if o.Lease == 0 {
		o.Lease = 15 * time.Second
	}
	if o.Lease < 500*time.Millisecond {
		return bad("Lease", "%v is under 500ms", o.Lease)
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		return bad("Replicas", "%d is not from 1 to 5", o.Replicas)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

func redacted(text string) string {
	if _, host, has := strings.Cut(text, "@"); has {
		return "…@" + host
	}
	return text
}

// shown is the URL without passwords.
func (o Options) shown() string {
	var all []string
	for one := range strings.SplitSeq(o.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return redacted(o.URL)
		}
		all = append(all, u.Redacted())
	}
	return strings.Join(all, ",")
}

// Broker is a node's connections to NATS, both its pushy.Broker and its
// pushy.PresenceStore. All methods are safe for concurrent use.
type Broker struct {
	bus      *bus
	presence *presence // nil with EventsOnly
}

var (
	_ pushy.Broker        = (*Broker)(nil)
	_ pushy.PresenceStore = (*Broker)(nil)
)

// New connects. ctx bounds the first attempt, which takes no longer than
// three times Options.Timeout. The
// error is a *SettingError for Options that are wrong, or that NATS does not
// accept, and says that NATS is away with RequireAtStart.
func New(ctx context.Context, options Options) (*Broker, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Broker{}
	if b.bus, err = newBus(ctx, o); err != nil {
		return nil, err
	}
	if !o.EventsOnly {
		if b.presence, err = newPresence(ctx, o); err != nil {
			b.bus.close()
			return nil, err
		}
	}
	return b, nil
}

// Open sets where messages go.
func (b *Broker) Open(_ context.Context, deliver func(channel string, m pushy.Message)) error {
	return b.bus.open(deliver)
}

// Publish returns when the NATS server has the message. It returns None if the
// server knows of no subscriber, else Unknown: a subscription of others, such as
// an operator's, looks the same. While NATS is away the message reaches this node's
// subscribers only, and the others get pushy:resync later.
func (b *Broker) Publish(ctx context.Context, channel string, m pushy.Message) (pushy.Receivers, error) {
	return b.bus.publish(ctx, channel, m)
}

// Subscribe returns when the NATS server has the subscription, or at once while
// NATS is away. Servers of a NATS cluster tell each other soon after.
func (b *Broker) Subscribe(ctx context.Context, channel string) error {
	return b.bus.subscribe(ctx, channel)
}

// Unsubscribe ends delivery at once, and tells the NATS server when it can.
func (b *Broker) Unsubscribe(_ context.Context, channel string) error {
	b.bus.unsubscribe(channel)
	return nil
}

// Join logs that m joined; while NATS is away it does so for this node alone.
func (b *Broker) Join(ctx context.Context, channel string, m pushy.Member) error {
	if b.presence == nil {
		return errNone
	}
	return b.presence.join(ctx, channel, m)
}

// Leave logs that a member of this node left, now or when it can.
func (b *Broker) Leave(ctx context.Context, channel, memberID string) error {
	if b.presence == nil {
		return errNone
	}
	return b.presence.quit(ctx, channel, memberID)
}

// Watch follows a channel's log.
func (b *Broker) Watch(ctx context.Context, channel string, apply func(pushy.Change)) (pushy.Snapshot, error) {
	if b.presence == nil {
		return pushy.Snapshot{}, errNone
	}
	return b.presence.watch(ctx, channel, apply)
}

// Away returns why this node serves its clients alone, or nil.
func (b *Broker) Away() error {
	err := b.bus.away.Load()
	if err == nil && b.presence != nil {
		err = b.presence.away.Load()
	}
	if err == nil {
		return nil
	}
	return *err
}

// Close logs that this node's members left, as far as that can be done in 3 s, and
// ends. A second Close does nothing, so a Server may be given one Broker for both.
func (b *Broker) Close() error {
	if b.presence != nil {
		b.presence.close()
	}
	b.bus.close()
	return nil
}
