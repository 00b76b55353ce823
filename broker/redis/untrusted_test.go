package redis_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/redis"
	"github.com/gopushy/pushy/internal/testlog"
)

// Keys of another type, in place of pushy's own, are removed, and everything goes on.
func TestKeysOfAnotherType(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"store", "nodes", "index", "settings", "ledger", "until", "e:x", "k:x", "m:x", "n:", "l:key", "versions",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, log := options(t, server), &testlog.Log{}
			o.Logger = log.Logger()
			tag := "{" + o.Prefix + "}"
			a, b := open(t, o), open(t, o)
			a.follow("x")
			a.append("x", kept("1"))
			a.append("x", join("m"))
			key := tag + "1:" + name
			switch name {
			case "versions":
				key = tag + name
			case "n:":
				key += a.id
			}
			set(t, server, "DEL", key)
			if name == "e:x" || name == "l:key" {
				set(t, server, "RPUSH", key, "of another type")
			} else {
				set(t, server, "SET", key, "of another type")
			}
			require.Eventually(t, func() bool {
				_, err := a.Append(bounded(t), "x", kept("2"))
				return err == nil
			}, patience, tick)
			assert.Eventually(t, func() bool {
				_, err := b.Append(bounded(t), "x", join("n"))
				return err == nil
			}, patience, tick)
			_, err := b.Claim(bounded(t), "key", "d", time.Hour)
			assert.NoError(t, err)
			assert.Eventually(t, func() bool {
				nodes, err := a.Nodes(bounded(t))
				return err == nil && len(nodes) == 2
			}, patience, tick)
			assert.Contains(t, ids(b.follow("x")), "n")
			_, err = b.Read(bounded(t), "x", broker.Range{Limit: 10})
			assert.NoError(t, err)
			assert.NoError(t, b.Tidy("x"))
			require.Eventually(t, func() bool { return a.Away() == nil && b.Away() == nil }, patience, tick)
			assert.LessOrEqual(t, len(log.With("level=WARN")), 5, log)
		})
	}
}

// Keys that were evicted alone, or whose bytes others have changed, never lead to a wrong
// replay: what is kept now has an epoch or an offset of its own.
func TestKeysAreLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change [][]string
		epoch  bool   // another one begins
		keeps  string // what can be read afterwards
	}{
		"meta":            {[][]string{{"DEL", "e:x"}}, true, "4"},
		"brokenMeta":      {[][]string{{"SET", "e:x", "\x00\xff"}}, true, "4"},
		"wildMeta":        {[][]string{{"SETRANGE", "e:x", "0", "\x7f\xf8\x00\x00\x00\x00\x00\x00"}}, true, "4"},
		"list":            {[][]string{{"DEL", "k:x"}}, false, "4"},
		"shorterList":     {[][]string{{"LPOP", "k:x"}}, false, "4"},
		"longerList":      {[][]string{{"RPUSH", "k:x", "foreign"}}, false, "4"},
		"replacedElement": {[][]string{{"LSET", "k:x", "1", "foreign"}}, false, "1 3 4"},
		"both":            {[][]string{{"DEL", "e:x", "k:x"}}, true, "4"},
		"index":           {[][]string{{"DEL", "index"}}, false, "1 2 3 4"},
		"store":           {[][]string{{"DEL", "store"}}, true, "1 2 3 4"}, // another restart
		"foreignStore":    {[][]string{{"HSET", "store", "base", "a b", "run", "\xff"}}, true, "1 2 3 4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, server)
			a := open(t, o)
			for _, text := range []string{"1", "2", "3"} {
				a.append("x", kept(text))
			}
			before := a.top("x")
			for _, command := range c.change {
				for i := 1; i < len(command); i++ {
					if i == 1 || command[0] == "DEL" {
						command[i] = "{" + o.Prefix + "}1:" + command[i]
					}
				}
				set(t, server, command...)
			}
			var at broker.Position
			require.Eventually(t, func() bool {
				added, err := a.Append(bounded(t), "x", kept("4"))
				at = added.At
				return err == nil
			}, patience, tick)
			assert.Equal(t, c.epoch, at.Epoch != before.Epoch, "%v after %v", at, before)
			p, err := a.Read(bounded(t), "x", broker.Range{Epoch: at.Epoch, Limit: 1000})
			require.NoError(t, err)
			assert.Equal(t, c.keeps, data(p))
			assert.Equal(t, at, p.Top)
			for _, e := range p.Entries {
				assert.Equal(t, at.Epoch, e.At.Epoch)
				assert.GreaterOrEqual(t, e.At.Offset, p.First)
			}
			_, err = a.Read(bounded(t), "x", broker.Range{Epoch: before.Epoch, After: 1, Limit: 10})
			assert.Equal(t, c.epoch, err != nil, "%v", err)
		})
	}
}

// Members that were lost, and then leave, leave on all nodes: the others have a Reset.
func TestMembersAreLost(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	a, b := open(t, o), open(t, o)
	a.follow("x")
	a.append("x", join("ann"))
	b.append("x", join("bob"))
	a.wait("x", "+bob")
	set(t, server, "DEL", "{"+o.Prefix+"}1:m:x")
	_, err := b.Append(bounded(t), "x", leave("bob"))
	require.ErrorIs(t, err, broker.ErrNotOwner)
	assert.Empty(t, a.wait("x", "reset:epoch").state.Members)
	a.append("x", join("ann"))
	a.wait("x", "+ann")
	_, err = b.Append(bounded(t), "x", leave("bob"))
	require.ErrorIs(t, err, broker.ErrNotOwner)
	a.append("x", event("last"))
	a.wait("x", "last")
	assert.Equal(t, []string{"+ann", "+bob", "reset:epoch", "+ann", "last"}, a.words("x"), "one Reset")
}

// Whatever others write into a channel's members, nodes see one another's, and nothing
// of it.
func TestForeignMembers(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string][]string{
		"empty":         {"m", "", "meve", ""},
		"text":          {"meve", "1 n 1 {}"},
		"lengths":       {"meve", strings.Repeat("\x00", 16) + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"},
		"notANumber":    {"meve", "\x7f\xf8\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 30)},
		"noEntry":       {"meve", strings.Repeat("\x00", 28)},
		"otherFormat":   {"meve", strings.Repeat("\x00", 28) + "\x02"},
		"brokenEntry":   {"meve", strings.Repeat("\x00", 28) + "\x01\xff\xff"},
		"noRevision":    {"r", "x"},
		"negative":      {"r", "-1"},
		"fraction":      {"r", "1.5"},
		"large":         {"r", "99999999999999999999"},
		"infinite":      {"r", "inf"},
		"noCount":       {"c", "nan"},
		"wrongCount":    {"c", "0"},
		"base":          {"b", "a b"},
		"emptyBase":     {"b", ""},
		"longBase":      {"b", strings.Repeat("x", 100)},
		"on":            {"o", "yes"},
		"notPushysOwn":  {"x", "y", "", "z"},
		"binaryID":      {"m\xff\x00", "x"},
		"longID":        {"m" + strings.Repeat("e", 70_000), "x"},
		"everything":    {"b", "\xff", "r", "\xff", "c", "\xff", "o", "\xff", "m\xff", "\xff"},
		"latestNumbers": {"r", "9007199254740990"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, log := options(t, server), &testlog.Log{}
			o.Logger = log.Logger()
			a, b := open(t, o), open(t, o)
			key := "{" + o.Prefix + "}1:m:x"
			set(t, server, append([]string{"HSET", key}, fields...)...)
			a.follow("x")
			a.append("x", join("ann"))
			a.wait("x", "+ann")
			set(t, server, append([]string{"HSET", key}, fields...)...)
			require.Eventually(t, func() bool { // an invalid log is replaced by an empty one
				_, err := b.Append(bounded(t), "x", join("bob"))
				return err == nil
			}, patience, tick)
			require.Eventually(t, func() bool { return strings.Contains(ids(a.follow("x")), "bob") }, patience, tick)
			assert.NotContains(t, ids(a.follow("x")), "eve")
			b.append("x", leave("bob"))
			require.Eventually(t, func() bool { return !strings.Contains(ids(a.follow("x")), "bob") }, patience, tick)
			assert.LessOrEqual(t, len(log.With("level=WARN")), 3, log)
			assert.NotContains(t, log.String(), "panic")
		})
	}
}

// What others publish to pushy's channels is skipped unless it is an entry, and the log
// has one line of it. A number that is forged costs one Reset and no event.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	o, log := options(t, server), &testlog.Log{}
	o.Logger = log.Logger()
	a := open(t, o)
	a.follow("x")
	a.append("x", join("ann"))
	name := "{" + o.Prefix + "}1:c:x"
	head := strings.Repeat("\x00", 32)
	for range 20 {
		for _, text := range []string{
			"", "e", "n", "x", "z", "ff", "e\x01", "e\x02\x01\x01\x01", "e\x01\x01\x01\x02", "e\xff\xff\xff",
			"n" + head, "n" + head + "\x00", "n" + head + "\xff", "x" + head + "\x01e", "n" + strings.Repeat("\xff", 40),
		} {
			set(t, server, "PUBLISH", name, text)
		}
	}
	set(t, server, "PUBLISH", "{"+o.Prefix+"}1:probe", "whatever")
	a.append("x", event("last"))
	a.wait("x", "last")
	assert.Equal(t, []string{"+ann", "last"}, a.words("x"))
	assert.LessOrEqual(t, len(log.With("level=WARN")), 1, log)

	epoch := a.seen("x")[0].entry.At.Epoch
	forged := func(offset, epoch string) string {
		return "x" + offset + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x3f\xf0\x00\x00\x00\x00\x00\x00" +
			string(rune(len(epoch))) + epoch + "mo"
	}
	const million = "\x41\x2e\x84\x80\x00\x00\x00\x00"
	set(t, server, "PUBLISH", name, forged(million, epoch))
	a.wait("x", "reset:"+broker.ResetGap)
	set(t, server, "PUBLISH", name, forged(million, "foreign"))
	a.wait("x", "reset:"+broker.ResetEpoch)
	a.append("x", join("bob"))
	a.wait("x", "+bob")
	assert.Equal(t, []string{"+ann", "last", "reset:gap", "reset:epoch", "+bob"}, a.words("x"))
}

// What others write where nodes and their members are listed does not keep the members of
// a dead node.
func TestForeignListsOfNodes(t *testing.T) {
	t.Parallel()
	o := options(t, server)
	a, dead := open(t, o), open(t, o)
	tag := "{" + o.Prefix + "}1:"
	for _, channel := range []string{"x", "y", "z"} {
		a.follow(channel)
		dead.append(channel, join("m"))
		a.wait(channel, "+m")
	}
	require.NoError(t, dead.Close(bounded(t)))
	set(t, server, "DEL", tag+"m:y")
	set(t, server, "SET", tag+"m:y", "of another type")
	set(t, server, "SADD", tag+"n:"+dead.id, "", "x", "9:m", "1:\xffx", "-1:y", "1e9:z", "99999999999999999999:z")
	set(t, server, "ZADD", tag+"nodes", "1", "ghost", "-inf", "other")
	set(t, server, "SET", tag+"n:ghost", "of another type")
	set(t, server, "HSET", tag+"settings", "ghost", "\xff", "other", "{}")
	a.wait("x", "-m")
	a.wait("z", "-m")
	require.Eventually(t, func() bool {
		return set(t, server, "ZCARD", tag+"nodes") == ":1" && set(t, server, "EXISTS", tag+"n:ghost") == ":0"
	}, patience, tick)
}

// recorded checks what is delivered.
type recorded struct{ t *testing.T }

func (r recorded) Deliver(_ string, e broker.Entry) {
	require.True(r.t, e.Kind >= broker.Event && e.Kind <= broker.Adopt)
	require.True(r.t, e.At == (broker.Position{}) || broker.ValidEpoch(e.At.Epoch) && e.At.Offset > 0)
	require.Less(r.t, e.At.Offset, uint64(1<<53))
}
func (r recorded) Reset(string, broker.State, string) {}

// Whatever is published, no node panics, and what it delivers is an entry.
func FuzzMessage(f *testing.F) {
	f.Add(redis.MessageOf(event("1")), "f")
	f.Add("n"+strings.Repeat("\x3f\xf0\x00\x00\x00\x00\x00\x00", 4)+"\x01e"+redis.MessageOf(kept("1"))[1:], "")
	f.Add("n"+strings.Repeat("\x40\x00\x00\x00\x00\x00\x00\x00", 4)+"\x01e"+redis.MessageOf(join("1"))[1:], "e")
	f.Add("x"+strings.Repeat("\x40\x00\x00\x00\x00\x00\x00\x00", 4)+"\x01emmo", "x")
	f.Fuzz(func(t *testing.T, one, two string) {
		require.NoError(t, redis.Feed(recorded{t}, "x", one, two, one))
	})
}

func FuzzState(f *testing.F) {
	f.Add(strings.Repeat("\x3f\xf0\x00\x00\x00\x00\x00\x00", 6)+"BASE", "r", "1", "b", "BASE", "ma", strings.Repeat("\x00", 28)+redis.MessageOf(join("a"))[1:])
	f.Add("", "o", "1", "m", "", "mb", strings.Repeat("\xff", 28))
	f.Fuzz(func(t *testing.T, meta, a, av, b, bv, c, cv string) {
		fields := map[string]string{a: av, b: bv, c: cv}
		s, _ := redis.ParseState("RUN", "BASE", meta, fields)
		require.True(t, broker.ValidEpoch(s.At.Epoch) && broker.ValidEpoch(s.Revision.Epoch))
		require.LessOrEqual(t, len(s.Members), len(fields))
		for _, m := range s.Members {
			require.Contains(t, fields, "m"+m.ID)
			require.Less(t, m.Since, uint64(1<<53))
		}
	})
}

func FuzzKept(f *testing.F) {
	f.Add("n" + strings.Repeat("\x3f\xf0\x00\x00\x00\x00\x00\x00", 4) + "\x06BASE-R" + redis.MessageOf(kept("1"))[1:])
	f.Add("n")
	f.Fuzz(func(t *testing.T, text string) {
		top := broker.Position{Epoch: "BASE-RUN", Offset: 10}
		e, err := redis.ParseKept(top, text)
		if err != nil {
			return
		}
		require.Equal(t, top.Epoch, e.At.Epoch)
		require.LessOrEqual(t, e.At.Offset, top.Offset)
		require.Equal(t, broker.Event, e.Kind)
	})
}

// Settings of other nodes are foreign, too.
func FuzzSettings(f *testing.F) {
	f.Add(`{"Grace":"15s"}`)
	f.Add("[]")
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, text string) {
		warned := redis.CompareSettings(map[string]string{"Grace": "15s"}, text)
		var theirs map[string]string
		if json.Unmarshal([]byte(text), &theirs) != nil {
			require.Zero(t, warned)
		}
		require.LessOrEqual(t, warned, 1)
	})
}
