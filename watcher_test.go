package pushy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gopushy/pushy"
)

// watcher is a client that knows the members of private-room from what it receives, as
// PROTOCOL.md, section 4, says.
type watcher struct {
	*peer
	done chan struct{} // closed when the reader has ended

	mu       sync.Mutex
	members  map[string]map[string]any // by memberId
	count    int
	revision string
	cursor   any // next of the last page
	own      string
	key      string          // with it, the client returns as the same member
	answer   json.RawMessage // members of the success
	frames   []string        // of presence, as they came
	replies  []frame
}

// watch subscribes to private-room with a presence mode, which is JSON or "".
func watch(t testing.TB, srv *pushy.Server, data, mode string) *watcher {
	t.Helper()
	w := newWatcher(t, srv)
	return w.subscribe(withKey(subscribeText(t, w.id, "private-room", data), "presence", mode))
}

// hold is watch for a client that keeps its membership when it loses its connection.
func hold(t testing.TB, srv *pushy.Server, data string) *watcher {
	t.Helper()
	w := newWatcher(t, srv)
	text := withKey(subscribeText(t, w.id, "private-room", data), "presence", `{"mode":"diff","limit":500}`)
	return w.subscribe(withKey(text, "hold", "true"))
}

// again is hold for a client that has lost its connection, with what it knows.
func (w *watcher) again(srv *pushy.Server, data string) *watcher {
	w.t.Helper()
	next := newWatcher(w.t, srv)
	for id, text := range w.seen() {
		var m map[string]any
		require.NoError(w.t, json.Unmarshal([]byte(text), &m))
		next.members[id] = m
	}
	text := withKey(subscribeText(w.t, next.id, "private-room", data), "presence",
		fmt.Sprintf(`{"mode":"diff","limit":500,"since":%q}`, w.at()))
	text = withKey(text, "member", fmt.Sprintf(`{"id":%q,"key":%q}`, w.own, w.key))
	return next.subscribe(withKey(text, "hold", "true"))
}

func newWatcher(t testing.TB, srv *pushy.Server) *watcher {
	t.Helper()
	return &watcher{
		peer:    connectPeer(t, srv),
		done:    make(chan struct{}),
		members: map[string]map[string]any{},
	}
}

func (w *watcher) subscribe(text string) *watcher {
	w.t.Helper()
	w.send(text)
	success := w.next()
	require.Equal(w.t, "pushy:subscription-success", success.Event, "%s", success)
	w.subscribed(success)
	go func() {
		defer close(w.done)
		for {
			text, err := w.Receive(context.Background())
			if err != nil {
				return
			}
			f, err := parseFrame(text)
			if err != nil {
				return
			}
			w.receive(f, text)
		}
	}()
	return w
}

// withKey adds a key to the data of a command.
func withKey(command, key, value string) string {
	if value == "" {
		return command
	}
	return strings.TrimSuffix(command, "}}") + `,"` + key + `":` + value + `}}`
}

type memberPage struct {
	Mode     string           `json:"mode"`
	Revision string           `json:"revision"`
	Count    int              `json:"count"`
	Since    string           `json:"since"`
	List     []map[string]any `json:"list"`
	Next     any              `json:"next"`
	Add      []map[string]any `json:"add"`
	Quit     []string         `json:"quit"`
	Update   []map[string]any `json:"update"`
	Users    map[string]any   `json:"users"`
}

func (w *watcher) subscribed(f frame) {
	var data struct {
		MemberID string           `json:"memberId"`
		Key      string           `json:"key"`
		Presence []map[string]any `json:"presence"`
		Members  json.RawMessage  `json:"members"`
	}
	require.NoError(w.t, json.Unmarshal(f.Data, &data))
	w.own = data.MemberID
	w.key = data.Key
	w.answer = data.Members
	for _, m := range data.Presence {
		w.set(m)
	}
	if data.Members != nil {
		var p memberPage
		require.NoError(w.t, json.Unmarshal(data.Members, &p))
		w.apply(&p)
	}
}

func (w *watcher) set(m map[string]any) { w.members[m["memberId"].(string)] = m }

func (w *watcher) apply(p *memberPage) {
	if p.Mode == "diff" && p.Since == "" {
		clear(w.members) // the list begins
	}
	for _, m := range slices.Concat(p.List, p.Add) {
		w.set(m)
	}
	for _, id := range p.Quit {
		delete(w.members, id)
	}
	for _, m := range p.Update {
		w.update(m)
	}
	w.count = p.Count
	w.revision = p.Revision
	w.cursor = p.Next
}

func (w *watcher) update(m map[string]any) {
	if m["subscribed"] != nil {
		w.set(m)
		return
	}
	old := w.members[m["memberId"].(string)]
	if old == nil {
		return
	}
	for name, value := range m {
		old[name] = value
		if value == nil {
			delete(old, name)
		}
	}
}

func (w *watcher) receive(f frame, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var data struct {
		Member   map[string]any   `json:"member"`
		Presence []map[string]any `json:"presence"`
	}
	if strings.HasPrefix(f.Event, "pushy:presence-") {
		w.frames = append(w.frames, text)
		_ = json.Unmarshal(f.Data, &data)
	}
	switch f.Event {
	case "pushy:presence-add":
		w.set(data.Member)
	case "pushy:presence-quit":
		delete(w.members, data.Member["memberId"].(string))
	case "pushy:presence-update":
		w.update(data.Member)
	case "pushy:presence-sync":
		clear(w.members)
		for _, m := range data.Presence {
			w.set(m)
		}
	case "pushy:presence-diff":
		var p memberPage
		_ = json.Unmarshal(f.Data, &p)
		cursor := w.cursor
		w.apply(&p)
		w.cursor = cursor
	case "pushy:reply":
		w.replies = append(w.replies, f)
		var reply struct{ Data memberPage }
		_ = json.Unmarshal(f.Data, &reply)
		if reply.Data.List != nil {
			w.apply(&reply.Data)
		}
	default:
		w.replies = append(w.replies, f)
	}
}

// ids returns the ids of the members that the client knows, sorted.
func (w *watcher) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return sortedKeys(w.members)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// seen returns the members as JSON, by id.
func (w *watcher) seen() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]string{}
	for id, m := range w.members {
		text, err := json.Marshal(m)
		require.NoError(w.t, err)
		all[id] = string(text)
	}
	return all
}

// taken returns the messages of presence that have come since the last call.
func (w *watcher) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	frames := w.frames
	w.frames = nil
	return frames
}

// answers returns the other messages that have come since the last call.
func (w *watcher) answers() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, f := range w.replies {
		all = append(all, f.String())
	}
	w.replies = nil
	return all
}

// serverSees returns the members of private-room as a Server has them: JSON by id.
func serverSees(t testing.TB, srv *pushy.Server) map[string]string {
	t.Helper()
	all := map[string]string{}
	ch, ok := srv.Channels().Lookup("private-room")
	if !ok {
		return all
	}
	members, _ := ch.Presence()
	for _, m := range members {
		var fields map[string]any
		require.NoError(t, json.Unmarshal(m.JSON, &fields))
		text, err := json.Marshal(fields)
		require.NoError(t, err)
		all[m.ID] = string(text)
	}
	return all
}

func command(name, format string, args ...any) string {
	return fmt.Sprintf(`{"command":%q,"data":{"channel":"private-room",%s},"id":1}`, name, fmt.Sprintf(format, args...))
}

// place returns the number of members, the revision, and next of the last page.
func (w *watcher) place() (count int, revision string, next any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count, w.revision, w.cursor
}

func (w *watcher) counted() int {
	count, _, _ := w.place()
	return count
}

func (w *watcher) at() string {
	_, revision, _ := w.place()
	return revision
}
