// Package pusher serves the Pusher Channels protocol on a pushy.Server: pusher-js, Laravel Echo and
// other Pusher clients connect to it, and Pusher's server SDKs publish to it. They share the channels
// of the Server with pushy's own clients.
//
//	options.Channel = pusher.Channels(rules)
//	srv, err := pushy.New(options)
//	…
//	p, err := pusher.New(srv, pusher.Options{App: "1", Key: key, Secret: secret})
//	…
//	mux.Handle("/app/", p.Handler())
//	mux.Handle("/broadcasting/auth", p.AuthHandler(allow))
//
// A Pusher signature is a credential, as a pushy token is: it proves who the client is, and the rules
// of the Server decide: Options.Accept, Channel, Authorizer, Origins, CheckChannel, CheckEvent and
// Limits. docs/pusher.md compares the protocol with that of Pusher and of other servers.
//
// # Names
//
// Pusher clients distinguish the case of channel names, and pushy's own protocol brings them to lower
// case. So a name in lower case is one channel for both, and a name with capitals, such as Laravel's
// private-App.Models.User.1, exists for Pusher clients only. Adapter.Publish keeps the case.
package pusher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/jsvalue"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/pusherform"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport/websocket"
)

// Options configure an Adapter. App, Key and Secret must be set.
type Options struct {
	// App is the id of the application, which the paths of the HTTP API have, and Key is its
	// public key, with which clients connect. Each has 1 to 64 of A-Z a-z 0-9 _ -.
	App string
	Key string
	// Secret signs. It must differ from the secret keys of the Server, because the form of
	// Pusher's signatures is not restricted: one that an auth endpoint makes could be a signature
	// of pushy's own protocol.
	Secret string
	// OldSecrets are accepted, too, so that the secret can be changed without an interruption.
	OldSecrets []string
	// ActivityTimeout is the time without a message after which a client sends a ping. In whole
	// seconds, from 5 s to 120 s. Default 30 s.
	ActivityTimeout time.Duration
	// MaxEventBytes limits the data of an event that is published with Pusher's HTTP API, as it is
	// in the request. Default 10 KiB, which is Pusher's limit; at most Limits.TriggerBytes of the
	// Server. A negative number leaves only that.
	MaxEventBytes int
	// Prefix precedes /app/ and /apps/ in the paths, as the handler sees them. Default "".
	Prefix string
}

// Adapter serves one application of the Pusher protocol. All methods are safe for concurrent use.
type Adapter struct {
	srv     *pushy.Server
	parts   seam.Server
	hub     *hub.Hub
	app     string
	key     string
	secrets []string // the first one signs
	idle    int      // seconds
	most    int      // bytes of the data of an event
	prefix  string

	id     uint8 // of the protocol in the hub
	socket *websocket.Config
}

type extrasKey struct{}

const (
	defaultActivity  = 30 * time.Second
	defaultMaxEvent  = 10 << 10
	codeSilent       = 4201
	protocolName     = "pusher"
	transportName    = "pusher-websocket"
	minActivity      = 5 * time.Second
	maxActivity      = 120 * time.Second
	probe            = "pushy-probe"
	channelPolicyDoc = "set Options.Channel of the Server to pusher.Channels(…)"
)

// New adds the Pusher protocol to srv. Call it before srv handles requests, and once for a Server:
// several applications need several Servers. The error says which option is not valid, or that
// Options.Channel of srv opens channels that Pusher clients take for private ones.
func New(srv *pushy.Server, o Options) (*Adapter, error) {
	if srv == nil {
		return nil, errors.New("pusher: the Server is nil")
	}
	a := &Adapter{
		srv:     srv,
		parts:   seam.Of(srv),
		app:     o.App,
		key:     o.Key,
		secrets: append([]string{o.Secret}, o.OldSecrets...),
	}
	a.hub = a.parts.Hub
	if err := a.configure(&o); err != nil {
		return nil, fmt.Errorf("pusher: %w", err)
	}
	if err := a.checkPolicy(); err != nil {
		return nil, fmt.Errorf("pusher: %w", err)
	}
	if _, taken := a.parts.Extras.LoadOrStore(extrasKey{}, a); taken {
		return nil, errors.New("pusher: the Server has an Adapter already: several applications need several Servers")
	}
	a.id = a.hub.AddForeign(&protocol{a})
	a.socket = &websocket.Config{
		Config: a.parts.Transport,
		Dialect: &websocket.Dialect{
			Form:      form,
			Name:      protocolName,
			Transport: transportName,
			Silent:    codeSilent,
			Slow:      codeUnavailable,
			NoBinary:  true,
			Ping:      fanout.TextFrame([]byte(`{"event":"pusher:ping","data":"{}"}`)),
		},
	}
	return a, nil
}

func (a *Adapter) configure(o *Options) error {
	for _, f := range []struct{ name, value string }{{"Options.App", o.App}, {"Options.Key", o.Key}} {
		if !pusherform.IsPlain(f.value) {
			return fmt.Errorf("%s is %q, it must have 1 to 64 of A-Z a-z 0-9 _ -", f.name, f.value)
		}
	}
	for i, secret := range a.secrets {
		name := "Options.Secret"
		if i > 0 {
			name = fmt.Sprintf("Options.OldSecrets[%d]", i-1)
		}
		switch {
		case secret == "":
			return errors.New(name + " is empty")
		case slices.Contains(a.parts.Keys, secret):
			return errors.New(name + " is a secret key of the Server: make a secret of its own")
		case len(secret) < pusherform.MinSecret:
			a.parts.Log.Warn("pusher: " + name + " is under 16 bytes: it can be guessed")
		}
	}
	activity := cmp.Or(o.ActivityTimeout, defaultActivity)
	if activity < minActivity || activity > maxActivity || activity%time.Second != 0 {
		return fmt.Errorf("Options.ActivityTimeout is %v: it must be from 5 s to 120 s, in whole seconds", activity)
	}
	a.idle = int(activity / time.Second)
	a.most = cmp.Or(o.MaxEventBytes, defaultMaxEvent)
	if a.most < 0 {
		a.most = math.MaxInt
	}
	if most := a.parts.TriggerBytes; most > 0 {
		a.most = min(a.most, most)
	}
	var err error
	if a.prefix, err = names.Prefix(o.Prefix, ""); err != nil {
		return fmt.Errorf("Options.Prefix %w", err)
	}
	return nil
}

// checkPolicy asks for the properties of channels whose names begin as those that Pusher clients take
// for private ones.
func (a *Adapter) checkPolicy() error {
	for _, prefix := range []string{
		"private-", "presence-", "Private-", "PRESENCE-",
		"private-cache-", "presence-cache-", "private-encrypted-", "private-encrypted-cache-",
	} {
		policy, err := a.hub.PolicyOf(prefix + probe)
		switch {
		case err != nil:
			return fmt.Errorf("Options.Channel of the Server failed for %q", prefix+probe)
		case !policy.Private:
			return fmt.Errorf("channels that begin with %q are public: %s", prefix, channelPolicyDoc)
		case pusherform.IsPresence(prefix) && !showsUsers(policy):
			return fmt.Errorf("channels that begin with %q do not show users as members: %s", prefix, channelPolicyDoc)
		}
	}
	return nil
}

// Handler serves the WebSocket endpoint {Prefix}/app/{key} and the HTTP API under {Prefix}/apps/.
// Mount it at both.
func (a *Adapter) Handler() http.Handler { return http.HandlerFunc(a.serve) }

func (a *Adapter) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	path, under := strings.CutPrefix(r.URL.EscapedPath(), a.prefix)
	if rest, is := strings.CutPrefix(path, "/app/"); is && under {
		a.serveSocket(w, r, rest)
		return
	}
	if rest, is := strings.CutPrefix(path, "/apps/"); is && under {
		a.serveAPI(w, r, rest)
		return
	}
	http.Error(w, "nothing is served here: there are "+a.prefix+"/app/{key} and "+a.prefix+"/apps/{id}/…; "+
		"behind http.StripPrefix, set pusher.Options.Prefix to the path that remains before them", http.StatusNotFound)
}

// Publish sends an event to every subscriber of a channel, on all nodes, as Server.Publish does. The
// name of the channel keeps its case, and the rules for names are those of Pusher. data is encoded
// as encoding/json does. The connection with the id except, which can be "", does not receive it.
func (a *Adapter) Publish(ctx context.Context, channel, event string, data any, except string) error {
	e, err := a.entry(channel, event, except)
	if err != nil {
		return fmt.Errorf("pusher: publish: %w", err)
	}
	if e.Data, err = jsvalue.Encode(data); err != nil {
		return fmt.Errorf("pusher: publish: %w", err)
	}
	return a.parts.Publish(ctx, channel, e)
}

// entry returns an event, without its data, if its names are allowed.
func (a *Adapter) entry(channel, event, except string) (e broker.Entry, err error) {
	if err := a.checkChannel(channel); err != nil {
		return e, fmt.Errorf("the channel %w", err)
	}
	if err := a.checkEvent(event); err != nil {
		return e, fmt.Errorf("the name of the event %w", err)
	}
	e = broker.Entry{
		Kind:  broker.Event,
		Event: event,
	}
	if except != "" {
		if len(except) > pusherform.MaxUser || !utf8.ValidString(except) {
			return e, errors.New("the socket_id must have at most 128 bytes of UTF-8")
		}
		e.Except = []string{except}
	}
	return e, nil
}
