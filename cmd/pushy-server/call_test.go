package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/memory"
	"github.com/gopushy/pushy/internal/seam"
)

// twoNodes starts two servers with one broker. All their connections are of the user 42, and the
// channels that begin with "chat" keep events. The second one can be cut off.
func twoNodes(t *testing.T) (nodes [2]*pushy.Server, urls [2]string, second *memory.Broker) {
	t.Helper()
	cluster := memory.NewCluster(memory.Options{})
	for i := range nodes {
		second = cluster.Broker()
		nodes[i], urls[i], _ = startPushy(t, pushy.Options{
			Broker: second,
			Accept: func(*http.Request) (any, error) { return "42", nil },
			Channel: func(name string) pushy.ChannelOptions {
				if strings.HasPrefix(name, "chat") {
					return pushy.ChannelOptions{Keep: broker.Keep{Size: 100}}
				}
				return pushy.ChannelOptions{}
			},
		})
	}
	return nodes, urls, second
}

// runCall runs a command to its end.
func runCall(t *testing.T, url string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	tm := newTerminal(map[string]string{"PUSHY_SECRET_KEY": secret, "PUSHY_URL": url})
	status = tm.start(args...).end(t)
	return status, tm.out.String(), tm.err.String()
}

func TestCalls(t *testing.T) {
	t.Parallel()
	nodes, urls, _ := twoNodes(t)
	here := newTerminal(withSecret()).start("listen", "-url", urls[0], "-member", `{"name":"Ann"}`, "Lobby", "private-staff")
	says(t, here.err, "listening to", 2)
	there := newTerminal(nil).start("listen", "-url", urls[1], "lobby")
	says(t, there.err, "listening to", 1)
	for i := range 3 {
		require.NoError(t, nodes[0].Publish(t.Context(), "chat", "said", map[string]int{"n": i}))
	}
	at, err := nodes[0].Position(t.Context(), "chat")
	require.NoError(t, err)
	id, hex, date := `[0-9a-f-]{36}`, `[0-9a-f]+`, `20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`
	conn := id + `  user 42  on ` + hex + `  rawwebsocket since ` + date
	event := func(n uint64) string { return fmt.Sprintf(`%d  %s  said  \{"n":%d\}`+"\n", at.Offset-2+n, date, n) }
	jsonConn := `\{"id":"` + id + `","user":"42","node":"` + hex + `","transport":"rawwebsocket","since":\d+,"channels":\["lobby"`
	end := time.Now().Add(240 * time.Hour).UTC().Truncate(time.Second)
	until := end.Format(time.RFC3339)
	for _, c := range []struct {
		args   []string
		stdout string // a regular expression
		stderr string
	}{
		{[]string{"channels"}, "lobby\nprivate-staff\n", ""},
		{[]string{"channels", "-count"}, "      2  lobby\n      1  private-staff\n", ""},
		{[]string{"channels", "-limit", "1"}, "lobby\n", ""},
		{[]string{"channels", "-after", "lobby"}, "private-staff\n", ""},
		{[]string{"channels", "-json", "-count", "PRIV"}, `\{"name":"private-staff","subscribers":1,"presence":true\}` + "\n", ""},
		{[]string{"channels", "-json", "lob"}, `\{"name":"lobby","presence":false\}` + "\n", ""},
		{[]string{"channels", "nothing"}, "", ""},
		{[]string{"members", "private-Staff"}, hex + `  42  \{.*"memberId":"` + hex + `".*\}` + "\n", ""},
		{[]string{"members", "-json", "private-staff"}, `\{"id":"` + hex + `","user":"42","member":\{.*\}\}` + "\n", ""},
		{[]string{"connections", "user:42"}, "(" + conn + "  [12] channels?  0 bytes waiting\n){2}", ""},
		{[]string{"connections", "channel:private-staff"}, conn + "  2 channels  0 bytes waiting\n", ""},
		{[]string{"connections", "-json", "-limit", "1", "channel:lobby"}, jsonConn + `.*\],"channelCount":[12],"waiting":0\}` + "\n", ""},
		{[]string{"connections", "conn:nobody"}, "", ""},
		{[]string{"history", "chat"}, event(0) + event(1) + event(2), ""},
		{
			[]string{"history", "-limit", "1", "chat"}, event(2),
			fmt.Sprintf("pushy-server: more events are kept; -before %d prints the next ones\n", at.Offset),
		},
		{
			[]string{"history", "-limit", "1", "-after", fmt.Sprint(at.Offset - 2), "chat"}, event(1),
			fmt.Sprintf("pushy-server: more events are kept; -after %d prints the next ones\n", at.Offset-1),
		},
		{
			[]string{"history", "-json", "-limit", "1", "-before", fmt.Sprint(at.Offset - 1), "chat"},
			fmt.Sprintf(`\{"event":"said","data":\{"n":0\},"offset":%d,"epoch":%q,"time":\d+\}`+"\n", at.Offset-2, at.Epoch), "",
		},
		{[]string{"position", "chat"}, at.String() + "\n", ""},
		{[]string{"position", "-json", "Chat"}, `\{"position":"` + at.String() + `"\}` + "\n", ""},
		{[]string{"send", "user:42", "hello"}, "sent to 2 connections on 2 nodes\n", ""},
		{[]string{"send", "-json", "-id", "order-17", "user:42", "hello", `{"a":1}`}, `\{"sent":2,"nodes":2,"silent":\[\]\}` + "\n", ""},
		{[]string{"send", "conn:nobody", "hello"}, "sent to 0 connections on 2 nodes\n", ""},
		{[]string{"bans"}, "", ""},
		{[]string{"kick", "-reason", "Full", "-until", until, "channel:private-staff"}, "ended 1 subscription on 2 nodes\n", ""},
		{[]string{"bans"}, "channel:private-staff  until " + until + "  Full\n", ""},
		{[]string{"bans", "-json"}, fmt.Sprintf(`\{"target":"channel:private-staff","reason":"Full","since":\d+,"until":%d\}`+"\n", end.Unix()), ""},
		{[]string{"unban", "-json", "channel:private-staff"}, `\{"lifted":true,"nodes":2,"silent":\[\]\}` + "\n", ""},
		{[]string{"unban", "channel:private-staff"}, "not banned\n", ""},
		{[]string{"kick", "-json", "conn:nobody"}, `\{"closed":0,"nodes":2,"silent":\[\]\}` + "\n", ""},
		{[]string{"kick", "-for", "1h", "user:42"}, "closed 2 connections on 2 nodes\n", ""},
		{[]string{"unban", "user:42"}, "ended the ban on 2 nodes\n", ""},
	} {
		status, stdout, stderr := runCall(t, urls[0], c.args...)
		assert.Equal(t, exitOK, status, "%s: %s", c.args, stderr)
		assert.Regexp(t, "^"+c.stdout+"$", stdout, c.args)
		assert.Equal(t, c.stderr, stderr, c.args)
	}
	assert.Equal(t, exitFailed, here.end(t))
	assert.Contains(t, here.err.String(), "Full")
	assert.Equal(t, exitFailed, there.end(t))
	assert.Contains(t, there.err.String(), "3500 Removed")
}

// A list can be longer than a page.
func TestChannelsOfManyPages(t *testing.T) {
	t.Parallel()
	srv, url, _ := startPushy(t, pushy.Options{Limits: pushy.Limits{Channels: -1}})
	tm := newTerminal(nil).start("listen", "-url", url, "lobby")
	says(t, tm.err, "listening to", 1)
	lobby, ok := srv.Channels().Lookup("lobby")
	require.True(t, ok)
	for conn := range lobby.Conns() {
		for i := range 2_345 {
			require.NoError(t, srv.Channels().Join(conn, fmt.Sprintf("channel-%04d", i), nil))
		}
	}
	for limit, want := range map[string]int{"0": 2_345, "1500": 1500, "2000": 2000} {
		status, stdout, _ := runCall(t, url, "channels", "-limit", limit, "channel-")
		assert.Equal(t, exitOK, status)
		lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
		require.Len(t, lines, want)
		for i, line := range lines {
			require.Equal(t, fmt.Sprintf("channel-%04d", i), line)
		}
	}
}

// Nodes that do not answer are named, and the exit status says that something is missing.
func TestCallsWithASilentNode(t *testing.T) {
	t.Parallel()
	nodes, urls, second := twoNodes(t)
	tm := newTerminal(nil).start("listen", "-url", urls[0], "lobby")
	says(t, tm.err, "listening to", 1)
	defer second.Cut()()
	seam.Of(nodes[0]).SetAskTimeout(time.Second) // each call below waits that long
	silent := "pushy-server: nodes that did not answer: " + nodes[1].Node() + "\n"
	for _, c := range []struct {
		args   []string
		stdout string
	}{
		{[]string{"channels"}, "lobby\n"},
		{[]string{"connections", "channel:private-x"}, ""},
		{[]string{"members", "private-x"}, ""},
		{[]string{"send", "user:42", "hello"}, "sent to 1 connection on 1 node\n"},
		{[]string{"send", "-json", "user:42", "hello"}, `{"sent":1,"nodes":1,"silent":["` + nodes[1].Node() + `"]}` + "\n"},
		{[]string{"kick", "user:43"}, "closed 0 connections on 1 node\n"},
	} {
		status, stdout, stderr := runCall(t, urls[0], c.args...)
		assert.Equal(t, exitSilent, status, c.args)
		assert.Equal(t, c.stdout, stdout, c.args)
		assert.Equal(t, silent, stderr, c.args)
	}
	// The node that is cut off prints what it knows, and fails.
	tm = newTerminal(nil).start("listen", "-url", urls[1], "there")
	says(t, tm.err, "listening to", 1)
	status, stdout, stderr := runCall(t, urls[1], "channels", "-tries", "1")
	assert.Equal(t, exitFailed, status)
	assert.Equal(t, "there\n", stdout)
	assert.Contains(t, stderr, "Service unavailable")
}

func TestCallsFail(t *testing.T) {
	t.Parallel()
	_, urls, _ := twoNodes(t)
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // before, the server does not see that the client is gone
		<-r.Context().Done()
	}))
	t.Cleanup(hanging.Close)
	for _, c := range []struct {
		args   []string
		says   string
		status int
	}{
		{[]string{"channels", "a", "b"}, "channels: give at most one prefix", exitUsage},
		{[]string{"channels", "-limit", "-1"}, "channels: -limit must not be negative", exitUsage},
		{[]string{"channels", "a:"}, "prefix: must not contain :", exitFailed},
		{[]string{"channels", "-url", "http://127.0.0.1:1/pushy", "-tries", "1"}, "connection refused", exitFailed},
		{[]string{"channels", "-url", hanging.URL, "-timeout", "1s"}, "deadline exceeded", exitFailed},
		{[]string{"members"}, "members: give one channel", exitUsage},
		{[]string{"members", "lobby"}, "channel: is not private", exitFailed},
		{[]string{"connections", "42"}, `TARGET must be like user:42, conn:ID or channel:lobby, not "42"`, exitUsage},
		{[]string{"connections", "user:"}, "TARGET must be like", exitUsage},
		{[]string{"kick"}, "kick: give one TARGET", exitUsage},
		{[]string{"kick", "42"}, `target: must begin with "user:"`, exitFailed},
		{[]string{"kick", "-for", "1h", "-until", "2030-01-31T12:00:00Z", "user:42"}, "-for and -until are both given", exitUsage},
		{[]string{"kick", "-for", "0", "user:42"}, "-for must be at least 1s", exitUsage},
		{[]string{"kick", "-until", "", "user:42"}, "-until must be a time such as", exitUsage},
		{[]string{"kick", "-until", "2001-01-31T12:00:00Z", "user:42"}, "until: must be in the future", exitFailed},
		{[]string{"kick", "-for", "1h", "conn:x"}, "until: is not allowed for a connection", exitFailed},
		{[]string{"kick", "-id", "a b", "user:42"}, "must be 1 to 64 of", exitFailed},
		{[]string{"kick", "-url", hanging.URL, "-timeout", "1s", "user:42"}, "may have been carried out", exitUnknown},
		{[]string{"unban", "conn:x"}, "target: ", exitFailed},
		{[]string{"unban", "-url", hanging.URL, "-timeout", "1s", "user:42"}, "may have been carried out", exitUnknown},
		{[]string{"bans", "x"}, "bans: give no arguments", exitUsage},
		{[]string{"send", "42", "x"}, "TARGET must be like user:42 or conn:ID", exitUsage},
		{[]string{"send", "channel:a", "x"}, "TARGET must be like user:42 or conn:ID", exitUsage},
		{[]string{"send", "user:42", "x", "{"}, "send: DATA:1:2: the JSON is not finished", exitUsage},
		{[]string{"send", "user:42", "pushy:x"}, "event: ", exitFailed},
		{[]string{"history", "lobby"}, "channel: keeps no events", exitFailed},
		{[]string{"history", "-after", "0", "chat"}, "-after must be above 0", exitUsage},
		{[]string{"history", "-limit", "501", "chat"}, "limit: must be 1 to 500", exitFailed},
		{[]string{"history", "-before", "-1", "chat"}, "-before", exitUsage},
		{[]string{"position", "lobby"}, "channel: keeps no events", exitFailed},
		{[]string{"position", "-nope", "lobby"}, "-nope", exitUsage},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := runCall(t, urls[0], c.args...)
			assert.Equal(t, c.status, status, stderr)
			assert.Contains(t, stderr, c.says)
			assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			assert.Empty(t, stdout)
		})
	}
	for name, args := range map[string][]string{
		"bans": nil, "channels": nil, "members": {"a"}, "connections": {"user:42"}, "kick": {"user:42"}, "unban": {"user:42"},
		"send": {"user:42", "x"}, "history": {"chat"}, "position": {"chat"},
	} {
		status, _, stderr := runProgram(t, append([]string{name}, args...)...)
		assert.Equal(t, exitUsage, status, name)
		assert.Contains(t, stderr, name+": no secret key: set PUSHY_SECRET_KEY", name)
	}
}

// What clients and publishers have chosen cannot control the terminal.
func TestCallsPrintSafely(t *testing.T) {
	t.Parallel()
	nodes, urls, _ := twoNodes(t)
	tm := newTerminal(withSecret()).start("listen", "-url", urls[0], "-member", `{"name":"\u001b[31m\u202e"}`, "private-a")
	says(t, tm.err, "listening to", 1)
	require.NoError(t, nodes[0].Publish(t.Context(), "chat", "said", "\x1b[2J\u202e"))
	_, err := nodes[0].Kick(t.Context(), pushy.Kick{
		Target: "user:\x1b]0;",
		Reason: "\u200b\n",
		Until:  time.Now().Add(time.Hour),
	})
	require.NoError(t, err)
	for _, args := range [][]string{{"members", "private-a"}, {"history", "chat"}, {"bans"}} {
		for _, flags := range [][]string{nil, {"-json"}} {
			status, stdout, stderr := runCall(t, urls[0], append(append([]string{args[0]}, flags...), args[1:]...)...)
			assert.Equal(t, exitOK, status, stderr)
			assert.Equal(t, 1, strings.Count(stdout, "\n"), stdout)
			assert.NotContains(t, stdout, "\x1b")
			assert.NotContains(t, stdout, "\u202e")
			assert.NotContains(t, stdout, "\u200b")
			if flags != nil {
				assert.True(t, json.Valid([]byte(stdout)), stdout)
			}
		}
	}
}
