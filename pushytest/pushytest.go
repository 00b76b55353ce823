// Package pushytest tests an app's use of pushy (its commands, hooks and auth
// endpoint) without sockets: in-memory clients connect to the app's own
// [pushy.Server].
//
//	kit := pushytest.New(t, srv)
//	ann, bob := kit.Connect(), kit.Connect()
//	ann.Subscribe("lobby")
//	bob.Subscribe("lobby")
//	err := ann.Exec("say", map[string]string{"text": "Hello"}, &reply)
//	bob.ExpectEvent("lobby", "said", &line)
//	ann.ExpectNone("lobby", "said")
//
// It works inside and outside of a testing/synctest bubble; inside, waiting takes no
// real time. The Server's limits apply to these clients, too. In a bubble, time passes
// only when the test sleeps, so a client can send 200 commands between two sleeps.
//
// # Recovery
//
// A client that connects with [Recovering] acts as the browser client does when its
// connection is lost. [Client.Blink] loses the connection and reconnects, with the positions
// of the events that the client has and as the same member; [Client.Resume] and
// [Client.MoveTo] only reconnect; and [Kit.Drain] shuts the Server down, as a deploy does. In
// a bubble, time.Sleep lets kept events expire, and members whose clients do not return.
//
//	ann := kit.Connect(pushytest.Recovering)
//	ann.Subscribe("news")
//	in := ann.Blink(func() { rt.Publish(ctx, "news", "headline", story) })
//	ann.ExpectEvent("news", "headline", &story) // in["news"].Recovered is true
//
// # Slow clients
//
// [Client.Stall] lets a client read nothing for a while, as on a slow network. It then receives
// what the Server has queued for it, and [Client.ExpectDropped] waits for the number of events
// with Latest or Droppable that it was not sent.
//
// # Leaks
//
// When the test ends, the Kit disconnects all clients. The test fails if the Server
// still has one of them, or if a goroutine that a command or hook started is still
// running; the message has the stacks. [Kit.Allow] permits exceptions.
package pushytest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/seam"
	"github.com/gopushy/pushy/internal/transport"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// TB is the part of testing.TB that a Kit needs.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any) // does not return
	Cleanup(func())
}

// DefaultPatience is how long a Kit waits for something that must happen.
const DefaultPatience = 10 * time.Second

// Kit connects clients to one Server. Its methods, like those of its clients, are
// for the test's own goroutine: they end the test if an expectation is not met.
type Kit struct {
	// Patience is how long a client waits for something that must happen, in the
	// bubble's time if the test runs in one. Set it before the first Connect.
	Patience time.Duration

	t       TB
	srv     *pushy.Server
	label   string // of the goroutines that the Kit causes
	allowed []string

	mu          sync.Mutex
	connections []*connection
	numbers     int // of clients
}

// New returns a Kit for srv. The Kit does not close the Server. The test closes it, with a
// t.Cleanup before New, so that it runs after the cleanup of the Kit.
func New(t TB, srv *pushy.Server) *Kit {
	t.Helper()
	if srv == nil {
		t.Fatalf("pushytest: New: nil Server")
	}
	k := &Kit{Patience: DefaultPatience, t: t, srv: srv, label: newLabel(), allowed: ownGoroutines}
	t.Cleanup(k.end)
	return k
}

// Allow permits goroutines to be running at the end of the test if their stacks contain one
// of these strings, such as "(*Mailer).run" for a worker that the first command starts.
func (k *Kit) Allow(frames ...string) {
	k.allowed = append(append([]string{}, k.allowed...), frames...)
}

// Connect connects a client. Options.Accept receives a GET request without cookies, which
// edit can change, for example to add a cookie, a header or a query. With [Recovering] as one
// of edit, the client recovers when its connection is lost.
func (k *Kit) Connect(edit ...func(r *http.Request)) *Client {
	k.t.Helper()
	c := &Client{kit: k, edit: edit, changed: make(chan struct{}), stays: map[string]*stay{}}
	k.mu.Lock()
	k.numbers++
	c.name = fmt.Sprintf("client %d", k.numbers)
	k.mu.Unlock()
	c.connect()
	return c
}

// connect connects a new Client, or one whose connection has ended, to its Kit's Server.
func (c *Client) connect() {
	k := c.kit
	k.t.Helper()
	w, r, ticket := k.admit(c.edit)
	if ticket == nil {
		k.t.Fatalf("pushytest: the connection is refused with %d: %s", w.Code, w.Body)
	}
	session, pipe := inmem.Pipe("websocket")
	read := make(chan struct{})
	c.id, c.pipe, c.request, c.read = "", pipe, r, read
	c.mu.Lock()
	c.ended = nil
	c.mu.Unlock()
	k.mu.Lock()
	this := &connection{client: c, pipe: pipe, read: read}
	k.connections = append(k.connections, this)
	k.mu.Unlock()
	labelled(k.label, func() { ticket.Start(session) })
	go c.readAll(pipe, read)
	var hello struct{ SocketID string }
	c.ExpectEvent("", "pushy:connect", &hello)
	c.id = hello.SocketID
	this.open = true
}

// connection is one connection of a Client.
type connection struct {
	client *Client
	pipe   *inmem.Client
	read   <-chan struct{} // closed when there is nothing more to read
	open   bool            // pushy:connect has arrived
}

// Refused tries to connect as Connect does, fails the test if the client is accepted,
// and returns the status: Options.Accept refuses with 401 or 403.
func (k *Kit) Refused(edit ...func(r *http.Request)) (status int) {
	k.t.Helper()
	w, _, ticket := k.admit(edit)
	if ticket != nil {
		ticket.GiveBack()
		k.t.Fatalf("pushytest: the connection was accepted instead of refused")
	}
	return w.Code
}

func (k *Kit) admit(edit []func(*http.Request)) (*httptest.ResponseRecorder, *http.Request, *transport.Ticket) {
	r := httptest.NewRequest(http.MethodGet, "/pushy/socket/websocket", nil)
	for _, f := range edit {
		f(r)
	}
	w := httptest.NewRecorder()
	ticket, ok := seam.Of(k.srv).Admit(w, r)
	if !ok {
		ticket = nil
	}
	return w, r, ticket
}

// end drops all clients and looks for what they leave behind.
func (k *Kit) end() {
	k.t.Helper()
	k.mu.Lock()
	connections := k.connections
	k.mu.Unlock()
	for _, c := range connections {
		c.pipe.Abort()
	}
	timeout := time.NewTimer(k.Patience)
	defer timeout.Stop()
	for _, c := range connections {
		if !c.open {
			continue // Connect has failed, and said so
		}
		for _, over := range []<-chan struct{}{c.pipe.Done(), c.read} {
			select {
			case <-over:
			case <-timeout.C:
				k.t.Errorf("pushytest: the Server still holds %s, %s after it was dropped; a command or hook does not return:\n%s",
					c.client.name, k.Patience, k.goroutines())
				return
			}
		}
	}
	// What ended a moment ago may still be on its way out.
	for pause := time.Microsecond; ; pause *= 2 {
		left := k.goroutines()
		if left == "" {
			return
		}
		select {
		case <-time.After(pause):
		case <-timeout.C:
			k.t.Errorf("pushytest: goroutines that commands or hooks have started still run "+
				"(Kit.Allow lists those that may):\n%s", left)
			return
		}
	}
}
