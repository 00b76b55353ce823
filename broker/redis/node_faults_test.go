package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/internal/testlog"
	"github.com/gopushy/pushy/internal/testproc"
)

// childEnv makes a process of the test's program a node: address and prefix.
const childEnv = "PUSHY_TEST_NODE"

// child is a node in a process of its own. It follows "room", joins three members, and
// joins them again after each Reset. It prints what it hears and what it gets.
func child(how string) error {
	address, prefix, _ := strings.Cut(how, " ")
	n := &childNode{resets: make(chan broker.State, 10)}
	b := redis.New(redis.Options{
		Addresses:      []string{address},
		Prefix:         prefix,
		RequireAtStart: true,
		Logger:         slog.New(slog.DiscardHandler),
	})
	ctx := context.Background()
	if err := b.Open(ctx, broker.OpenOptions{Node: "child", Lease: nodeLease}, n); err != nil {
		return err
	}
	if _, err := b.Follow(ctx, "room"); err != nil {
		return err
	}
	for {
		for _, id := range []string{"1", "2", "3"} {
			_, err := b.Append(ctx, "room", join(id))
			fmt.Println("join", id, err)
		}
		fmt.Println("joined")
		state := <-n.resets
		fmt.Println("members", ids(state))
	}
}

type childNode struct{ resets chan broker.State }

func (*childNode) Deliver(_ string, e broker.Entry) {
	fmt.Println("deliver", call{entry: e}.String(), string(e.Data))
}

func (n *childNode) Reset(_ string, s broker.State, reason string) {
	fmt.Println("reset", reason)
	n.resets <- s
}

// stdout is what a process prints.
type stdout struct {
	mu    sync.Mutex
	lines []string
}

func (o *stdout) read(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		o.mu.Lock()
		o.lines = append(o.lines, s.Text())
		o.mu.Unlock()
	}
}

func (o *stdout) has(part string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Contains(strings.Join(o.lines, "\n"), part)
}

// A node that is stopped for longer than its lease loses its members. When it goes on it
// is reset, and members that were adopted since then do not change.
func TestStoppedNode(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	a := closedNode(t, o)
	a.lease = patience // adoptions are remembered for twice as long
	require.NoError(t, a.open())
	b := open(t, o) // takes out members once its own lease's time is over
	b.follow("room")
	a.follow("room")
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childEnv+"="+server.Addr+" "+o.Prefix)
	testproc.DieWithParent(cmd)
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := &stdout{}
	var reader sync.WaitGroup
	reader.Go(func() { out.read(pipe) })
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		reader.Wait()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(strings.Join(out.lines, "\n"))
		}
	})
	require.Eventually(t, func() bool { return out.has("joined") }, patience, tick)
	a.wait("room", "+3")

	require.NoError(t, testproc.Pause(cmd.Process))
	adopt := func(id string) broker.Entry {
		return broker.Entry{Kind: broker.Adopt, Member: id, OldOwner: "owner-" + id, Owner: "mine"}
	}
	a.append("room", adopt("2"))
	a.append("room", adopt("3"))
	a.append("room", broker.Entry{Kind: broker.Leave, Member: "3", Owner: "mine"})
	a.wait("room", "-1") // its lease is over
	<-time.After(time.Second)
	require.NoError(t, testproc.Resume(cmd.Process))
	require.Eventually(t, func() bool { return out.has("reset lease\nmembers 2\n") }, patience, tick)
	a.wait("room", "-1")
	require.Eventually(t, func() bool {
		return out.has("join 2 "+broker.ErrMemberExists.Error()+"\n") && out.has("join 3 "+broker.ErrNotOwner.Error())
	}, patience, tick)
	<-time.After(nodeLease + 2*time.Second)
	assert.Equal(t, []string{"+1", "+2", "+3", "~2", "~3", "-3", "-1", "+1"}, a.words("room"))
	assert.Equal(t, 1, strings.Count(strings.Join(out.lines, "\n"), "reset "), "one Reset")
}

// Nodes of another format version are refused while they are there, in both directions.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	o, log := options(t, server), &testlog.Log{}
	o.Logger = log.Logger()
	versions := "{" + o.Prefix + "}versions"
	set(t, server, "ZADD", versions, fmt.Sprint(time.Now().Add(time.Hour).UnixMilli()), "2")
	err := closedNode(t, o).open()
	require.ErrorIs(t, err, broker.ErrVersion)
	assert.Contains(t, err.Error(), `they have version "2", this node has version 1`)
	o.RequireAtStart = false
	require.ErrorIs(t, closedNode(t, o).open(), broker.ErrVersion)
	soon := time.Now().Add(nodeLease).UnixMilli()
	set(t, server, "ZADD", versions, fmt.Sprint(soon), "2")
	require.Eventually(t, func() bool { return closedNode(t, o).open() == nil }, patience, tick, "they are gone")
	assert.Equal(t, ":1", set(t, server, "ZCOUNT", versions, fmt.Sprintf("(%d", soon), "+inf"), "what a node of another version will see")
}

// One warning for each option that differs, however many nodes there are.
func TestSettingsDiffer(t *testing.T) {
	t.Parallel()
	o, log := options(t, server), &testlog.Log{}
	o.Logger = log.Logger()
	for _, settings := range []map[string]string{
		{"Grace": "15s", "Keep": "a"}, {"Grace": "15s", "Keep": "a", "New": "x"}, {"Grace": "20s", "Keep": "a", "Keys": "k"},
	} {
		require.NoError(t, closedNode(t, o).openWith(settings))
	}
	all := log.With("level=WARN")
	require.Len(t, all, 1)
	assert.Contains(t, all[0], `msg="nodes have different settings" option=Grace here=20s elsewhere=15s`)
}

// A broker that cannot remember another ID says so, and forgets none early.
func TestTooManyIDs(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	a := open(t, o.MaxIDs(3))
	e := event("1")
	for i := range 3 {
		e.ID = fmt.Sprint("id", i)
		a.append("news", e)
	}
	e.ID = "id3"
	_, err := a.Append(bounded(t), "news", e)
	assert.ErrorIs(t, err, broker.ErrBusy)
	// One that was forgotten leaves room for one.
	require.NoError(t, a.ForgetIDs(bounded(t), []broker.EntryID{{Channel: "news", ID: "id0"}, {Channel: "news", ID: "no"}}))
	a.append("news", e)
	e.ID = "id4"
	_, err = a.Append(bounded(t), "news", e)
	assert.ErrorIs(t, err, broker.ErrBusy)
	e.ID = "id1"
	assert.True(t, a.append("news", e).Duplicate)
	a.append("news", event("without"))
	// Each id is remembered for 20 minutes.
	for _, key := range keys(t, server, "{"+o.Prefix+"}1:i:*") {
		var left int
		_, err := fmt.Sscanf(set(t, server, "TTL", key), ":%d", &left)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, left, 19*60)
	}
}

// A log that was removed, or that is empty, begins in another epoch. Other logs keep their
// epoch.
func TestForgottenLog(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	tag := "{" + o.Prefix + "}1:"
	a := open(t, o)
	old := a.append("old", kept("1"))
	young := a.append("young", kept("1"))
	empty := a.top("empty")
	assert.Equal(t, empty.Epoch, old.At.Epoch)
	require.NoError(t, a.Tidy("old"))
	assert.Equal(t, old.At, a.top("old"), "it is remembered for a day")

	set(t, server, "SETRANGE", tag+"e:old", "40", strings.Repeat("\x00", 8)) // it was remembered until 1970
	set(t, server, "ZADD", tag+"index", "1", "old", "1", "young")
	require.NoError(t, a.Tidy("old"))
	assert.Equal(t, old.At, a.top("old"), "at most once an hour")
	set(t, server, "HDEL", tag+"store", "tidied")
	require.NoError(t, a.Tidy("old"))
	assert.Equal(t, []string{tag + "e:young"}, keys(t, server, tag+"e:*"))
	assert.Equal(t, []string{tag + "k:young"}, keys(t, server, tag+"k:*"))
	again := a.append("old", kept("2"))
	assert.Equal(t, uint64(1), again.At.Offset)
	assert.NotEqual(t, old.At.Epoch, again.At.Epoch)
	assert.Equal(t, again.At.Epoch, a.top("empty").Epoch)
	assert.Equal(t, young.At, a.top("young"))
	assert.NotEqual(t, ":1", set(t, server, "ZSCORE", tag+"index", "young"), "it is looked at again when that is due")
}

// Nothing is left of members but a hash that expires, and what a member leaves behind.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	tag := "{" + o.Prefix + "}1:"
	a := open(t, o)
	for _, id := range []string{"1", "2"} {
		a.append("room", join(id))
	}
	assert.Equal(t, ":-1", set(t, server, "TTL", tag+"m:room"))
	first := a.append("room", leave("1"))
	a.append("room", leave("2"))
	assert.NotEqual(t, ":-1", set(t, server, "TTL", tag+"m:room"))
	again := a.append("room", join("3"))
	assert.Equal(t, ":-1", set(t, server, "TTL", tag+"m:room"))
	assert.Equal(t, first.At.Epoch, again.At.Epoch)
	assert.Equal(t, first.At.Offset+2, again.At.Offset)
	a.append("room", leave("3"))
	assert.Equal(t, []string{tag + "leases", tag + "m:room", tag + "nodes", tag + "store"}, keys(t, server, tag+"*"))

	// A log of members that was forgotten while a node follows the channel costs no Reset.
	b := open(t, o)
	b.follow("room")
	set(t, server, "DEL", tag+"m:room")
	anew := a.append("room", join("4"))
	assert.NotEqual(t, first.At.Epoch, anew.At.Epoch)
	b.wait("room", "+4")
	assert.Equal(t, []string{"+4"}, b.words("room"))
}

// What an event costs that is not kept is one PUBLISH, and a node subscribes to what it
// follows.
func TestOneCommandForAnEvent(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	o := options(t, s)
	a, b := open(t, o), open(t, o)
	a.follow("news")
	b.follow("other")
	set(t, s, "CONFIG", "RESETSTAT")
	for range 100 {
		assert.Equal(t, broker.None, a.append("news", event("1")).Receivers)
	}
	stats := set(t, s, "INFO", "commandstats")
	for line := range strings.Lines(stats) {
		var calls int
		if n, _ := fmt.Sscanf(line, "cmdstat_publish:calls=%d,", &calls); n == 1 {
			assert.GreaterOrEqual(t, calls, 100)
			assert.Less(t, calls, 110, "a node also sends one every 5 s to itself")
		}
		name, _, _ := strings.Cut(line, ":")
		for _, word := range []string{"hmget", "get", "set", "rpush", "lpop", "sadd"} {
			if name == "cmdstat_"+word && word != "hmget" { // that one renews leases
				assert.Fail(t, "a command that an event should not cost", line)
			}
		}
	}
	numsub := func(channel string) string {
		return set(t, s, "EVAL", "return tostring(redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2])", "0", "{"+o.Prefix+"}1:c:"+channel)
	}
	assert.Equal(t, "1", numsub("news"))
	assert.Equal(t, "1", numsub("other"))
	require.NoError(t, a.Unfollow(bounded(t), "news"))
	require.Eventually(t, func() bool { return numsub("news") == "0" }, patience, tick)
}

func TestPrefixesKeepApart(t *testing.T) {
	t.Parallel()
	one, two := options(t, server), options(t, server)
	two.Prefix += "2"
	a, b := open(t, one), open(t, two)
	for _, channel := range []string{"news", "2news"} {
		a.follow(channel)
		b.follow(channel)
		assert.Equal(t, broker.None, a.append(channel, event("a")).Receivers)
		a.append(channel, kept("b"))
		b.append(channel, event("c"))
		a.append(channel, join("m"))
		a.wait(channel, "+m")
		b.wait(channel, "c")
		assert.Equal(t, []string{"c"}, b.words(channel))
		assert.Empty(t, b.follow(channel).Members)
		assert.Zero(t, b.top(channel).Offset)
	}
	nodes, err := a.Nodes(bounded(t))
	require.NoError(t, err)
	assert.Equal(t, []string{a.id}, nodes)
}

// A panic of the sink, or of the host's log handler, ends no process and no subscription.
func TestPanics(t *testing.T) {
	t.Parallel()
	o, log := options(t, server), &testlog.Log{}
	o.Logger = log.Logger()
	a := open(t, o)
	a.follow("news")
	a.onCall = func() { panic("deliver") }
	for i := range 4 {
		word := fmt.Sprint(i)
		a.append("news", kept(word))
		a.wait("news", word)
	}
	assert.Len(t, log.With("a background task panicked"), 1, log)
	require.NoError(t, a.Unfollow(bounded(t), "news"))

	o.Logger = slog.New(panickingHandler{})
	o.Addresses, o.RequireAtStart = []string{"127.0.0.1:1"}, false
	n := open(t, o)
	assert.ErrorIs(t, n.Away(), broker.ErrAway)
}

type panickingHandler struct{}

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { panic("Enabled") }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("Handle") }
func (panickingHandler) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (panickingHandler) WithGroup(string) slog.Handler             { panic("WithGroup") }
