package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/deflate"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

// A crowd is clients, publishers and a host that do as a seed tells them, on
// one Server or on some that act as one, while everything is recorded.
type crowd struct {
	t        *testing.T
	log      *orderLog
	servers  []*pushy.Server
	patience time.Duration      // with the slowest
	pause    func(r *rand.Rand) // between two acts
	fills    bool               // the clients' sockets are full at random
	deflates bool               // half of the clients have permessage-deflate
	// start starts a Server; nil is startServer.
	start func(pushy.Options) *pushy.Server

	counts  hookCounts
	readers atomic.Int32 // connections whose client still reads
	shouts  atomic.Int64
}

var crowdChannels = []string{"news", "Chat", "private-room", "private-Den"}

const (
	crowdClients    = 8
	crowdPublishers = 3
	crowdActs       = 60
)

// hookCounts proves what hooks promise.
type hookCounts struct {
	mu       sync.Mutex
	conns    map[*pushy.Conn]string // "connected", "gone"
	subs     int
	occupied map[string]bool // by node and channel
	broken   []string
}

func (h *hookCounts) broke(format string, args ...any) {
	h.broken = append(h.broken, fmt.Sprintf(format, args...))
}

func (h *hookCounts) hooks(node int) pushy.Hooks {
	turn := func(ch *pushy.Channel, on bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		key := fmt.Sprint(node, ch.Name())
		if h.occupied[key] == on {
			h.broke("%s: occupied is %v twice", key, on)
		}
		h.occupied[key] = on
	}
	sub := func(c *pushy.Conn, n int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.subs += n
		if h.conns[c] != "connected" {
			h.broke("%+d membership of a connection that is %q", n, h.conns[c])
		}
	}
	return pushy.Hooks{
		Connect: func(c *pushy.Conn) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.conns[c] != "" {
				h.broke("Connect of a connection that is %q", h.conns[c])
			}
			h.conns[c] = "connected"
		},
		Disconnect: func(c *pushy.Conn, _ int, _ string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.conns[c] != "connected" {
				h.broke("Disconnect of a connection that is %q", h.conns[c])
			}
			h.conns[c] = "gone"
		},
		Subscribe:       func(c *pushy.Conn, _ *pushy.Channel) { sub(c, 1) },
		Unsubscribe:     func(c *pushy.Conn, _ *pushy.Channel) { sub(c, -1) },
		ChannelOccupied: func(ch *pushy.Channel) { turn(ch, true) },
		ChannelVacated:  func(ch *pushy.Channel) { turn(ch, false) },
	}
}

// ended says what the hooks did not come round to.
func (h *hookCounts) ended() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c, state := range h.conns {
		if state != "gone" {
			h.broke("connection %s is %s at the end", c.ID(), state)
		}
	}
	if h.subs != 0 {
		h.broke("%d more Subscribe than Unsubscribe", h.subs)
	}
	for key, on := range h.occupied {
		if on {
			h.broke("%s is still occupied", key)
		}
	}
	return h.broken
}

func newCrowd(t *testing.T, pause func(*rand.Rand)) *crowd {
	return &crowd{t: t, log: &orderLog{}, pause: pause, patience: peerPatience,
		counts: hookCounts{conns: map[*pushy.Conn]string{}, occupied: map[string]bool{}}}
}

func (c *crowd) addServer(o pushy.Options) {
	o.Hooks = c.counts.hooks(len(c.servers))
	o.Limits.CommandRate = -1
	start := c.start
	if start == nil {
		start = func(o pushy.Options) *pushy.Server { return startServer(c.t, o) }
	}
	srv := start(o)
	// "say" publishes to a channel as the member that the client is there.
	srv.RegisterCommand("say", func(srv *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		var ask struct{ Channel, Of string }
		_ = json.Unmarshal(data, &ask)
		said := c.log.shout(ask.Channel, conn.ID(), c.nextShout(), conn.ID())
		message := map[string]any{"by": said.by, "n": said.n, "of": ask.Of, "more": c.filling(said.n)}
		_, err := srv.PublishEvent(conn.Context(), pushy.Event{
			Channel: ask.Channel,
			Name:    "said",
			Data:    message,
			Except:  []string{conn.ID()},
		})
		c.log.answered(said, err == nil)
	})
	c.servers = append(c.servers, srv)
}

func (c *crowd) nextShout() int { return int(c.shouts.Add(1)) }

// filling makes two of three messages long enough to be compressed, if clients can read that.
func (c *crowd) filling(n int) string {
	if !c.deflates {
		return ""
	}
	return strings.Repeat("more ", 30*(n%3))
}

// run lets everybody act. after stands between the last act and the check that
// everybody still in has the true list; then all Servers shut down.
func (c *crowd) run(seed uint64, after func()) {
	var acting, reading sync.WaitGroup
	var clients [crowdClients]*crowdClient
	for i := range clients {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		clients[i] = &crowdClient{crowd: c, r: r, srv: c.servers[i%len(c.servers)], reading: &reading}
		acting.Go(clients[i].act)
	}
	for i := range crowdPublishers {
		r := rand.New(rand.NewPCG(seed, uint64(100+i)))
		acting.Go(func() { c.publish(r, "publisher"+strconv.Itoa(i), c.servers[i%len(c.servers)]) })
	}
	wait(c.t, c.patience, "all have acted", acting.Wait)
	after()
	for _, client := range clients {
		client.barrier()
	}
	after()
	for _, client := range clients {
		client.barrier() // what came meanwhile has been read
	}
	broken := c.log.check(true)
	require.Empty(c.t, broken, "seed %d at rest", seed)

	for _, client := range clients {
		client.tape.leaves(c.log.now(), "*")
	}
	for _, srv := range c.servers {
		ctx, cancel := context.WithTimeout(context.Background(), c.patience)
		defer cancel()
		require.NoError(c.t, srv.Shutdown(ctx))
		assert.Zero(c.t, srv.Entries(), "channels left in the registry")
		assert.Zero(c.t, srv.Stats().Connections)
	}
	wait(c.t, c.patience, "all clients have read their goodbye", reading.Wait)
	assert.Empty(c.t, c.log.check(false), "seed %d at the end", seed)
	assert.Empty(c.t, c.counts.ended(), "seed %d: hooks", seed)
}

// settle waits until the connections that were ended are gone, on both sides:
// their quits are out, and their tapes are at an end.
func (c *crowd) settle() {
	wait(c.t, c.patience, "ended connections are gone", func() {
		for {
			connections := 0
			for _, srv := range c.servers {
				connections += srv.Stats().Connections
			}
			if connections == crowdClients && c.readers.Load() == crowdClients {
				return
			}
			<-time.After(time.Millisecond)
		}
	})
}

// publish is a publisher: half of it by Publish, half by trigger.
func (c *crowd) publish(r *rand.Rand, name string, srv *pushy.Server) {
	for range crowdActs {
		c.pause(r)
		channel := crowdChannels[r.IntN(len(crowdChannels))]
		said := c.log.shout(strings.ToLower(channel), name, c.nextShout(), "")
		body, _ := json.Marshal(map[string]any{"by": name, "n": said.n, "more": c.filling(said.n)})
		accepted := false
		if r.IntN(2) == 0 {
			accepted = srv.Publish(context.Background(), channel, "told", json.RawMessage(body)) == nil
		} else {
			answer := postTrigger(c.t, srv, channel, "told", string(body))
			accepted = answer == 200 || answer == 201
		}
		c.log.answered(said, accepted)
	}
}

// postTrigger signs a trigger with a JSON body and returns the status.
func postTrigger(t testing.TB, srv *pushy.Server, channel, event, body string) int {
	now := time.Now().Unix()
	key, err := pushy.SignTrigger(peerKey, channel, event, now, []byte(body))
	assert.NoError(t, err)
	target := fmt.Sprintf("/pushy/channel/%s/trigger?event=%s&timestamp=%d&auth_key=%s", url.PathEscape(channel), event, now, key)
	r := httptest.NewRequest("POST", target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w.Code
}

// crowdClient is one client of a crowd; a new connection is a new tape.
type crowdClient struct {
	*crowd
	r       *rand.Rand
	srv     *pushy.Server
	reading *sync.WaitGroup

	pipe *inmem.Client
	tape *tape
	id   string
	// spoke: it asked to publish as a member, and has not waited since.
	spoke bool

	mu      sync.Mutex
	members map[string]string // memberId by channel, as far as it has read
	passed  chan struct{}
}

func (c *crowdClient) connect() {
	open := inmem.FullPipe
	if c.deflates && c.r.IntN(2) == 0 {
		open = inmem.DeflatePipe
	}
	session, pipe := open("websocket", nil)
	if c.fills {
		r := rand.New(rand.NewPCG(c.r.Uint64(), 3)) // the socket's one writer's alone
		session, pipe = open("websocket", func(n int) int {
			if r.IntN(3) > 0 {
				return n
			}
			return r.IntN(n)
		})
	}
	c.srv.Connect(session, nil)
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	text, err := pipe.Receive(ctx)
	if !assert.NoError(c.t, err) {
		return
	}
	hello, _ := parseFrame(text)
	c.pipe, c.id = pipe, hello.field("socketId")
	c.mu.Lock()
	c.members, c.passed = map[string]string{}, make(chan struct{}, 100)
	c.tape = c.log.tape(c.id)
	tape, passed := c.tape, c.passed
	c.mu.Unlock()
	c.reading.Go(func() { c.read(pipe, tape, passed) })
}

func (c *crowdClient) read(pipe *inmem.Client, tape *tape, passed chan struct{}) {
	c.readers.Add(1)
	defer c.readers.Add(-1)
	for {
		text, err := pipe.Receive(context.Background())
		if err != nil {
			return
		}
		f, err := parseFrame(text)
		assert.NoError(c.t, err)
		tape.got(c.log.now(), f)
		c.mu.Lock()
		switch {
		case f.Event == "pushy:subscription-success" && c.tape == tape:
			c.members[f.field("channel")] = f.field("memberId")
		case f.Event == "pushy:error" && f.field("code") == "200":
			passed <- struct{}{}
		}
		c.mu.Unlock()
	}
}

// barrier waits until everything that the client has asked for is answered.
func (c *crowdClient) barrier() {
	if c.pipe.Send(`{"command":"barrier"}`) != nil {
		return
	}
	select {
	case <-c.passed:
		c.spoke = false
		c.tape.leaves(c.log.now(), ".")
	case <-time.After(c.patience):
		assert.Fail(c.t, "a client gets no answer")
	}
}

func (c *crowdClient) act() {
	c.connect()
	defer c.barrier()
	for range crowdActs {
		c.pause(c.r)
		channel := crowdChannels[c.r.IntN(len(crowdChannels))]
		lower := strings.ToLower(channel)
		switch c.r.IntN(12) {
		case 0, 1, 2, 3:
			_ = c.pipe.Send(subscribeText(c.t, c.id, channel, []string{"", `{"name":"x"}`, `"{}"`}[c.r.IntN(3)]))
		case 4, 5:
			c.tape.leaves(c.log.now(), lower)
			_ = c.pipe.Send(fmt.Sprintf(`{"command":"unsubscribe","data":{"channel":%q}}`, channel))
		case 6:
			c.barrier()
		case 7: // the host takes access back
			if c.spoke {
				c.barrier() // it would be heard after it has left
			}
			if ch, ok := c.srv.Channels().Lookup(channel); ok {
				if conn, ok := c.srv.Conn(c.id); ok {
					c.tape.leaves(c.log.now(), lower)
					err := ch.Remove(conn, "by the host")
					assert.True(c.t, err == nil || errors.Is(err, pushy.ErrNotMember), "%v", err)
				}
			}
		case 8: // ends the connection, one way or another, and comes back
			how := c.r.IntN(3)
			c.tape.leaves(c.log.now(), []string{"*", "!", "*"}[how])
			switch how {
			case 0:
				c.pipe.Close(1000, "bye")
			case 1:
				c.pipe.Abort()
			default:
				if conn, ok := c.srv.Conn(c.id); ok {
					assert.NoError(c.t, conn.Close(3500, "removed"))
				}
			}
			c.connect()
		default:
			c.mu.Lock()
			of := c.members[lower]
			c.mu.Unlock()
			if of != "" && c.stillIn(lower) {
				c.spoke = true
				_ = c.pipe.Send(fmt.Sprintf(`{"command":"say","data":{"channel":%q,"of":%q}}`, lower, of))
			} else {
				_ = c.pipe.Send(fmt.Sprintf(`{"command":"say","data":{"channel":%q}}`, lower))
			}
		}
	}
}

// stillIn reports whether the client is sure to be in: nobody asked to end its
// membership since the success, nor so shortly before that it may be meant.
func (c *crowdClient) stillIn(channel string) bool {
	c.tape.mu.Lock()
	defer c.tape.mu.Unlock()
	in := false
	for i := len(c.tape.log) - 1; i >= 0; i-- {
		e := c.tape.log[i]
		switch {
		case e.left == channel:
			return false
		case e.left == "." && in:
			return true
		case e.frame.Event == "pushy:subscription-success" && e.frame.field("channel") == channel:
			in = true
		}
	}
	return in
}

func TestOrderOnOneNode(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, func(*rand.Rand) {})
			c.addServer(pushy.Options{})
			c.run(seed, c.settle)
		})
	}
}

// The engine's flushers write without waiting until a socket is full, at any
// byte of a frame, and drains take over from there: the order stays.
func TestOrderOnSocketsThatFillUp(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, func(*rand.Rand) {})
			c.fills = true
			c.addServer(pushy.Options{})
			c.run(seed, c.settle)
		})
	}
}

// Messages for clients with permessage-deflate are compressed, and sockets are full at any byte.
func TestOrderOfCompressedMessages(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, func(*rand.Rand) {})
			c.fills = true
			c.deflates = true
			c.addServer(pushy.Options{Compress: deflate.From(128)})
			c.run(seed, c.settle)
			assert.NotZero(t, c.servers[0].Stats().Compressed.Events)
		})
	}
}
