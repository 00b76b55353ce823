package nats_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/nats"
	"github.com/gopushy/pushy/internal/natstest"
	"github.com/gopushy/pushy/internal/testlog"
)

// documented returns the permissions as the package documentation has them.
func documented(t testing.TB) string {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	block := regexp.MustCompile(`(?ms)^//\tpermissions: \{\n.*?^//\t\}\n`).FindString(string(source))
	require.NotEmpty(t, block, "the package documentation has no permissions")
	return strings.ReplaceAll(block, "//\t", "")
}

// without takes one subject out of the documented permissions.
func without(t testing.TB, list, subject string) string {
	t.Helper()
	var out []string
	found := false
	for line := range strings.SplitSeq(documented(t), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), list+":") {
			less := regexp.MustCompile(`(, )?"`+regexp.QuoteMeta(subject)+`"`).ReplaceAllString(line, "")
			found = less != line
			line = strings.Replace(less, "[, ", "[", 1)
		}
		out = append(out, line)
	}
	require.True(t, found, "%s is not documented to %s", subject, list)
	return strings.Join(out, "\n")
}

// permitting is a server whose user app has these permissions, beside a user root
// that has all.
func permitting(t testing.TB, permissions string) *natstest.Server {
	t.Helper()
	return configured(t, permittingConfig(permissions))
}

func permittingConfig(permissions string) string {
	return `authorization { users: [
		{ user: root, password: root }
		{ user: app, password: app, ` + permissions + ` }
	] }`
}

// said is a log whose lines can be counted, and which is also the output of the test.
type said struct {
	all testlog.Log
	mu  sync.Mutex
	t   testing.TB // nil after the end of the test
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.t == nil {
		return len(p), nil
	}
	_, _ = s.all.Write(p)
	return s.t.Output().Write(p)
}

func (s *said) lines(with ...string) int { return len(s.all.With(with...)) }

func newSaid(t testing.TB) (*said, *slog.Logger) {
	s := &said{t: t}
	// Callbacks of nats.go can run, and log, after the connection was closed.
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.t = nil
	})
	return s, slog.New(slog.NewTextHandler(s, nil))
}

// app are the Options of the user whose permissions a test restricts.
func app(s *natstest.Server, logger *slog.Logger) nats.Options {
	return nats.Options{URL: s.URL, User: "app", Password: "app", Prefix: "pushy", Timeout: 20 * time.Second, Logger: logger}
}

// The documented permissions are enough for all that a node does.
func TestDocumentedPermissions(t *testing.T) {
	t.Parallel()
	s := permitting(t, documented(t))
	log, logger := newSaid(t)
	newNode := func() *node {
		n, err := try(t, app(s, logger), shortLease, nil)
		require.NoError(t, err)
		return n
	}
	a, b, dies := newNode(), newNode(), newNode()
	assert.Equal(t, broker.None, a.append("room", event("0")).Receivers)
	b.follow("room")
	a.append("room", event("1"))
	assert.Equal(t, "1", string(b.nextEvent().Data))
	once := kept("2")
	once.ID = "request"
	at := a.append("room", once).At
	assert.Equal(t, at, b.append("room", once).At)
	assert.Equal(t, at, b.nextEvent().At)
	p, err := b.Read(t.Context(), "room", broker.Range{Limit: 10})
	require.NoError(t, err)
	assert.Len(t, p.Entries, 1)
	require.NoError(t, a.Forget(t.Context(), "room"))
	assert.Equal(t, broker.ResetEpoch, b.nextReset("room").reason)
	for _, ttl := range []time.Duration{time.Minute, time.Hour} {
		_, err = a.Claim(t.Context(), ttl.String(), "d", ttl)
		require.NoError(t, err)
		require.NoError(t, b.Finish(t.Context(), ttl.String(), "d", []byte("x")))
	}
	list, err := b.List(t.Context(), "")
	require.NoError(t, err)
	assert.Len(t, list, 2)

	dies.append("room", join("dies"))
	require.NoError(t, dies.Close(t.Context()))
	a.append("room", join("stays"))
	_, js := admin(t, strings.Replace(s.URL, "://", "://root:root@", 1))
	for i := range 50 {
		id := fmt.Sprint("guest", i)
		a.append("room", join(id))
		a.append("room", leave(id))
	}
	b.next(func(got news) bool { return got.entry.Kind == broker.Leave && got.entry.Member == "dies" })
	eventually(t, "what is left of members is removed", func() bool {
		return stored(t, js, "pushy-1-members", "pushy.1.m.c.>") == 1
	})
	assert.Equal(t, []string{"stays"}, b.members("room"))
	require.NoError(t, b.Unfollow(t.Context(), "room"))
	require.NoError(t, b.Away())
	assert.Zero(t, log.lines("does not permit"))
	text, err := s.Log()
	require.NoError(t, err)
	assert.NotContains(t, text, "Violation")
}

// missing are the documented permissions, and what an error says without them.
var missing = []struct{ list, subject, says string }{
	{"publish", "pushy.1.>", `publish on "pushy.1.`},
	{"publish", "$JS.API.>", `publish on "$JS.API.`},
	{"subscribe", "pushy.1.>", `subscribe to "pushy.1.`},
	{"subscribe", "_INBOX.>", `subscribe to "_INBOX.>"`},
}

// Without any of the documented permissions Open says which is missing.
func TestMissingPermission(t *testing.T) {
	t.Parallel()
	for _, c := range missing {
		t.Run(c.list+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			s := permitting(t, without(t, c.list, c.subject))
			log, logger := newSaid(t)
			for range 2 {
				_, err := try(t, app(s, logger), time.Minute, nil)
				var wrong *nats.SettingError
				require.ErrorAs(t, err, &wrong)
				assert.Equal(t, "User", wrong.Setting)
				assert.Contains(t, err.Error(), c.says)
				require.ErrorIs(t, err, natsgo.ErrPermissionViolation)
			}
			assert.Zero(t, log.lines("is away"))
		})
	}
}

// The same of a user that lacks a part of what is documented, and the log has each kind
// of request once, whatever its subject ends with.
func TestMissingPart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ list, subject string }{
		{"publish", "$JS.API.STREAM.INFO.>"},
		{"publish", "$JS.API.STREAM.CREATE.>"},
		{"publish", "$JS.API.STREAM.LIST"},
		{"publish", "$JS.API.STREAM.MSG.GET.>"},
		{"publish", "$JS.API.STREAM.MSG.DELETE.>"},
		{"publish", "$JS.API.STREAM.PURGE.>"},
		{"publish", "$JS.API.CONSUMER.CREATE.>"},
		{"publish", "$JS.API.CONSUMER.MSG.NEXT.>"},
		{"publish", "$JS.API.CONSUMER.DELETE.>"},
		{"publish", "pushy.1.c.>"},
		{"publish", "pushy.1.i.>"},
		{"publish", "pushy.1.k.>"},
		{"publish", "pushy.1.l.>"},
		{"publish", "pushy.1.m.>"},
		{"subscribe", "pushy.1.c.>"},
	} {
		t.Run(c.list+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			s := permitting(t, `permissions: { `+c.list+`: { allow: [">"], deny: ["`+c.subject+`"] } }`)
			log, logger := newSaid(t)
			kind := `"` + strings.TrimSuffix(c.subject, ">")
			for range 2 {
				_, err := try(t, app(s, logger), time.Minute, nil)
				var wrong *nats.SettingError
				require.ErrorAs(t, err, &wrong)
				assert.Equal(t, "User", wrong.Setting)
				assert.Contains(t, err.Error(), kind)
			}
			assert.LessOrEqual(t, log.lines("does not permit"), 2, "one line of each node")
			assert.Zero(t, log.lines("is away"))
		})
	}
}

// Who may not publish, follow or join gets an error that names the subject, at once and
// each time; the log has the subject once. All else goes on.
func TestForbidden(t *testing.T) {
	t.Parallel()
	s := permitting(t, `permissions: {
		publish: { allow: ["pushy.>", "$JS.API.>"], deny: ["pushy.1.c.mute", "pushy.1.k.*.mute", "pushy.1.m.c.mute.*"] }
		subscribe: { allow: ["pushy.>", "_INBOX.>"], deny: ["pushy.1.c.deaf"] }
	}`)
	log, logger := newSaid(t)
	n, err := try(t, app(s, logger), time.Minute, nil)
	require.NoError(t, err)
	n.append("other", kept("0"))
	var wrong *nats.SettingError
	for range 3 {
		for subject, e := range map[string]broker.Entry{
			"pushy.1.c.mute":        event("1"),
			"pushy.1.k.k64h48.mute": kept("1"),
			"pushy.1.m.c.mute.m":    join("m"),
		} {
			_, err = n.Append(t.Context(), "mute", e)
			require.ErrorAs(t, err, &wrong)
			assert.Contains(t, err.Error(), `publish on "`+subject+`"`)
			require.NotErrorIs(t, err, broker.ErrAway)
		}
		_, err = n.Follow(t.Context(), "deaf")
		require.ErrorAs(t, err, &wrong)
		assert.Contains(t, err.Error(), `subscribe to "pushy.1.c.deaf"`)
		n.follow("other")
		n.append("other", event("1"))
		n.append("other", kept("1"))
		n.append("other", join("m"))
		n.append("other", leave("m"))
		require.NoError(t, n.Unfollow(t.Context(), "other"))
	}
	for _, subject := range []string{"pushy.1.c.mute", "pushy.1.c.deaf", "pushy.1.m.c.mute.m"} {
		assert.Equal(t, 1, log.lines("does not permit", "subject="+subject+" "), subject)
	}
	require.NoError(t, n.Away())
}

// Many channels at once, of which every other is forbidden: each call gets the answer
// for its own.
func TestForbiddenAmongOthers(t *testing.T) {
	t.Parallel()
	s := permitting(t, `permissions: {
		publish: { allow: ["pushy.>", "$JS.API.>"], deny: ["pushy.1.c.mute-*", "pushy.1.c.mute"] }
		subscribe: ["pushy.>", "_INBOX.>"]
	}`)
	n, err := try(t, app(s, testLogger(t)), time.Minute, nil)
	require.NoError(t, err)
	var tasks sync.WaitGroup
	for i := range 8 {
		tasks.Go(func() {
			for range 200 {
				if i%2 == 0 {
					_, err := n.Append(t.Context(), "other", event("1"))
					assert.NoError(t, err)
				} else {
					_, err := n.Append(t.Context(), "mute", event("1"))
					assert.ErrorIs(t, err, natsgo.ErrPermissionViolation)
				}
			}
		})
	}
	tasks.Wait()
}

// With an inbox prefix the user needs no right to _INBOX.>.
func TestInboxPrefix(t *testing.T) {
	t.Parallel()
	s := permitting(t, strings.Replace(documented(t), "_INBOX.>", "_INBOX.app.>", 1))
	o := app(s, testLogger(t))
	_, err := try(t, o, time.Minute, nil)
	require.ErrorContains(t, err, `"_INBOX.>"`)
	o.InboxPrefix = "_INBOX.app"
	n, err := try(t, o, time.Minute, nil)
	require.NoError(t, err)
	assert.Equal(t, broker.None, n.append("news", event("1")).Receivers)
	n.append("room", join("1"))
	require.NoError(t, n.Away())
}

// Permissions that an operator takes away and gives back: Away names them, and what was
// denied works again.
func TestPermissionsChange(t *testing.T) {
	t.Parallel()
	for _, c := range missing {
		t.Run(c.list+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			s := permitting(t, documented(t))
			change := func(permissions string) {
				// Not a reload: after that NATS 2.9 has no JetStream any more.
				require.NoError(t, s.Configure(permittingConfig(permissions)))
				s.Stop()
				require.NoError(t, s.Restart())
			}
			newNode := func(user string) *node {
				o := app(s, testLogger(t))
				o.User, o.Password = user, user
				n, err := try(t, o, 20*time.Second, nil)
				require.NoError(t, err)
				return n
			}
			a, b := newNode("root"), newNode("app")
			b.follow("room")
			change(without(t, c.list, c.subject))
			eventually(t, "Away names "+c.subject, func() bool {
				err := b.Away()
				return err != nil && strings.Contains(err.Error(), c.says)
			})
			_, err := b.Append(t.Context(), "room", event("lost"))
			require.ErrorIs(t, err, broker.ErrAway)
			change(documented(t))
			eventually(t, "it is back", func() bool { return a.Away() == nil && b.Away() == nil })
			b.nextReset("room")
			a.append("room", event("said"))
			assert.Equal(t, "said", string(b.nextEvent().Data))
			a.append("room", join("1"))
			assert.Equal(t, "1", b.nextMember().Member)
		})
	}
}

// A channel that a node follows, and may not any more, keeps no other from being served,
// and is reset when it is permitted again.
func TestChannelIsForbidden(t *testing.T) {
	t.Parallel()
	s := permitting(t, documented(t))
	change := func(permissions string) {
		s.Stop()
		require.NoError(t, s.Configure(permittingConfig(permissions)))
		require.NoError(t, s.Restart())
	}
	log, logger := newSaid(t)
	n, err := try(t, app(s, logger), time.Minute, nil)
	require.NoError(t, err)
	n.follow("room")
	n.follow("other")
	change(`permissions: { publish: [">"], subscribe: { allow: [">"], deny: ["pushy.1.c.room"] } }`)
	n.nextReset("other")
	n.append("other", event("1"))
	assert.Equal(t, "1", string(n.nextEvent().Data))
	require.NoError(t, n.Away())
	assert.Equal(t, 1, log.lines("does not permit", "subject=pushy.1.c.room "))
	change(documented(t))
	n.nextReset("room")
	n.append("room", event("2"))
	assert.Equal(t, "2", string(n.nextEvent().Data))
}

// A node that finds NATS later, and may not use it, says so.
func TestForbiddenLater(t *testing.T) {
	t.Parallel()
	for _, c := range missing {
		t.Run(c.list+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			s := permitting(t, without(t, c.list, c.subject))
			s.Stop()
			n, err := try(t, app(s, testLogger(t)), time.Minute, nil)
			require.NoError(t, err)
			require.Error(t, n.Away())
			_, err = n.Follow(t.Context(), "room")
			require.ErrorIs(t, err, broker.ErrAway)
			require.NoError(t, s.Restart())
			eventually(t, "Away names "+c.subject, func() bool {
				err := n.Away()
				return err != nil && strings.Contains(err.Error(), c.says)
			})
			_, err = n.Append(context.Background(), "room", join("1"))
			require.ErrorContains(t, err, c.says)
		})
	}
}
