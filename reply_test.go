package pushy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// keeper has commands that keep their Conn and Channels for later.
type keeper struct {
	mu       sync.Mutex
	conns    []*pushy.Conn
	channels []*pushy.Channels
}

func (k *keeper) add(conn *pushy.Conn, channels *pushy.Channels) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = append(k.conns, conn)
	k.channels = append(k.channels, channels)
}

func (k *keeper) register(srv *pushy.Server) {
	srv.RegisterCommand("keep", func(_ *pushy.Server, c *pushy.Conn, _ json.RawMessage, channels *pushy.Channels) {
		k.add(c, channels)
		_ = c.Reply("kept", struct{}{})
	})
	pushy.Handle(srv, "keep-typed", func(_ context.Context, c *pushy.Conn, _ struct{}) (any, error) {
		k.add(c, srv.Channels())
		return nil, c.Send("kept", struct{}{})
	})
}

// Issue 11, number 21: a Conn that a command has kept goes on answering that
// command, whatever else runs meanwhile.
func TestReplyBelongsToItsCommand(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	var k keeper
	k.register(srv)
	later := func(name string, i int, reply func(c *pushy.Conn) error) {
		srv.RegisterCommand(name, func(_ *pushy.Server, c *pushy.Conn, _ json.RawMessage, _ *pushy.Channels) {
			done := make(chan error)
			go func() { done <- reply(k.conns[i]) }()
			assert.NoError(t, <-done)
			_ = c.Reply("own", struct{}{})
		})
	}
	url := serveHandler(t, srv, srv) // over a socket the message's buffer is used again
	c := dial(t, url, false)
	send := func(text, want string) {
		t.Helper()
		c.Send(text)
		require.Equal(t, want, c.Receive())
	}
	send(`{"command":"keep","id":"the first, with a long id"}`, `{"event":"kept","data":{"id":"the first, with a long id"}}`)
	send(`{"command":"keep"}`, `{"event":"kept","data":{}}`)
	send(`{"command":"keep","id":3}`, `{"event":"kept","data":{"id":3}}`)
	c.Send(`{"command":"keep-typed","id":4}`)
	require.Equal(t, `{"event":"kept","data":{}}`, c.Receive())
	require.Equal(t, `{"event":"pushy:reply","data":{"id":4,"data":null}}`, c.Receive())
	for i, want := range []string{`{"id":"the first, with a long id"}`, `{}`, `{"id":3}`, `{"id":4}`} {
		name := fmt.Sprintf("reply-%d", i)
		later(name, i, func(c *pushy.Conn) error { return c.Reply("late", struct{}{}) })
		send(`{"command":"`+name+`","id":"another"}`, `{"event":"late","data":`+want+`}`)
		require.Equal(t, `{"event":"own","data":{"id":"another"}}`, c.Receive())
		send(`{"command":"`+name+`"}`, `{"event":"late","data":`+want+`}`)
		require.Equal(t, `{"event":"own","data":{}}`, c.Receive())
	}
	later("fail", 2, func(c *pushy.Conn) error { return c.ReplyError(&pushy.Error{Code: "1", Message: "no"}) })
	send(`{"command":"fail","id":9}`, `{"event":"pushy:error","data":{"message":"no","code":"1","id":3}}`)
	require.Equal(t, `{"event":"own","data":{"id":9}}`, c.Receive())
	require.NoError(t, k.conns[0].Reply("idle", struct{}{}), "while no command runs")
	require.Equal(t, `{"event":"idle","data":{"id":"the first, with a long id"}}`, c.Receive())
}

// Issue 11, number 21: what is not a command's Conn carries no id, even while a
// command with one runs.
func TestOtherConnsBelongToNoCommand(t *testing.T) {
	t.Parallel()
	var fromHook *pushy.Conn
	srv := startServer(t, pushy.Options{
		Hooks: pushy.Hooks{
			Connect:   func(c *pushy.Conn) { fromHook = c },
			Subscribe: func(c *pushy.Conn, _ *pushy.Channel) { _ = c.Reply("subscribed", struct{}{}) },
		},
		Authorizer: authorizerFunc(func(_ context.Context, r pushy.AuthRequest) error {
			return r.Conn.Reply("authorized", struct{}{})
		}),
	})
	srv.RegisterCommand("all", func(srv *pushy.Server, c *pushy.Conn, _ json.RawMessage, channels *pushy.Channels) {
		known, _ := srv.Conn(c.ID())
		_ = known.Reply("known", struct{}{})
		_ = fromHook.ReplyError(&pushy.Error{Code: "1", Message: "hook"})
		ch, _ := channels.Lookup("news")
		for member := range ch.Conns() {
			_ = member.Reply("member", struct{}{})
			assert.NotSame(t, c, member)
			assert.Equal(t, c.ID(), member.ID())
		}
		assert.NotSame(t, c, known, "a command's Conn is its own, with an id or without")
		assert.Same(t, fromHook, known)
	})
	p := connectPeer(t, srv)
	p.send(`{"command":"subscribe","data":{"channel":"news"},"id":1}`)
	p.expect(`authorized {}`)
	success := p.next()
	assert.Equal(t, "pushy:subscription-success", success.Event)
	assert.Contains(t, string(success.Data), `"id":1`)
	p.expect(`subscribed {}`)
	for _, id := range []string{`,"id":2`, ``} {
		p.send(`{"command":"all"` + id + `}`)
		p.expect(`known {}`)
		p.expect(`pushy:error {"message":"hook","code":"1"}`)
		p.expect(`member {}`)
		p.quiet()
	}
}

// authorizerFunc is an Authorizer that is one func.
type authorizerFunc func(ctx context.Context, r pushy.AuthRequest) error

func (f authorizerFunc) Authorize(ctx context.Context, r pushy.AuthRequest) error { return f(ctx, r) }

// Issue 11, number 21: every Conn of a connection does for all methods, and a
// command's Channels answer that command later, too.
func TestCommandsConnAndChannelsWorkLater(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	var k keeper
	k.register(srv)
	for _, name := range []string{"subscribe", "unsubscribe"} {
		srv.HandleCommand(name, func(r *pushy.Request) error {
			later := *r
			later.Data = bytes.Clone(r.Data)
			go later.Builtin()
			return nil
		})
	}
	p := connectPeer(t, srv)
	p.send(`{"command":"keep","id":1}`)
	p.expect(`kept {"id":1}`)
	p.send(`{"command":"keep","id":2}`)
	p.expect(`kept {"id":2}`)
	one, two, plain := k.conns[0], k.conns[1], p.conn(srv)

	require.NoError(t, k.channels[0].Join(two, "news", nil))
	assert.Contains(t, string(p.next().Data), `"id":1`, "the Channels' command is answered")
	ch, ok := srv.Channels().Lookup("news")
	require.True(t, ok)
	for _, c := range []*pushy.Conn{one, two, plain} {
		assert.True(t, ch.Has(c))
		assert.Equal(t, []string{"news"}, c.Channels())
		assert.Error(t, srv.Channels().Join(c, "news", nil), "it is a member")
		_, err := srv.PublishEvent(t.Context(), pushy.Event{
			Channel: "news",
			Name:    "x",
			Data:    1,
			Except:  []string{c.ID()},
		})
		require.NoError(t, err)
	}
	p.quiet()
	require.NoError(t, k.channels[1].Leave(one, "news"))
	p.expect(`pushy:subscription-end {"channel":"news","id":2}`)
	require.NoError(t, srv.Channels().Join(one, "news", nil))
	assert.NotContains(t, string(p.next().Data), `"id"`)
	ch, ok = srv.Channels().Lookup("news")
	require.True(t, ok)
	require.NoError(t, ch.Remove(two, "out"))
	p.expect(`pushy:subscription-end {"channel":"news","reason":"out"}`)

	p.send(`{"command":"subscribe","data":{"channel":"late"},"id":"s"}`)
	assert.Contains(t, string(p.next().Data), `"id":"s"`)
	p.send(`{"command":"unsubscribe","data":{"channel":"late"},"id":"u"}`)
	p.expect(`pushy:subscription-end {"channel":"late","id":"u"}`)
	require.NoError(t, two.Close(pushy.CloseRemoved, "out"))
	assert.Equal(t, pushy.CloseRemoved, p.ended().Code)
	assert.ErrorIs(t, one.Reply("x", nil), pushy.ErrClosed)
}

// Issue 11, number 27: an answer carries the command's id whatever its data is.
func TestRepliesKeepTheID(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	srv.RegisterCommand("echo", func(_ *pushy.Server, c *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		_ = c.Reply("echo", data)
	})
	pushy.Handle(srv, "typed", func(_ context.Context, _ *pushy.Conn, data json.RawMessage) (any, error) { return data, nil })
	c := dial(t, serveHandler(t, srv, srv), false)
	for _, v := range []struct{ id, data, want string }{
		{`7`, `{"a":1}`, `"data":{"a":1,"id":7}`},
		{`7`, `{}`, `"data":{"id":7}`},
		{`"x"`, `[]`, `"data":[],"id":"x"`},
		{`7`, `[{"id":1}]`, `"data":[{"id":1}],"id":7`},
		{`7`, `{"id":1}`, `"data":{"id":1},"id":7`},
		{`7`, `{"a":{"id":1}}`, `"data":{"a":{"id":1},"id":7}`},
		{`7`, `{"id":null,"a":1}`, `"data":{"id":null,"a":1},"id":7`},
		{`"\u00e9\""`, `"text"`, `"data":"text","id":"\u00e9\""`},
		{`1.50`, `5`, `"data":5,"id":1.50`},
		{`0`, `null`, `"data":null,"id":0`},
		{`""`, `true`, `"data":true,"id":""`},
	} {
		c.Send(`{"command":"echo","id":` + v.id + `,"data":` + v.data + `}`)
		require.Equal(t, `{"event":"echo",`+v.want+`}`, c.Receive())
		c.Send(`{"command":"echo","data":` + v.data + `}`)
		require.Equal(t, `{"event":"echo","data":`+v.data+`}`, c.Receive())
		c.Send(`{"command":"typed","id":` + v.id + `,"data":` + v.data + `}`)
		require.Equal(t, `{"event":"pushy:reply","data":{"id":`+v.id+`,"data":`+v.data+`}}`, c.Receive())
	}
}

// Issue 11, number 27: PHP has no empty object.
func TestTypedCommandsTakePHPsEmptyObject(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{})
	pushy.Handle(srv, "struct", func(_ context.Context, _ *pushy.Conn, r moveRequest) (any, error) { return r.To == nil, nil })
	pushy.Handle(srv, "pointer", func(_ context.Context, _ *pushy.Conn, r *moveRequest) (any, error) { return r != nil, nil })
	pushy.Handle(srv, "map", func(_ context.Context, _ *pushy.Conn, r map[string]int) (any, error) { return r, nil })
	pushy.Handle(srv, "slice", func(_ context.Context, _ *pushy.Conn, r []int) (any, error) { return r, nil })
	pushy.Handle(srv, "any", func(_ context.Context, _ *pushy.Conn, r any) (any, error) { return r, nil })
	pushy.Handle(srv, "raw", func(_ context.Context, _ *pushy.Conn, r json.RawMessage) (any, error) { return r, nil })
	p := connectPeer(t, srv)
	for command, want := range map[string]string{"struct": `true`, "pointer": `true`, "map": `{}`, "slice": `[]`, "any": `[]`, "raw": `[]`} {
		for _, empty := range []string{`[]`, "[ \\n ]"} {
			empty = strings.ReplaceAll(empty, `\n`, "\n")
			p.send(`{"command":"` + command + `","id":1,"data":` + empty + `}`)
			f := p.next()
			require.Equal(t, "pushy:reply", f.Event, "%s %s", command, f)
			require.JSONEq(t, `{"id":1,"data":`+want+`}`, string(f.Data), command)
		}
	}
	p.send(`{"command":"struct","data":[[]]}`)
	p.expect(`pushy:error {"message":"data must be an object, not an array","code":"400"}`)
	p.send(`{"command":"struct","data":{"to":[]}}`)
	p.expect(`pushy:error {"message":"to: must be an object, not an array","code":"400"}`)
}

// Answers remain in the order of their commands, and between what other goroutines send, whether a
// client waits for each answer or sends many commands at once.
func TestAnswersRemainInOrder(t *testing.T) {
	t.Parallel()
	srv := startServer(t, pushy.Options{Limits: pushy.Limits{CommandRate: -1}})
	srv.RegisterCommand("echo", func(_ *pushy.Server, conn *pushy.Conn, data json.RawMessage, _ *pushy.Channels) {
		assert.NoError(t, conn.Reply("first", data))
		assert.NoError(t, conn.Reply("second", data))
	})
	pushy.Handle(srv, "typed", func(_ context.Context, conn *pushy.Conn, n int) (int, error) {
		return n, conn.Send("before", n)
	})
	const commands = 600
	url := serveHandler(t, srv, srv)
	for _, framed := range []bool{false, true} {
		c := dial(t, url, framed)
		conn, ok := srv.Conn(c.id)
		require.True(t, ok)
		var other sync.WaitGroup
		other.Go(func() {
			for n := range commands {
				assert.NoError(t, conn.Send("other", n))
			}
		})
		next := map[string]int{}
		sent, answers := 0, 0
		for next["pushy:reply"]+next["first"] < commands || next["other"] < commands {
			for under := 1 + sent%7; sent < commands && sent-answers < under; sent++ {
				command := []string{"echo", "typed"}[sent%2]
				c.Send(fmt.Sprintf(`{"command":%q,"data":%d,"id":%d}`, command, sent/2, sent))
			}
			var m struct {
				Event string
				Data  json.RawMessage
			}
			require.NoError(t, json.Unmarshal([]byte(c.Receive()), &m))
			n := next[m.Event]
			want := strconv.Itoa(n)
			switch m.Event {
			case "pushy:reply":
				want = fmt.Sprintf(`{"id":%d,"data":%d}`, 2*n+1, n)
				answers++
				require.Equal(t, n+1, next["before"])
			case "second":
				answers++
				require.Equal(t, n+1, next["first"])
			}
			require.Equal(t, want, string(m.Data), m.Event)
			next[m.Event]++
		}
		other.Wait()
	}
}
