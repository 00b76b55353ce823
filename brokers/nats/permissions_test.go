package nats_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/brokers/nats"
)

// documented returns the permissions as the package documentation has them.
func documented(t testing.TB) string {
	t.Helper()
	source, err := os.ReadFile("nats.go")
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
func permitting(t testing.TB, permissions string) *natsServer {
	t.Helper()
	return configured(t, permittingConfig(permissions))
}

func permittingConfig(permissions string) string {
	return `authorization { users: [
		{ user: root, password: root }
		{ user: app, password: app, ` + permissions + ` }
	] }`
}

// said is a log whose lines can be counted.
type said struct {
	mu sync.Mutex
	b  strings.Builder
	t  testing.TB
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Write(p)
	return s.t.Output().Write(p)
}

func (s *said) lines(with ...string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.SplitSeq(s.b.String(), "\n") {
		if line != "" && !slices.ContainsFunc(with, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

func newSaid(t testing.TB) (*said, *slog.Logger) {
	s := &said{t: t}
	return s, slog.New(slog.NewTextHandler(s, nil))
}

// Issue 11, number 6: the documented permissions are enough for all that a node does.
func TestDocumentedPermissions(t *testing.T) {
	t.Parallel()
	s := permitting(t, documented(t))
	log, logger := newSaid(t)
	newNode := func() *nats.Broker {
		b, err := nats.New(t.Context(), nats.Options{
			URL:            s.url,
			User:           "app",
			Password:       "app",
			RequireAtStart: true,
			Lease:          time.Second,
			Logger:         logger,
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	a, b, dies := newNode(), newNode(), newNode()
	heardB := heard(t, b)
	received, err := a.Publish(t.Context(), "private-room", event("nobody"))
	require.NoError(t, err)
	assert.Equal(t, pushy.None, received)
	require.NoError(t, b.Subscribe(t.Context(), "private-room"))
	_, err = a.Publish(t.Context(), "private-room", event("said"))
	require.NoError(t, err)
	assert.Equal(t, "said", next(t, heardB).Event)
	_, changes := watched(t, b, "private-room")
	require.NoError(t, a.Join(t.Context(), "private-room", member("stays")))
	assert.Equal(t, "stays", next(t, changes).Member.ID)
	for i := range 100 { // the log is compacted
		id := fmt.Sprint("guest", i)
		require.NoError(t, a.Join(t.Context(), "private-room", member(id)))
		require.NoError(t, a.Leave(t.Context(), "private-room", id))
	}
	require.NoError(t, dies.Join(t.Context(), "private-other", member("dies")))
	dies.Kill()
	eventually(t, "a dead node's members are removed", func() bool {
		n, err := a.Entries(t.Context(), "private-other")
		return err == nil && n == 0
	})
	n, err := a.Entries(t.Context(), "private-room")
	require.NoError(t, err)
	assert.Less(t, n, 100)
	require.NoError(t, a.Leave(t.Context(), "private-room", "stays"))
	require.NoError(t, a.Close())
	require.NoError(t, b.Unsubscribe(t.Context(), "private-room"))
	require.NoError(t, b.Away())
	assert.Zero(t, log.lines("does not permit"))
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	require.NoError(t, err)
	assert.NotContains(t, string(text), "Violation")
}

// Issue 11, number 6: without any of the documented permissions New says which is
// missing, within its own time.
func TestMissingPermission(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ list, subject, says string }{
		{"publish", "pushy.e.>", `publish on "pushy.e.`},
		{"publish", "pushy.p.>", `publish on "pushy.p.`},
		{"publish", "$JS.API.>", `publish on "$JS.API.`},
		{"subscribe", "pushy.e.>", `subscribe to "pushy.e.`},
		{"subscribe", "pushy.o.>", `subscribe to "pushy.o.`},
		{"subscribe", "_INBOX.>", `subscribe to "_INBOX.>"`},
	} {
		t.Run(c.list+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			s := permitting(t, without(t, c.list, c.subject))
			log, logger := newSaid(t)
			for range 2 {
				b, err := nats.New(t.Context(), nats.Options{
					URL:            s.url,
					User:           "app",
					Password:       "app",
					RequireAtStart: true,
					Timeout:        20 * time.Second,
					Lease:          time.Minute,
					Logger:         logger,
				})
				if err == nil {
					_ = b.Close()
				}
				var wrong *nats.SettingError
				require.ErrorAs(t, err, &wrong)
				assert.Equal(t, "User", wrong.Setting)
				assert.Contains(t, err.Error(), c.says)
				require.ErrorIs(t, err, natsgo.ErrPermissionViolation)
			}
			assert.Zero(t, log.lines("is away"))
			assert.Zero(t, log.lines("serves alone"))
		})
	}
}

// Issue 11, number 6: the same of a user that lacks a part of what is documented: New
// says so, and a node that begins without it logs each kind of request once a minute,
// whatever its subject ends with.
func TestMissingPart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list, subject string
		later         bool // refused by RequireAtStart only
	}{
		{"publish", "$JS.API.STREAM.INFO.>", false},
		{"publish", "$JS.API.STREAM.CREATE.>", false},
		{"publish", "$JS.API.STREAM.MSG.GET.>", true},
		{"publish", "$JS.API.STREAM.MSG.DELETE.>", true},
		{"publish", "$JS.API.STREAM.PURGE.>", true},
		{"publish", "$JS.API.CONSUMER.CREATE.>", true},
		{"publish", "$JS.API.CONSUMER.MSG.NEXT.>", true},
		{"publish", "$JS.API.CONSUMER.DELETE.>", true},
		{"publish", "pushy.p.n.>", false},
		{"publish", "pushy.p.c.>", true},
		{"subscribe", "pushy.o.n.>", false},
		{"subscribe", "pushy.o.c.>", true},
	} {
		t.Run(c.list+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			s := permitting(t, `permissions: { `+c.list+`: { allow: [">"], deny: ["`+c.subject+`"] } }`)
			log, logger := newSaid(t)
			o := nats.Options{
				URL:            s.url,
				User:           "app",
				Password:       "app",
				RequireAtStart: true,
				Timeout:        20 * time.Second,
				Lease:          time.Minute,
				Logger:         logger,
			}
			kind := strings.TrimSuffix(c.subject, ">")
			b, err := nats.New(t.Context(), o)
			if err == nil {
				_ = b.Close()
			}
			var wrong *nats.SettingError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, "User", wrong.Setting)
			assert.Contains(t, err.Error(), `"`+kind)
			o.RequireAtStart = false
			b, err = nats.New(t.Context(), o)
			if !c.later {
				require.ErrorContains(t, err, `"`+kind)
				return
			}
			require.NoError(t, err)
			t.Cleanup(func() { _ = b.Close() })
			for i := range 120 { // enough for a log that is compacted, and for many consumers
				id := fmt.Sprint(i)
				if err := b.Join(t.Context(), "private-room", member(id)); err != nil {
					require.ErrorContains(t, err, `"`+kind)
					require.ErrorIs(t, err, natsgo.ErrPermissionViolation)
				}
				if i%2 == 0 {
					_ = b.Leave(t.Context(), "private-room", id)
				}
			}
			assert.LessOrEqual(t, log.lines("NATS does not permit what this node needs", kind), 2, "one line of each node")
			assert.Zero(t, log.lines("is away"))
		})
	}
}

// Issue 11, number 6: who may not publish, subscribe or join gets an error that names
// the subject, at once and each time; the trigger is answered 503; the log has the
// subject once. All else goes on.
func TestForbidden(t *testing.T) {
	t.Parallel()
	s := permitting(t, `permissions: {
		publish: { allow: ["pushy.>", "$JS.API.>"], deny: ["pushy.e.mute", "pushy.p.c.private-mute"] }
		subscribe: { allow: ["pushy.>", "_INBOX.>"], deny: ["pushy.e.deaf", "pushy.o.c.private-deaf"] }
	}`)
	log, logger := newSaid(t)
	b, err := nats.New(t.Context(), nats.Options{
		URL:            s.url,
		User:           "app",
		Password:       "app",
		RequireAtStart: true,
		Timeout:        20 * time.Second,
		Lease:          time.Minute,
		Logger:         logger,
	})
	require.NoError(t, err)
	const key = "a secret of the test"
	srv, err := pushy.New(pushy.Options{SecretKey: key, Broker: b, Presence: b, Logger: testLogger(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	var wrong *nats.SettingError
	for range 3 {
		_, err = b.Publish(t.Context(), "mute", event("said"))
		require.ErrorAs(t, err, &wrong)
		assert.Contains(t, err.Error(), `publish on "pushy.e.mute"`)
		require.Error(t, srv.Publish(t.Context(), "mute", "said", nil))
		assert.Equal(t, http.StatusServiceUnavailable, trigger(t, srv, key, "mute").Code)
		err = b.Subscribe(t.Context(), "deaf")
		require.ErrorAs(t, err, &wrong)
		assert.Contains(t, err.Error(), `subscribe to "pushy.e.deaf"`)
		err = b.Join(t.Context(), "private-mute", member("1"))
		require.ErrorAs(t, err, &wrong)
		assert.Contains(t, err.Error(), `publish on "pushy.p.c.private-mute"`)
		require.NoError(t, b.Leave(t.Context(), "private-mute", "1"))
		_, err = b.Watch(t.Context(), "private-deaf", func(pushy.Change) {})
		require.ErrorAs(t, err, &wrong)
		assert.Contains(t, err.Error(), `subscribe to "pushy.o.c.private-deaf"`)
		assert.Equal(t, http.StatusOK, trigger(t, srv, key, "other").Code)
		require.NoError(t, b.Subscribe(t.Context(), "other"))
		require.NoError(t, b.Unsubscribe(t.Context(), "other"))
		require.NoError(t, b.Join(t.Context(), "private-other", member("1")))
		require.NoError(t, b.Leave(t.Context(), "private-other", "1"))
	}
	for _, subject := range []string{"pushy.e.mute", "pushy.e.deaf", "pushy.p.c.private-mute", "pushy.o.c.private-deaf"} {
		assert.Equal(t, 1, log.lines("does not permit", "subject="+subject), subject)
	}
	eventually(t, "what is not tried any more does not make the node away", func() bool { return b.Away() == nil })
}

// Issue 11, number 6: without RequireAtStart a user that may do nothing with events
// gets errors too, and New does.
func TestForbiddenEvents(t *testing.T) {
	t.Parallel()
	s := permitting(t, `permissions: { publish: ["nothing"], subscribe: ["_INBOX.>"] }`)
	b, err := nats.New(t.Context(), nats.Options{URL: s.url, User: "app", Password: "app", EventsOnly: true, Logger: testLogger(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	_, err = b.Publish(t.Context(), "news", event("said"))
	require.ErrorIs(t, err, natsgo.ErrPermissionViolation)
	require.ErrorIs(t, b.Subscribe(t.Context(), "news"), natsgo.ErrPermissionViolation)
}

// Issue 11, number 6: many channels at once, of which every other is forbidden:
// each call gets the answer for its own.
func TestForbiddenAmongOthers(t *testing.T) {
	t.Parallel()
	s := permitting(t, `permissions: {
		publish: { allow: ["pushy.>"], deny: ["pushy.e.mute-*", "pushy.e.mute"] }
		subscribe: ["pushy.>", "_INBOX.>"]
	}`)
	b, err := nats.New(t.Context(), nats.Options{URL: s.url, User: "app", Password: "app", EventsOnly: true, Timeout: 20 * time.Second, Logger: testLogger(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	var tasks sync.WaitGroup
	for i := range 8 {
		tasks.Go(func() {
			for range 200 {
				if i%2 == 0 {
					_, err := b.Publish(t.Context(), "other", event("said"))
					assert.NoError(t, err)
				} else {
					_, err := b.Publish(t.Context(), "mute", event("said"))
					assert.ErrorIs(t, err, natsgo.ErrPermissionViolation)
				}
			}
		})
	}
	tasks.Wait()
}

// Issue 11, number 6: with an inbox prefix the user needs no right to _INBOX.>.
func TestInboxPrefix(t *testing.T) {
	t.Parallel()
	s := permitting(t, strings.Replace(documented(t), "_INBOX.>", "_INBOX.app.>", 1))
	o := nats.Options{URL: s.url, User: "app", Password: "app", Logger: testLogger(t)}
	_, err := nats.New(t.Context(), o)
	require.ErrorContains(t, err, `"_INBOX.>"`)
	o.InboxPrefix, o.RequireAtStart = "_INBOX.app", true
	b, err := nats.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	received, err := b.Publish(t.Context(), "news", event("nobody"))
	require.NoError(t, err)
	assert.Equal(t, pushy.None, received)
	require.NoError(t, b.Join(t.Context(), "private-room", member("1")))
	require.NoError(t, b.Away())
}

// Issue 11, numbers 6 and 9: permissions that an operator takes away and gives back,
// with or without a restart of NATS: Away names them, and what was denied works again.
func TestPermissionsChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list, subject, says string
		reload              bool // else a restart; a reload of NATS 2.9 ends JetStream
	}{
		{"subscribe", "pushy.e.>", `"pushy.e.private-room"`, true},
		{"subscribe", "pushy.e.>", `"pushy.e.private-room"`, false},
		{"subscribe", "pushy.o.>", `"pushy.o.`, false},
		{"subscribe", "_INBOX.>", `"_INBOX.>"`, false},
		{"publish", "pushy.p.>", `"pushy.p.n.`, false},
		{"publish", "$JS.API.>", `"$JS.API.`, false},
	} {
		t.Run(fmt.Sprint(c.list, c.subject, c.reload), func(t *testing.T) {
			t.Parallel()
			s := permitting(t, documented(t))
			file := s.args[slices.Index(s.args, "-c")+1]
			change := func(permissions string) {
				require.NoError(t, os.WriteFile(file, []byte(permittingConfig(permissions)), 0o600))
				if c.reload {
					require.NoError(t, s.process.Process.Signal(syscall.SIGHUP))
				} else {
					s.stop()
					require.NoError(t, s.start())
				}
			}
			newNode := func(user string) *nats.Broker {
				b, err := nats.New(t.Context(), nats.Options{
					URL:            s.url,
					User:           user,
					Password:       user,
					RequireAtStart: true,
					EventsOnly:     c.reload,
					Lease:          20 * time.Second,
					Logger:         testLogger(t),
				})
				require.NoError(t, err)
				t.Cleanup(func() { _ = b.Close() })
				return b
			}
			a, b := newNode("root"), newNode("app")
			heardB := heard(t, b)
			require.NoError(t, b.Subscribe(t.Context(), "private-room"))
			var changes <-chan pushy.Change
			if !c.reload {
				_, changes = watched(t, b, "private-room")
			}
			change(without(t, c.list, c.subject))
			eventually(t, "Away names "+c.subject, func() bool {
				err := b.Away()
				return err != nil && strings.Contains(err.Error(), c.says)
			})
			change(documented(t))
			eventually(t, "it is back", func() bool { return a.Away() == nil && b.Away() == nil })
			_, err := a.Publish(t.Context(), "private-room", event("said"))
			require.NoError(t, err)
			for next(t, heardB).Event != "said" {
			}
			if c.reload {
				return
			}
			require.NoError(t, a.Join(t.Context(), "private-room", member("1")))
			for {
				change := next(t, changes)
				if change.Member.ID == "1" || change.State != nil && len(change.State.Members) == 1 {
					break
				}
			}
		})
	}
}

// Issue 11, number 9: a node that finds NATS later, and may not use it, says so, and
// not that the stream is missing.
func TestForbiddenLater(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ list, subject, says string }{
		{"publish", "$JS.API.>", `publish on "$JS.API.`},
		{"publish", "pushy.p.>", `publish on "pushy.p.n.`},
		{"subscribe", "pushy.o.>", `subscribe to "pushy.o.n.*"`},
		{"subscribe", "_INBOX.>", `subscribe to "_INBOX.>"`},
	} {
		t.Run(c.list+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			s := permitting(t, without(t, c.list, c.subject))
			s.stop()
			b, err := nats.New(t.Context(), nats.Options{URL: s.url, User: "app", Password: "app", Logger: testLogger(t)})
			require.NoError(t, err)
			t.Cleanup(func() { _ = b.Close() })
			require.NoError(t, s.start())
			eventually(t, "Away names "+c.subject, func() bool {
				err := b.Away()
				return err != nil && strings.Contains(err.Error(), c.says)
			})
			err = b.Join(t.Context(), "private-room", member("1"))
			require.ErrorContains(t, err, c.says)
			_, err = b.Watch(t.Context(), "private-room", func(pushy.Change) {})
			require.ErrorContains(t, err, c.says)
			_, err = b.Publish(t.Context(), "news", event("said"))
			require.NoError(t, err)
		})
	}
}
