package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/seam"
)

// terminal is a run of publish or listen, with what a shell gives it.
type terminal struct {
	env     map[string]string
	stdin   string
	out     *logText
	err     *logText
	signals chan os.Signal
	ended   chan int
}

func newTerminal(env map[string]string) *terminal {
	return &terminal{env: env, out: newLogText(), err: newLogText(), signals: make(chan os.Signal, 1), ended: make(chan int, 1)}
}

func (tm *terminal) start(args ...string) *terminal {
	p := program{
		getenv: func(name string) string { return tm.env[name] }, stdin: strings.NewReader(tm.stdin),
		stdout: tm.out, stderr: tm.err, signals: tm.signals,
	}
	go func() { tm.ended <- p.run(args) }()
	return tm
}

// end waits for the exit status.
func (tm *terminal) end(t *testing.T) int {
	t.Helper()
	select {
	case status := <-tm.ended:
		assert.NotContains(t, tm.out.String()+tm.err.String(), secret)
		return status
	case <-time.After(patience):
		t.Fatalf("it does not end; it said %q and %q", tm.out, tm.err)
		return -1
	}
}

// says waits until a text is in what it has written, so often.
func says(t *testing.T, l *logText, text string, times int) {
	t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		found, changed := strings.Count(l.text.String(), text), l.changed
		l.mu.Unlock()
		if found >= times {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%q is not %d times in %q", text, times, l)
		}
	}
}

// site is a URL at which Servers follow each other. Its port stays open while there is none, because
// another process could take it; then connections are closed without an answer.
type site struct {
	url string
	srv atomic.Pointer[pushy.Server]
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		srv := s.srv.Load()
		if srv == nil {
			panic(http.ErrAbortHandler)
		}
		srv.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	s.url = web.URL + "/pushy"
	return s
}

// start starts the next Server; stop ends it.
func (s *site) start(t *testing.T, o pushy.Options) (srv *pushy.Server, stop func()) {
	t.Helper()
	o.SecretKey, o.Logger = secret, newLogger(t.Output(), true)
	srv, err := pushy.New(o)
	require.NoError(t, err)
	seam.Of(srv).SetAskTimeout(patience)
	s.srv.Store(srv)
	stop = sync.OnceFunc(func() {
		s.srv.CompareAndSwap(srv, nil)
		_ = srv.Close()
	})
	t.Cleanup(stop)
	return srv, stop
}

// startPushy starts a Server at a site of its own.
func startPushy(t *testing.T, o pushy.Options) (srv *pushy.Server, url string, stop func()) {
	t.Helper()
	s := newSite(t)
	srv, stop = s.start(t, o)
	return srv, s.url, stop
}

func withSecret() map[string]string { return map[string]string{"PUSHY_SECRET_KEY": secret} }

func TestPublishAndListen(t *testing.T) {
	t.Parallel()
	srv, url, _ := startPushy(t, pushy.Options{})
	listening := newTerminal(withSecret()).start("listen", "-url", url+"/", "-n", "4", "-member", `{"name":"Ann"}`, "Lobby", "private-staff")
	says(t, listening.err, "listening to", 2)
	room, ok := srv.Channels().Lookup("private-staff")
	require.True(t, ok)
	members, on := room.Presence()
	require.True(t, on)
	require.Len(t, members, 1)

	run := func(stdin string, args ...string) (string, int) {
		tm := newTerminal(map[string]string{"PUSHY_SECRET_KEY": secret, "PUSHY_URL": url})
		tm.stdin = stdin
		status := tm.start(append([]string{"publish"}, args...)...).end(t)
		return tm.out.String(), status
	}
	for _, c := range []struct {
		stdin  string
		args   []string
		says   string
		prints string
	}{
		{"", []string{"nobody", "news"}, "nobody is subscribed\n", ""},
		{"", []string{"-json", "nobody", "news"}, "{\"received\":false}\n", ""},
		{"", []string{"lobby", "news", `{"text": "Hello"}`}, "delivered\n", `"news"`},
		{"[1,\n2]\n", []string{"LOBBY", "list", "-"}, "delivered\n", `"list"`},
		{"", []string{"private-staff", "secret"}, "delivered\n", `"secret"`},
		{"", []string{"-except", "0b7b5c5e-5c0a-4a43-9e2c-d3f1d3c7a3b8", "lobby", "last"}, "delivered\n", `"last"`},
	} {
		said, status := run(c.stdin, c.args...)
		assert.Equal(t, exitOK, status, c.args)
		assert.Equal(t, c.says, said, c.args)
		if c.prints != "" {
			says(t, listening.out, c.prints, 1) // events of two channels have no order
		}
	}
	assert.Equal(t, exitOK, listening.end(t))
	assert.Equal(t, `{"event":"news","channel":"lobby","data":{"text":"Hello"}}
{"event":"list","channel":"lobby","data":[1,2]}
{"event":"secret","channel":"private-staff","data":{}}
{"event":"last","channel":"lobby","data":{}}
`, listening.out.String())
}

func TestListenComesBack(t *testing.T) {
	t.Parallel()
	at := newSite(t)
	srv, stop := at.start(t, pushy.Options{})
	tm := newTerminal(nil).start("listen", "-url", at.url, "lobby")
	says(t, tm.err, "listening to lobby", 1)
	require.NoError(t, srv.Publish(t.Context(), "lobby", "before", nil))
	says(t, tm.out, "before", 1)
	stop()
	says(t, tm.err, "reconnecting in", 1)
	again, _ := at.start(t, pushy.Options{})
	says(t, tm.err, "listening to lobby", 2)
	require.NoError(t, again.Publish(t.Context(), "lobby", "after", nil))
	says(t, tm.out, "after", 1)
	tm.signals <- syscall.SIGINT
	assert.Equal(t, exitOK, tm.end(t))
}

// With a store, what is published while listen is away is printed when it is back.
func TestListenMissesNothing(t *testing.T) {
	t.Parallel()
	cluster := memory.NewCluster(memory.Options{})
	options := func() pushy.Options {
		return pushy.Options{Broker: cluster.Broker(), Channel: func(string) pushy.ChannelOptions {
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 5, TTL: time.Hour}}
		}}
	}
	at := newSite(t)
	one, stop := at.start(t, options())
	two, _, _ := startPushy(t, options())
	publish := func(names ...string) {
		t.Helper()
		for _, name := range names {
			require.NoError(t, two.Publish(t.Context(), "lobby", name, nil))
		}
	}
	publish("a", "b", "c")
	tm := newTerminal(nil).start("listen", "-url", at.url, "-rewind", "2", "Lobby")
	says(t, tm.out, `"c"`, 1)
	stop()
	says(t, tm.err, "reconnecting in", 1)
	require.ErrorIs(t, one.Publish(t.Context(), "lobby", "x", nil), pushy.ErrClosed)
	publish("d", "e")
	_, stop = at.start(t, options())
	says(t, tm.out, `"e"`, 1)
	publish("f")
	says(t, tm.out, `"f"`, 1)
	assert.NotContains(t, tm.err.String(), "not all earlier events")
	stop()
	says(t, tm.err, "reconnecting in", 2)
	publish("g", "h", "i", "j", "k", "l")
	at.start(t, options())
	says(t, tm.out, `"l"`, 1)
	says(t, tm.err, "lobby: not all earlier events can be printed: trimmed", 1)
	tm.signals <- syscall.SIGINT
	assert.Equal(t, exitOK, tm.end(t))
	var names []string
	for line := range strings.Lines(tm.out.String()) {
		var m struct{ Event string }
		require.NoError(t, json.Unmarshal([]byte(line), &m))
		names = append(names, m.Event)
	}
	assert.Equal(t, []string{"b", "c", "d", "e", "f", "k", "l"}, names)
}

func TestListenIsRefused(t *testing.T) {
	t.Parallel()
	_, url, _ := startPushy(t, pushy.Options{CheckChannel: func(name string) error {
		if name == "closed" {
			return pushy.ErrDenied
		}
		return nil
	}})
	for _, c := range []struct {
		name, says string
		env        map[string]string
		args       []string
	}{
		{"otherPrefix", "answers 404", nil, []string{"-url", url + "x", "lobby"}},
		{"otherKey", "cannot listen to private-a: Invalid credentials", map[string]string{"PUSHY_SECRET_KEY": "another"}, []string{"-url", url, "private-a"}},
		{"badName", "channel name must not contain :", nil, []string{"-url", url, "a:b"}},
		{"closedName", "cannot listen to closed: Invalid channel name", nil, []string{"-url", url, "closed"}},
		{"badMember", "cannot listen to private-a: Invalid presence data", withSecret(), []string{"-url", url, "-member", "[1]", "private-a"}},
		{"nobodyThere", "connection refused", nil, []string{"-url", "http://127.0.0.1:1/pushy", "-once", "lobby"}},
		{"largeMember", "1009", withSecret(), []string{"-url", url, "-member", `{"a":"` + strings.Repeat("x", 65<<10) + `"}`, "private-a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tm := newTerminal(c.env).start(append([]string{"listen"}, c.args...)...)
			assert.Equal(t, exitFailed, tm.end(t))
			assert.Contains(t, tm.err.String(), c.says)
			if c.name != "largeMember" { // which costs a connection
				assert.Equal(t, 1, strings.Count(tm.err.String(), "\n"))
			}
			assert.Empty(t, tm.out.String())
		})
	}
}

// PROTOCOL.md, section 3: a client reconnects after 1009, but does not send the same message
// again.
func TestListenReconnectsAfterTooLarge(t *testing.T) {
	t.Parallel()
	success := `{"event":"pushy:subscription-success","data":{"channel":"lobby","id":$id}}`
	url := startHostile(t, []string{success}, ws.StatusMessageTooBig, "message too big")
	tm := newTerminal(nil).start("listen", "-url", url, "lobby")
	says(t, tm.err, "1009 message too big; reconnecting in", 1)
	tm.signals <- syscall.SIGINT
	assert.Equal(t, exitOK, tm.end(t))
}

func TestListenIsTakenOut(t *testing.T) {
	t.Parallel()
	srv, url, _ := startPushy(t, pushy.Options{})
	connOf := func(channel string) *pushy.Conn {
		ch, ok := srv.Channels().Lookup(channel)
		require.True(t, ok)
		for conn := range ch.Conns() {
			return conn
		}
		t.Fatal("nobody is in the channel")
		return nil
	}
	tm := newTerminal(nil).start("listen", "-url", url, "one")
	says(t, tm.err, "listening to one", 1)
	one, _ := srv.Channels().Lookup("one")
	require.NoError(t, one.Remove(connOf("one"), "the room is closed"))
	assert.Equal(t, exitFailed, tm.end(t))
	assert.Contains(t, tm.err.String(), "the room is closed")

	tm = newTerminal(nil).start("listen", "-url", url, "two")
	says(t, tm.err, "listening to two", 1)
	require.NoError(t, connOf("two").Close(pushy.CloseRemoved, "out"))
	assert.Equal(t, exitFailed, tm.end(t))
	assert.Contains(t, tm.err.String(), "3500 out")

	tm = newTerminal(nil).start("listen", "-url", url, "-once", "three")
	says(t, tm.err, "listening to three", 1)
	require.NoError(t, connOf("three").Close(1001, "restart"))
	assert.Equal(t, exitFailed, tm.end(t))
	assert.Contains(t, tm.err.String(), "1001 restart")
}

func TestPublishFails(t *testing.T) {
	t.Parallel()
	_, url, _ := startPushy(t, pushy.Options{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // before, the server does not see that the client is gone
		<-r.Context().Done()
	}))
	t.Cleanup(hanging.Close)
	for _, c := range []struct {
		name, says string
		status     int
		env        map[string]string
		args       []string
	}{
		{"otherKey", "Unknown key", exitFailed, map[string]string{"PUSHY_SECRET_KEY": "another"}, []string{"-url", url, "a", "b"}},
		{"badChannel", "events[0].channels[0]: must not contain :", exitFailed, withSecret(), []string{"-url", url, "a:b", "b"}},
		{"nobodyThere", "connection refused", exitFailed, withSecret(), []string{"-url", "http://127.0.0.1:1/pushy", "-tries", "2", "a", "b"}},
		{"hangs", "may have been carried out", exitUnknown, withSecret(), []string{"-url", hanging.URL, "-timeout", "3s", "a", "b"}},
		{"noSecret", "PUSHY_SECRET_KEY", exitUsage, nil, []string{"a", "b"}},
		{"noEvent", "give a channel", exitUsage, withSecret(), []string{"a"}},
		{"tooMany", "give a channel", exitUsage, withSecret(), []string{"a", "b", "{}", "{}"}},
		{"badFlag", "-nope", exitUsage, withSecret(), []string{"-nope", "a", "b"}},
		{"badURL", "must begin with http", exitUsage, withSecret(), []string{"-url", "ws://h/", "a", "b"}},
		{"badData", "1:9: not JSON from here on", exitUsage, withSecret(), []string{"-url", url, "a", "b", `{"text":Hello}`}},
		{"badID", "must be 1 to 64 of", exitFailed, withSecret(), []string{"-url", url, "-id", "a b", "a", "b"}},
		{"noSecretFile", "no such file", exitUsage, nil, []string{"-secret-file", "/nowhere/at/all", "a", "b"}},
		{"noConfig", "no such file", exitUsage, nil, []string{"-config", "/nowhere/at/all", "a", "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tm := newTerminal(c.env).start(append([]string{"publish"}, c.args...)...)
			assert.Equal(t, c.status, tm.end(t))
			assert.Contains(t, tm.err.String(), c.says)
			assert.Equal(t, 1, strings.Count(tm.err.String(), "\n"), tm.err.String())
			assert.Empty(t, tm.out.String())
		})
	}
}

func TestListenCommandLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"noChannel":     {nil, "at least one channel"},
		"privateNoKey":  {[]string{"Private-a"}, "needs the secret key"},
		"rewind":        {[]string{"-rewind", "501", "a"}, "-rewind must be from 0 to 500"},
		"noEvents":      {[]string{"-n", "0", "a"}, "-n"},
		"memberNotJSON": {[]string{"-member", "Ann", "a"}, "-member"},
		"badFlag":       {[]string{"-nope"}, "-nope"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tm := newTerminal(nil).start(append([]string{"listen"}, c.args...)...)
			assert.Equal(t, exitUsage, tm.end(t))
			assert.Contains(t, tm.err.String(), c.says)
		})
	}
	for _, command := range []string{"publish", "listen"} {
		tm := newTerminal(nil).start(command, "-h")
		assert.Equal(t, exitOK, tm.end(t))
		assert.Contains(t, tm.out.String(), "pushy-server "+command+" [flags]")
		assert.Contains(t, tm.out.String(), "PUSHY_SECRET_KEY")
	}
}

// Address and secret from the server's config file, with the real program at both ends.
func TestTerminalWithConfig(t *testing.T) {
	t.Parallel()
	server := startProcess(t, `{"host":"127.0.0.1","port":0,"secretKey":"`+secret+`","prefix":"/rt","sockjs":{"prefix":"/live"}}`)
	_, port, err := net.SplitHostPort(server.addr)
	require.NoError(t, err)
	config := writeConfig(t, `{"port":`+port+`,"secretKey":"`+secret+`","prefix":"/rt","sockjs":{"prefix":"/live"}}`)
	listening := newTerminal(nil).start("listen", "-config", config, "-n", "2", "private-staff")
	says(t, listening.err, "listening to private-staff", 1)
	tm := newTerminal(nil).start("publish", "-config", config, "private-staff", "one")
	assert.Equal(t, exitOK, tm.end(t))
	assert.Equal(t, "delivered\n", tm.out.String())

	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte(secret+"\n"), 0o600))
	tm = newTerminal(map[string]string{"PUSHY_SECRET_KEY": "another"}).start("publish",
		"-url", "http://"+server.addr+"/rt", "-secret-file", key, "private-staff", "two")
	assert.Equal(t, exitOK, tm.end(t))
	assert.Equal(t, exitOK, listening.end(t))
	assert.Equal(t, 2, strings.Count(listening.out.String(), "\n"))
}
