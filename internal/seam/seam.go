// Package seam gives the packages of this module outside the root, such as pushytest,
// access to parts of a pushy.Server that are not in its public API. Package pushy sets
// its variables. Hosts cannot import it.
package seam

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/internal/fanout"
	"github.com/gopushy/pushy/internal/hub"
	"github.com/gopushy/pushy/internal/ratelog"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport"
)

// Server has the internal parts of a pushy.Server.
type Server struct {
	// Hub is the core: connections, channels and publishing.
	Hub *hub.Hub
	// Extras has what packages of this module keep with the Server, each under a key of its own
	// type.
	Extras *sync.Map
	// Local means that no other Server shares the broker.
	Local bool
	// Keys are the secret key and the old ones.
	Keys []string
	Log  *slog.Logger
	// HandlePrompt is Server.HandleAsk for a func that only computes and waits for nothing. So this
	// node's own answer has no time limit.
	HandlePrompt func(name string, answer func(ctx context.Context, data json.RawMessage) (any, error))
	// SetAskTimeout replaces the 500 ms that the other nodes have for an answer. Only tests with
	// several nodes in real time use it.
	SetAskTimeout func(time.Duration)
	// Notices logs what clients cause: one line a minute for each kind.
	Notices *ratelog.Logger
	// Heartbeat and WriteTimeout are the options. If Heartbeat is not positive, there is none.
	Heartbeat    time.Duration
	WriteTimeout time.Duration
	// AcceptRate is Limits.AcceptRate, which is off if it is not positive.
	AcceptRate int
	// OwnAuthorizer means that the host has set Options.Authorizer.
	OwnAuthorizer bool
	// Now is the clock of the Server.
	Now func() time.Time
	// Channel returns the name of a channel in lower case. The error is that of a name that is
	// not allowed; it wraps names.ErrNotChecked if the host's rule has failed.
	Channel func(name string) (lower string, err error)
	// Origin decides whether a page may use the Server. If it returns a Refusal, it has been
	// counted and logged.
	Origin func(r *http.Request) (Origin, *Refusal)
	// HasAccept means that the host has set Options.Accept, which decides who the users are.
	HasAccept bool
	// Reserve decides whether r can open a connection, as Admit does, without an answer. version
	// is that of pushy's protocol. user is the id of the user if there is no Options.Accept, or "".
	Reserve func(r *http.Request, version uint8, user string) (*Place, *Refusal)
	// Admit decides whether r can open a connection, by the limits and Options.Accept, as
	// for a SockJS session over HTTP. It does not check the origin of the request. If ok is false, the
	// response has been written to w. Otherwise the Ticket starts the session.
	Admit func(w http.ResponseWriter, r *http.Request) (ticket *transport.Ticket, ok bool)
	// Transport has the limits of a WebSocket.
	Transport transport.Config
	// ClientEventBytes, PresenceBytes and TriggerBytes are limits; those that are not positive are
	// off.
	ClientEventBytes, PresenceBytes, TriggerBytes int
	// BodyTimeout limits the time for the body of a request.
	BodyTimeout time.Duration
	Foreign
}

// Foreign has what a package with another protocol needs, in addition. It is an interface, and
// not a struct of funcs, so that the linker drops what a host that imports no such package does
// not call.
type Foreign interface {
	// Enter is Reserve for a connection with another protocol. The ID, the Version and the Foreign
	// of the client are used.
	Enter(r *http.Request, client hub.Client) (*Place, *Refusal)
	// MayTurnAway reports whether one more connection can be accepted only to be closed with a
	// close code, and counts it.
	MayTurnAway() bool
	// CheckChannel and CheckEvent are the host's rules for names. The error wraps
	// names.ErrNotChecked if the rule has failed.
	CheckChannel(name string) error
	CheckEvent(name string) error
	// ClientEvent asks the host about an event that a client sends. If refused is "", the other
	// members receive shown, or nothing if it is nil.
	ClientEvent(c *hub.Conn, channel, event string, data []byte) (shown []byte, refused string)
	// AllowCORS lets the page of a request that Origin has allowed read the answer.
	AllowCORS(head http.Header, r *http.Request)
	// Decide runs a func of the host, and returns false if it has panicked or ended its
	// goroutine, which is logged.
	Decide(name string, run func()) bool
	// Banned returns whether the user with an id is banned, and why.
	Banned(user string) (reason string, banned bool)
	// Publish publishes a checked event, as Server.PublishEvent does, and PublishAllowed counts n
	// events towards Limits.PublishRate.
	Publish(ctx context.Context, channel string, e broker.Entry) error
	PublishAllowed(n int) (retry time.Duration, ok bool)
	// The queries ask all nodes, and take names as they are. silent has the nodes that did not
	// answer. The error says why the others could not be asked.
	CountSubscribers(ctx context.Context, channels []string) (counts []uint64, silent []string, err error)
	ListChannels(ctx context.Context, prefix, after string) (page []ListedChannel, next string, silent []string, err error)
	ListMembers(ctx context.Context, channel, after string) (page []ListedMember, next string, silent []string, err error)
	// SendUser sends a checked event to all connections of a user. data is JSON.
	SendUser(ctx context.Context, user, event string, data []byte) error
	// Overloaded reports whether the Server lacks memory for events.
	Overloaded() bool
}

// ListedChannel is a channel with subscribers.
type ListedChannel struct {
	Name        string
	Subscribers int
}

// ListedMember is a member as pushy's clients see it.
type ListedMember struct {
	ID   string
	User string
	JSON []byte
}

// Origin says how a page may read the response. The zero value is that of a request of the
// Server's own pages, or of a program.
type Origin struct {
	// Any means that only the "*" of Options.Origins allows the page.
	Any bool
}

// A Place is reserved for a connection. One of its funcs must be called, once.
type Place struct {
	// Connect begins the connection. The result is nil if it does not begin, because the Server
	// has begun to shut down; then the session has been aborted.
	Connect  func(session.Session) *hub.Conn
	GiveBack func()
}

// Reasons of a Refusal after which the client can try again.
const (
	Draining  = "draining"
	Full      = "connections"
	OfAddress = "address"
	Memory    = "memory"
	Rate      = "rate"
)

// Refusal is the answer to a request that is refused.
type Refusal struct {
	Status  int
	Code    string // that a host has chosen, or ""
	Message string
	// Again is the reason why the client can try again, and After the time until then. Again is
	// "" if the refusal is final.
	Again string
	After time.Duration
}

// Of returns the internal parts of a *pushy.Server. Package pushy sets it.
var Of func(server any) Server

// NewCompression returns a *pushy.Compression. Package pushy sets it.
var NewCompression func(fanout.Compress, transport.Deflate) any
