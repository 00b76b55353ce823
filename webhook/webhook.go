// Package webhook notifies a web application of what happens in its channels: who joins and
// leaves, and which channels are in use. It sends signed requests in the format of Standard
// Webhooks 1.0.0, for which there are libraries in many languages, or in that of Pusher.
//
//	srv, err := pushy.New(options)
//	…
//	hooks, err := webhook.New(srv, webhook.Options{
//		URL:    "https://app.example.com/webhooks/pushy",
//		Secret: os.Getenv("PUSHY_WEBHOOK_SECRET"), // "whsec_…"
//	})
//	…
//	err = errors.Join(srv.Shutdown(ctx), hooks.Close(ctx))
//
// docs/webhooks.md shows each event. A receiver in Go uses backend.Webhooks.
//
// # Promises
//
// Each event is sent at least once, as long as one server of the cluster is alive. What cannot be
// sent is counted, and an event events.ids says how many there were. An event can arrive again,
// for example if the receiver has accepted it and its answer is lost: every event has an id, which
// is then the same.
//
// One request is under way at a time, and the next one follows when the receiver has accepted it,
// so events come in their order. Of a channel, member.left and channel.vacated come later than
// others by Options.Delay, because they are not sent if the user is back by then: if a page is
// reloaded, the receiver is not notified.
//
// # Several servers
//
// Servers whose pushy.Options.Broker uses the same store must all call New with the same Options.
// All of them follow one log in the broker, of channels and members, and one of them sends: the
// one that has been running for the longest time. If it fails, the next one continues where it
// has stopped. If a server fails, the others report what has ended with it when its lease
// (pushy.Options.Grace) has expired. Members that return to another server meanwhile cause no
// events.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/names"
	"github.com/gopushy/pushy/internal/ratelog"
	"github.com/gopushy/pushy/internal/seam"
)

// Options configure a Sender. URL, and Secret or Format, must be set. All servers of a cluster must have the
// same Options.
type Options struct {
	// URL receives the events. It begins with https, or with http if its addresses are loopback
	// or private ones. Private addresses are allowed; link-local, multicast and unspecified
	// addresses, and those of metadata services of clouds, are not. The address is checked
	// for each connection, after the look-up of the name. Redirects are not followed, and no
	// proxy is used.
	URL string
	// Format is the form of the requests. Default: that of Standard Webhooks, to which Secret and
	// OldSecrets belong.
	Format Format
	// Secret signs the requests: "whsec_" and the Base64 of 24 to 64 random bytes, such as
	// "whsec_" and the output of openssl rand -base64 32. It must differ from the secret keys
	// of the server.
	Secret string
	// OldSecrets sign the requests, too, so that the secret can be changed without an
	// interruption: a receiver accepts a request if one signature is valid. Add the new secret
	// here first if receivers change before the servers.
	OldSecrets []string
	// Events are the events that are sent. Default: ChannelOccupied, ChannelVacated,
	// MemberJoined, MemberLeft and ChannelMiss. EventsLost is always sent.
	Events []string
	// Channels returns whether the events of a channel are sent. It must be fast, and return
	// the same result each time. It is called from many goroutines. A panic counts as false,
	// and is logged. Default: all channels.
	Channels func(channel string) bool
	// Delay is how long a MemberLeft and a ChannelVacated wait for the user to return. At most
	// 1 min; a negative number turns the delay off. Default 3 s.
	Delay time.Duration
	// Name distinguishes several Senders of one server, which have different Names: New refuses
	// one that another Sender of the server has or had. It has at most 32 of A-Z a-z 0-9 _ -.
	// Default "".
	Name string
	// Transport sends the requests instead of the default, which checks addresses as URL
	// says. With a Transport, that is its task. It must not follow redirects, as no
	// http.RoundTripper does.
	Transport http.RoundTripper
}

const (
	defaultDelay = 3 * time.Second
	maxDelay     = time.Minute
	maxName      = 32
)

var (
	defaultEvents = []string{ChannelOccupied, ChannelVacated, MemberJoined, MemberLeft, ChannelMiss}
	allEvents     = append([]string{ConnectionOpened, ConnectionClosed, ClientEvent}, defaultEvents...)
)

// Sender sends the webhooks of one Server. All methods are safe for concurrent use.
type Sender struct {
	opts    Options
	form    form
	client  http.Client
	notices *ratelog.Logger
	log     *slog.Logger

	hub    *hub.Hub
	local  bool // no other server shares the broker
	ledger broker.Ledger
	writer *writer
	outbox *outbox
	view   *view
	queue  *queue
	wants  map[string]bool
	ids    sequence

	ctx    context.Context // ends when nothing more is to be sent
	cancel context.CancelFunc
	wake   chan struct{} // has an element when there may be something to do
	ended  chan struct{} // closed when run has returned

	phase  phase
	cursor cursor // of run
}

// senderKey is the key of a Sender among seam.Server.Extras.
type senderKey struct{ name string }

// New starts to send the events of srv. Call it before srv handles requests, because events from
// before are not sent. The error says which option is invalid, that the broker of srv has no
// broker.Ledger, or that it cannot be used.
func New(srv *pushy.Server, options Options) (*Sender, error) {
	if srv == nil {
		return nil, errors.New("webhook: New: the Server is nil")
	}
	parts := seam.Of(srv)
	s := &Sender{
		opts:    options,
		hub:     parts.Hub,
		local:   parts.Local,
		log:     parts.Log,
		notices: ratelog.New(parts.Log),
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
		phase:   newPhase(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.configure(parts.Keys); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	// A second one would write the same records, as another owner.
	key := senderKey{s.opts.Name}
	if _, used := parts.Extras.LoadOrStore(key, s); used {
		return nil, fmt.Errorf("webhook: the Server has a Sender with Options.Name %q already", s.opts.Name)
	}
	if err := s.open(); err != nil {
		parts.Extras.Delete(key)
		s.cancel()
		return nil, fmt.Errorf("webhook: %w", err)
	}
	s.form.warn(s.log)
	go s.run()
	return s, nil
}

// configure checks the options.
func (s *Sender) configure(serverKeys []string) error {
	o := &s.opts
	u, err := checkURL(o.URL)
	if err != nil {
		return fmt.Errorf("Options.URL %w", err)
	}
	s.form = o.Format.form
	if s.form == nil {
		s.form = &standard{}
	}
	if err := s.form.check(o, serverKeys); err != nil {
		return err
	}
	if o.Delay == 0 {
		o.Delay = defaultDelay
	}
	o.Delay = max(o.Delay, 0)
	switch {
	case o.Delay > maxDelay:
		return fmt.Errorf("Options.Delay is %v, at most %v is allowed", o.Delay, maxDelay)
	case o.Delay > 0 && o.Delay < time.Millisecond:
		return fmt.Errorf("Options.Delay is %v, which is less than 1 ms", o.Delay)
	case len(o.Name) > maxName || o.Name != "" && !names.IsToken(o.Name) || !utf8.ValidString(o.Name):
		return fmt.Errorf("Options.Name %q is not at most %d of A-Z a-z 0-9 _ -", o.Name, maxName)
	}
	if o.Events == nil {
		o.Events = defaultEvents
	}
	s.wants = map[string]bool{EventsLost: true}
	for _, name := range o.Events {
		switch {
		case !slices.Contains(allEvents, name) && name != EventsLost:
			return fmt.Errorf("Options.Events has %q, which is not an event", name)
		case !s.form.has(name):
			return fmt.Errorf("Options.Events has %q, which Options.Format does not have", name)
		}
		s.wants[name] = true
	}
	s.client = http.Client{
		Transport:     o.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if o.Transport == nil {
		s.client.Transport = newTransport(u.Scheme == "https")
	}
	return nil
}

// open follows the log.
func (s *Sender) open() error {
	b := s.hub.Broker()
	ledger, ok := b.(broker.Ledger)
	if !ok && !s.local {
		return errors.New("the Broker of the Server has no Ledger (broker.Ledger)")
	}
	s.ledger = ledger
	s.cursor = cursor{
		s:   s,
		key: "webhook:" + s.opts.Name,
	}
	node := s.hub.Node()
	channel := ":webhook:" + s.opts.Name
	s.queue = newQueue(s.lostEvent)
	s.ids.prefix = node
	s.writer = newWriter(b, channel, node, names.RandomHex(8), s.local)
	s.writer.failed = s.logFailed
	s.outbox = newOutbox(s)
	s.writer.refused = s.outbox.refuse
	s.view = newView(node, s.opts.Delay)
	s.view.form = s.form
	s.view.wants = s.wants
	s.view.emit = s.queue.push
	s.view.skipped = s.logFailed
	s.view.changed = s.signal
	s.hub.Reserve(channel, &hub.Reserved{
		Entry: s.view.deliver,
		Reset: func(state broker.State) {
			s.view.reset(state)
			s.writer.reset(state)
		},
	})
	ctx, cancel := context.WithTimeout(s.ctx, appendTimeout)
	defer cancel()
	state, err := b.Follow(ctx, channel)
	switch {
	case err == nil:
		s.view.begin(state)
	case !errors.Is(err, broker.ErrAway): // otherwise a Reset follows
		return fmt.Errorf("cannot follow the log of webhooks: %w", err)
	}
	if !s.local && !s.start() {
		return errors.New("the Server has begun to shut down")
	}
	s.writer.add(s.nodeRecord(), record{
		Kind: kindNode,
		ID:   node,
	})
	s.hub.Observe(s.observer())
	return nil
}

func (s *Sender) nodeRecord() string { return s.writer.id(kindNode) }

// start starts what ends when the Server shuts down.
func (s *Sender) start() bool {
	for n := range workers {
		if !s.hub.Go(func(ctx context.Context) { s.writer.work(ctx, n) }) {
			return false
		}
	}
	return s.hub.Go(s.outbox.work) && s.hub.Go(s.handOver)
}

// signal makes run look at the state again. It does not block.
func (s *Sender) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Sender) observer() *hub.Observer {
	wantsChannels := s.wants[ChannelOccupied] || s.wants[ChannelVacated]
	wantsMembers := s.wants[MemberJoined] || s.wants[MemberLeft]
	wantsConnections := s.wants[ConnectionOpened] || s.wants[ConnectionClosed]
	o := &hub.Observer{
		Occupied: func(ch *hub.Channel) {
			if wantsChannels && s.includes(ch.Name()) {
				s.writer.add(s.writer.id(kindChannel, ch.Name()), record{
					Kind:    kindChannel,
					Channel: ch.Name(),
				})
			}
		},
		Vacated: func(ch *hub.Channel) {
			if wantsChannels {
				s.writer.remove(s.writer.id(kindChannel, ch.Name()), ending{})
			}
		},
		Joined: func(_ *hub.Conn, ch *hub.Channel, member string) {
			if wantsMembers && s.form.shows(ch.Name()) && s.includes(ch.Name()) {
				s.joined(ch, member)
			}
		},
		Left: func(c *hub.Conn, ch *hub.Channel, member string) {
			if !wantsMembers {
				return
			}
			why := ending{}
			if c.Context().Err() == nil {
				why.Reason = reasonLeft
			}
			s.writer.remove(s.writer.id(kindMember, ch.Name(), member), why)
		},
		Opened: func(c *hub.Conn) {
			if wantsConnections {
				s.writer.add(s.writer.id(kindConnection, c.ID()), record{
					Kind: kindConnection,
					ID:   c.ID(),
					User: c.UserID(),
				})
			}
		},
		Closed: func(c *hub.Conn, code int, reason string) {
			if wantsConnections {
				s.writer.remove(s.writer.id(kindConnection, c.ID()), ending{
					Reason: reason,
					Code:   code,
				})
			}
		},
	}
	if s.wants[ClientEvent] {
		o.ClientEvent = s.clientEvent
	}
	if s.wants[ChannelMiss] {
		o.Missed = s.missed
	}
	return o
}

func (s *Sender) clientEvent(c *hub.Conn, ch *hub.Channel, member, name string, data []byte) {
	if s.includes(ch.Name()) {
		s.outbox.push(event{
			Event:      ClientEvent,
			Channel:    ch.Name(),
			Name:       name,
			Data:       data,
			MemberID:   member,
			Connection: c.ID(),
			User:       s.form.sender(c, ch, member),
		})
	}
}

func (s *Sender) missed(_ *hub.Conn, ch *hub.Channel) {
	if s.includes(ch.Name()) {
		s.outbox.push(event{
			Event:   ChannelMiss,
			Channel: ch.Name(),
		})
	}
}

func (s *Sender) joined(ch *hub.Channel, member string) {
	m, ok := ch.Shown(member)
	if !ok {
		return // it has left
	}
	s.writer.add(s.writer.id(kindMember, ch.Name(), member), record{
		Kind:     kindMember,
		Channel:  ch.Name(),
		ID:       m.ID,
		User:     m.User,
		Identity: m.Identity,
		Member:   m.Text,
	})
}

// includes is Options.Channels.
func (s *Sender) includes(channel string) (yes bool) {
	if s.opts.Channels == nil {
		return true
	}
	defer func() {
		if p := recover(); p != nil {
			s.notices.Warn("Options.Channels of a webhook panicked", s.opts.Name, slog.Any("panic", p))
		}
	}()
	return s.opts.Channels(channel)
}

// Close sends the events that wait and stops. Call it after Server.Shutdown. If the Server is the
// only one, the events that wait for Options.Delay are sent at once, and the channels that the
// shutdown has emptied are vacated. Otherwise another server sends what is left. If ctx ends
// before everything is sent, the error wraps that of ctx and has the number of events that were
// not sent. A second Close has no effect.
func (s *Sender) Close(ctx context.Context) error {
	s.phase.close()
	if s.local {
		s.view.finish()
	}
	s.signal()
	var err error
	select {
	case <-s.ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.cancel()
	<-s.ended
	s.view.stop()
	s.closeIdle()
	if n := s.queue.len(); err != nil && n > 0 && !s.phase.isRefused() {
		return fmt.Errorf("webhook: close: %d events were not sent: %w", n, err)
	}
	return nil
}
