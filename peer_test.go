package pushy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/internal/session"
	"github.com/gopushy/pushy/internal/transport/inmem"
)

const (
	peerKey = "a secret of sixteen bytes or more"
	// peerPatience is for what must happen, on a slow machine too.
	peerPatience = 60 * time.Second
)

// startServer makes a Server that ends with the test. Its secret is peerKey and
// its log is dropped, unless the options say otherwise.
func startServer(t testing.TB, o pushy.Options) *pushy.Server {
	t.Helper()
	if o.SecretKey == "" && !o.DisableTrigger {
		o.SecretKey = peerKey
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := pushy.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// frame is one message from the server.
type frame struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel"`
	Data    json.RawMessage `json:"data"`
}

func parseFrame(text string) (f frame, err error) {
	err = json.Unmarshal([]byte(text), &f)
	return f, err
}

// field returns a text field of the frame's data.
func (f frame) field(name string) string {
	var fields map[string]any
	if json.Unmarshal(f.Data, &fields) != nil {
		return ""
	}
	text, _ := fields[name].(string)
	return text
}

func (f frame) String() string {
	if f.Channel != "" {
		return f.Event + " " + f.Channel + " " + string(f.Data)
	}
	return f.Event + " " + string(f.Data)
}

// peer is a client over a transport.Pipe.
type peer struct {
	t  testing.TB
	id string
	*inmem.Client
}

// connectPeer connects a client and reads its first message.
func connectPeer(t testing.TB, srv *pushy.Server) *peer {
	t.Helper()
	session, client := inmem.Pipe("websocket")
	srv.Connect(session, nil)
	p := &peer{t: t, Client: client}
	hello := p.next()
	require.Equal(t, "pushy:connect", hello.Event)
	p.id = hello.field("socketId")
	require.NotEmpty(t, p.id)
	return p
}

func (p *peer) conn(srv *pushy.Server) *pushy.Conn {
	p.t.Helper()
	c, ok := srv.Conn(p.id)
	require.True(p.t, ok, "connection %s is not known", p.id)
	return c
}

func (p *peer) send(text string) {
	p.t.Helper()
	require.NoError(p.t, p.Send(text))
}

func (p *peer) next() frame {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	text, err := p.Receive(ctx)
	require.NoError(p.t, err, "no further message")
	f, err := parseFrame(text)
	require.NoError(p.t, err, "message %s", text)
	return f
}

// ask sends a message and returns the one that comes next.
func (p *peer) ask(text string) frame {
	p.t.Helper()
	p.send(text)
	return p.next()
}

// expect reads the next message and compares it.
func (p *peer) expect(want string) frame {
	p.t.Helper()
	f := p.next()
	require.Equal(p.t, want, f.String())
	return f
}

// quiet proves that nothing waits for the client: the next message answers a
// question that it asks now.
func (p *peer) quiet() {
	p.t.Helper()
	p.send(`{"command":"is-anything-there","id":"quiet"}`)
	p.expect(`pushy:error {"message":"Unknown command","code":"200","id":"quiet"}`)
}

// ended reads to the end and returns the server's goodbye.
func (p *peer) ended() *session.CloseError {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	for {
		_, err := p.Receive(ctx)
		var end *session.CloseError
		if errors.As(err, &end) {
			return end
		}
		require.NoError(p.t, err, "the connection does not end")
	}
}

// subscribe joins a channel and returns the success. data is JSON or "".
func (p *peer) subscribe(channel, data string) frame {
	p.t.Helper()
	p.send(subscribeText(p.t, p.id, channel, data))
	f := p.next()
	require.Equal(p.t, "pushy:subscription-success", f.Event, "%s", f)
	require.Equal(p.t, strings.ToLower(channel), f.field("channel"))
	return f
}

// subscribeText is the command that joins a channel, with a token if it needs one.
func subscribeText(t testing.TB, connID, channel, data string) string {
	t.Helper()
	if !strings.HasPrefix(channel, "private-") {
		return fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q}}`, channel)
	}
	var value any
	with := ""
	if data != "" {
		value, with = json.RawMessage(data), `,"data":`+data
	}
	auth, err := pushy.SignChannel(peerKey, connID, channel, value)
	require.NoError(t, err)
	return fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q,"auth":%q%s}}`, channel, auth, with)
}

// wait fails the test, with what it was waiting for, when run takes too long.
func wait(t testing.TB, patience time.Duration, what string, run func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		run()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("waited in vain: " + what)
	}
}
