package redis_test

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/redis"
	"github.com/gopushy/pushy/brokers/redis/internal/redistest"
	"github.com/gopushy/pushy/pushytest"
)

// lines is a log that a test reads.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *lines) with(part string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

const serverKey = "a secret of sixteen bytes or more"

// serve runs a Server with a Broker for both.
func serve(t testing.TB, b *redis.Broker, log *slog.Logger) *pushy.Server {
	srv, err := pushy.New(pushy.Options{SecretKey: serverKey, Broker: b, Logger: log})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

// newKit is a kit that knows that a Broker's connections may begin at any time.
func newKit(t testing.TB, srv *pushy.Server) *pushytest.Kit {
	kit := pushytest.New(t, srv)
	kit.Allow("github.com/redis/rueidis")
	kit.Allow("github.com/gopushy/pushy/brokers/redis")
	return kit
}

// named grants a private channel with a name as presence data.
func named(name string) pushytest.Grant { return pushytest.Member(map[string]string{"name": name}) }

const (
	patience = 30 * time.Second
	tick     = 20 * time.Millisecond
)

func nextChange(t testing.TB, c <-chan pushy.Change) pushy.Change {
	t.Helper()
	select {
	case change := <-c:
		return change
	case <-time.After(patience):
		t.Fatal("no change came")
		return pushy.Change{}
	}
}

func set(t testing.TB, s *redistest.Server, args ...string) {
	t.Helper()
	answer, err := s.Command(args...)
	require.NoError(t, err)
	require.NotContains(t, answer, "ERR", "%q", args)
}

// Issue 11, number 2. Whatever others write into a channel's hash, clients get in, see
// one another, and see nothing of it.
func TestForeignFieldsOfAChannel(t *testing.T) {
	t.Parallel()
	good := `{"name":"Eve","subscribed":1,"memberId":"eve","idle":false}`
	for name, fields := range map[string][]string{
		"emptyName":       {"", "v", "r", "1"},
		"emptyMember":     {"m", "1 n 1 {}", "r", "1"},
		"noNode":          {"meve", "1  1 " + good, "r", "1"},
		"noRevision":      {"meve", "n 1 " + good},
		"badRevision":     {"r", "x"},
		"negative":        {"r", "-1"},
		"largeRevision":   {"r", "99999999999999999999", "meve", "99999999999999999999 n 1 " + good},
		"latestRevision":  {"r", "9007199254740991"},
		"infinite":        {"r", "inf"},
		"notANumber":      {"r", "nan"},
		"brokenJSON":      {"meve", "1 n 1 {\"name\":", "r", "1", "o", "1"},
		"twoValues":       {"meve", "1 n 1 {},{}", "r", "1", "o", "1"},
		"invalidUTF8":     {"meve", "1 n 1 {\"memberId\":\"eve\",\"name\":\"\xff\"}", "r", "1", "o", "1"},
		"binaryID":        {"m\xff", "1 n 1 {\"memberId\":\"\xff\"}", "r", "1", "o", "1"},
		"otherID":         {"meve", "1 n 1 {\"memberId\":\"adam\"}", "r", "1", "o", "1"},
		"array":           {"meve", "1 n 1 []", "r", "1", "o", "1"},
		"flag":            {"meve", "1 n x " + good, "r", "1", "o", "x"},
		"longID":          {"m" + strings.Repeat("e", 70_000), "1 n 1 {}", "r", "1"},
		"manyForeign":     append([]string{"r", "1"}, strings.Fields(strings.Repeat("x1 y ", 1)+"x2 y x3 y x4 y x5 y")...),
		"nothingOfPushys": {"x", "y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, log := options(t), &lines{}
			o.Addresses, o.Logger = []string{server.Addr}, log.logger()
			one, two := serve(t, connect(t, o), o.Logger), serve(t, connect(t, o), o.Logger)
			set(t, server, append([]string{"HSET", "{" + o.Prefix + "}r:private-x"}, fields...)...)

			ann := newKit(t, one).Connect()
			in := ann.Subscribe("private-x", named("Ann"))
			assert.Equal(t, []string{"Ann"}, names(t, in.Presence))
			bob := newKit(t, two).Connect()
			in = bob.Subscribe("private-x", named("Bob"))
			assert.Equal(t, []string{"Ann", "Bob"}, names(t, in.Presence))
			var add struct{ Member struct{ Name string } }
			ann.ExpectEvent("private-x", "pushy:presence-add", &add)
			assert.Equal(t, "Bob", add.Member.Name)
			require.NoError(t, ann.Unsubscribe("private-x"))
			bob.ExpectEvent("private-x", "pushy:presence-quit", &add)
			assert.Equal(t, "Ann", add.Member.Name)
			assert.LessOrEqual(t, len(log.with("level=WARN")), 4, log)
			assert.NotContains(t, log.String(), "panic")
		})
	}
}

func names(t testing.TB, members []json.RawMessage) (all []string) {
	for _, text := range members {
		var m struct{ Name string }
		require.NoError(t, json.Unmarshal(text, &m))
		all = append(all, m.Name)
	}
	return all
}

// Issue 11, number 2. What others publish to pushy's channels reaches no client unless
// it is a message, and the log has one line of it.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	o, log := options(t), &lines{}
	o.Addresses, o.Logger = []string{server.Addr}, log.logger()
	srv := serve(t, connect(t, o), o.Logger)
	kit := newKit(t, srv)
	ann := kit.Connect()
	ann.Subscribe("news")
	ann.Subscribe("private-x", named("Ann"))
	tag := "{" + o.Prefix + "}"
	event := func(event, data string) string {
		return redis.Encode(pushy.Message{Event: event, Data: json.RawMessage(data), Node: "n", Seq: 1})
	}
	for _, channel := range []string{"news", "private-x"} {
		for range 20 {
			for _, text := range []string{
				"", "e", "p", "x", "e\x01", "e\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "e\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
				"p+", "p-", "p+1 2 3", "p+0 1 1 a 1", "p+x 1 1 a 1 {}", "p+0 1 -1 a 1 {}", "p+0 99999999999999999999 1 a 1 {}",
				"p+0 1 1  1 {}", "p+0 1 1 a 2 {}", "p+0 1 1 a 1 {", "p+0 1 1 \xff 1 {}", "p-0 1 1 a b c", "p-0 0 0 a",
				event("said", `{"a":`), event("said", "\"\xff\""), event("said", ""), event("said", "{} {}"),
				event("pushy:subscription-end", "{}"), event("PUSHY:connect", "{}"), event("", "{}"), event("\xff", "{}"),
				event("a\nb", "{}"), event(strings.Repeat("x", 300), "{}"),
			} {
				set(t, server, "PUBLISH", tag+channel, text)
			}
		}
	}
	set(t, server, "PUBLISH", tag, "whatever")
	set(t, server, "PUBLISH", tag, event("said", "{}"))
	set(t, server, "PUBLISH", tag+"news", event("last", `{ "n" : 1 }`))
	var last struct{ N int }
	got := ann.ExpectEvent("news", "last", &last)
	assert.Equal(t, `{"n":1}`, string(got.Data))
	for _, name := range []string{"said", "", pushy.EventResync, "pushy:subscription-end", "pushy:presence-add"} {
		ann.ExpectNone("news", name)
		ann.ExpectNone("private-x", name)
	}
	in := kit.Connect().Subscribe("private-x", named("Bob"))
	assert.Equal(t, []string{"Ann", "Bob"}, names(t, in.Presence))
	assert.LessOrEqual(t, len(log.with("level=WARN")), 3, log)
	assert.NotContains(t, log.String(), "panic")
}

// Keys of other types, in place of pushy's own, must not keep the members of a dead
// node in all other channels.
func TestForeignKeysDoNotStopTheSweep(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Addresses = []string{server.Addr}
	a, dead := connect(t, o), connect(t, o)
	tag := "{" + o.Prefix + "}"
	for _, channel := range []string{"private-a", "private-b", "private-c"} {
		require.NoError(t, dead.Join(t.Context(), channel, pushy.Member{ID: "1", HasData: true, JSON: []byte(`{"memberId":"1"}`)}))
	}
	changes := make(chan pushy.Change, 10)
	_, err := a.Watch(t.Context(), "private-c", func(c pushy.Change) { changes <- c })
	require.NoError(t, err)
	_, err = a.Watch(t.Context(), "private-a", func(c pushy.Change) { changes <- c })
	require.NoError(t, err)
	dead.Kill()
	set(t, server, "SET", tag+"r:private-b", "of another type")
	set(t, server, "HSET", tag+"n:ghost", "private-a", "x", "private-b", "1")
	set(t, server, "SET", tag+"n:other", "of another type")
	set(t, server, "SADD", tag+"nodes", "ghost", "other")
	for range 2 {
		c := nextChange(t, changes)
		assert.True(t, c.Left || c.State != nil && len(c.State.Members) == 0, "%+v", c)
	}
	require.Eventually(t, func() bool {
		left, err := server.Command("EVAL", "return table.concat(redis.call('SMEMBERS', KEYS[1]), ' ')", "1", tag+"nodes")
		return err == nil && left == ""
	}, patience, tick)
	set(t, server, "DEL", tag+"nodes")
	set(t, server, "SET", tag+"nodes", "of another type")
	require.NoError(t, a.Join(t.Context(), "private-c", pushy.Member{ID: "2", HasData: true, JSON: []byte(`{"memberId":"2"}`)}))
	for c := nextChange(t, changes); c.Member.ID != "2"; c = nextChange(t, changes) {
		assert.True(t, c.State != nil, "%+v", c)
	}
}

// Whatever others have written in place of a channel's hash, members get in and out, be
// it there before them or come while they are in.
func TestForeignKeyInPlaceOfAChannel(t *testing.T) {
	t.Parallel()
	for name, command := range map[string][]string{
		"string":    {"SET", "KEY", "\xff\x00"},
		"list":      {"LPUSH", "KEY", "x"},
		"set":       {"SADD", "KEY", "x"},
		"sortedSet": {"ZADD", "KEY", "1", "x"},
		"stream":    {"XADD", "KEY", "*", "x", "y"},
		"bits":      {"SETBIT", "KEY", "9", "1"},
		"places":    {"GEOADD", "KEY", "13.3", "38.1", "x"},
		"count":     {"PFADD", "KEY", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, log := options(t), &lines{}
			o.Addresses, o.Logger = []string{server.Addr}, log.logger()
			one, two := serve(t, connect(t, o), o.Logger), serve(t, connect(t, o), o.Logger)
			key := "{" + o.Prefix + "}r:private-x"
			overwrite := func() {
				set(t, server, "DEL", key)
				all := append([]string{}, command...)
				all[1] = key
				set(t, server, all...)
			}
			overwrite()
			ann := newKit(t, one).Connect()
			in := ann.Subscribe("private-x", named("Ann"))
			assert.Equal(t, []string{"Ann"}, names(t, in.Presence))
			overwrite()
			kit := newKit(t, two)
			bob := kit.Connect()
			bob.Subscribe("private-x", named("Bob"))
			// Ann's node finds that its member is missing, and logs it again.
			require.Eventually(t, func() bool {
				kim := kit.Connect()
				defer kim.Close(1000)
				return slices.Contains(names(t, kim.Subscribe("private-x", named("Kim")).Presence), "Ann")
			}, patience, tick)
			overwrite()
			require.NoError(t, ann.Unsubscribe("private-x"))
			require.NoError(t, bob.Unsubscribe("private-x"))
			assert.Empty(t, log.with("WRONGTYPE"), log)
			assert.NotContains(t, log.String(), "panic")
		})
	}
}

// The set of nodes that others have deleted is there again before it is needed: who has
// members is swept when it is dead.
func TestNodesAreNamedAgain(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Addresses = []string{server.Addr}
	a, dead := connect(t, o), connect(t, o)
	require.NoError(t, dead.Join(t.Context(), "private-x", pushy.Member{ID: "1", HasData: true, JSON: []byte(`{"memberId":"1"}`)}))
	changes := make(chan pushy.Change, 10)
	_, err := a.Watch(t.Context(), "private-x", func(c pushy.Change) { changes <- c })
	require.NoError(t, err)
	nodes := "{" + o.Prefix + "}nodes"
	for _, foreign := range [][]string{{"DEL", nodes}, {"SET", nodes, "x"}} {
		set(t, server, "DEL", nodes)
		set(t, server, foreign...)
		require.Eventually(t, func() bool {
			kind, err := server.Command("TYPE", nodes)
			return err == nil && kind == "+set"
		}, patience, tick)
	}
	dead.Kill()
	c := nextChange(t, changes)
	assert.True(t, c.Left || c.State != nil && len(c.State.Members) == 0, "%+v", c)
}

// FuzzDecode, FuzzChange and FuzzFields: no bytes make a decoder panic, and what it
// takes is UTF-8 and JSON.
func FuzzDecode(f *testing.F) {
	f.Add(redis.Encode(pushy.Message{Event: "said", Data: []byte(`{"a":1}`), Node: "n", Seq: 7, Except: "x"}))
	f.Add("e")
	f.Add("e\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := redis.Decode(text)
		if err != nil {
			return
		}
		require.True(t, json.Valid(m.Data))
		again, err := redis.Decode(redis.Encode(m))
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}

func FuzzChange(f *testing.F) {
	f.Add(`p+0 1 1 a 1 {"memberId":"a"}`)
	f.Add(`p-1 2 0 a`)
	f.Add("p+")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := redis.ParseChange(text)
		if err != nil {
			return
		}
		require.Less(t, c.Revision, uint64(1<<53))
		if !c.Left {
			require.True(t, json.Valid(c.Member.JSON))
			require.NotEmpty(t, c.Member.ID)
		}
	})
}

func FuzzFields(f *testing.F) {
	f.Add("r", "1", "ma", `1 n 1 {"memberId":"a"}`, "", "v")
	f.Add("o", "1", "m", "", "mb", "1 n 0 {}")
	f.Add("r", "-1", "m\xff", "1 n 1 {}", "x", "")
	f.Fuzz(func(t *testing.T, a, av, b, bv, c, cv string) {
		fields := map[string]string{a: av, b: bv, c: cv}
		snap := redis.ParseFields(fields)
		require.LessOrEqual(t, len(snap.Members), len(fields))
		require.Less(t, snap.Revision, uint64(1<<53))
		for _, m := range snap.Members {
			require.True(t, json.Valid(m.JSON))
			require.Contains(t, fields, "m"+m.ID)
		}
	})
}

// FuzzMessage: no payload on any of pushy's channels makes a node panic, and what it
// passes on is JSON.
func FuzzMessage(f *testing.F) {
	for _, text := range []string{
		redis.Encode(event("said")),
		redis.Encode(event(pushy.EventResync)),
		`p+0 1 1 a 1 {"memberId":"a"}`,
		"p-0 1 0 a",
		"",
	} {
		f.Add("{pushy}private-x", text)
		f.Add("{pushy}", text)
	}
	f.Fuzz(func(t *testing.T, channel, text string) {
		err := redis.Feed(channel, text,
			func(m pushy.Message) { require.True(t, json.Valid(m.Data)) },
			func(c pushy.Change) { require.True(t, c.Left || json.Valid(c.Member.JSON)) })
		require.NoError(t, err)
	})
}
