package pushy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unique"

	"github.com/gopushy/pushy/internal/httperror"
	"github.com/gopushy/pushy/internal/hub"
)

// EndedBy says who has ended a connection.
type EndedBy uint8

const (
	EndedByServer  EndedBy = iota + 1 // the Server or the host, also because the client has broken a rule
	EndedByClient                     // the client, with a close frame
	EndedByNetwork                    // the connection was lost, or was silent for too long
)

// String returns "server", "client" or "network".
func (b EndedBy) String() string {
	switch b {
	case EndedByServer:
		return "server"
	case EndedByClient:
		return "client"
	case EndedByNetwork:
		return "network"
	}
	return fmt.Sprintf("EndedBy(%d)", uint8(b))
}

// Ending describes a connection that has ended. What the client or its user has chosen (Reason, User
// and Agent) can be any valid UTF-8, with control characters.
type Ending struct {
	Conn string // the Conn.ID
	User string // the Conn.UserID, or ""
	// Address is what Options.Address returned for the client, or else the RemoteAddr of its
	// request; at most 200 bytes, and quoted if it is not printable.
	Address  string
	Agent    string // the User-Agent header, at most 256 bytes
	Protocol string // the Conn.Protocol
	Code     int    // the close code, as Hooks.Disconnect receives it
	Reason   string
	By       EndedBy
	// Waiting is the number of bytes that were queued for the client when it was decided that the
	// connection ends. If the Server has ended it with another code than CloseSlowConsumer, it has
	// still tried to send them.
	Waiting int64
	// OldestWait is how long the first of these bytes had waited. It is 0 if nothing was queued,
	// and for the lists and replayed events that a client receives when it subscribes.
	OldestWait time.Duration
	Since      time.Time // when the connection began
	At         time.Time
}

// OnEnding makes the Server call f for each connection that has ended, after its Disconnect hook. It
// is called from many goroutines at once, with no lock held, and delays the end of a Shutdown while
// it runs. If it panics or calls runtime.Goexit, this is logged as for a hook. After stop has
// returned, f is not called for connections that end from then on.
func (s *Server) OnEnding(f func(Ending)) (stop func()) {
	if f == nil {
		panic("pushy: OnEnding: nil func")
	}
	return s.endings.add(&f)
}

// endings passes on how connections end.
type endings struct {
	mu        sync.Mutex
	observers []*func(Ending) // replaced when it changes
	lines     endingLines
}

func (e *endings) add(f *func(Ending)) (remove func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.observers = append(slices.Clone(e.observers), f)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if i := slices.Index(e.observers, f); i >= 0 {
			e.observers = slices.Delete(slices.Clone(e.observers), i, i+1)
		}
	}
}

func (e *endings) all() []*func(Ending) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.observers
}

// ended logs how a connection has ended, and calls the observers.
func (s *Server) ended(e hub.Ending) {
	if e.By == hub.ByServer {
		s.logEnding(e)
	}
	observers := s.endings.all()
	if len(observers) == 0 {
		return
	}
	ending := hostEnding(e)
	for _, observe := range observers {
		s.hook("OnEnding", func() { (*observe)(ending) })
	}
}

func hostEnding(e hub.Ending) Ending {
	return Ending{
		Conn:       e.Conn.ID(),
		User:       e.Conn.UserID(),
		Address:    e.Conn.Address(),
		Agent:      e.Conn.Agent(),
		Protocol:   e.Conn.Transport(),
		Code:       e.Code,
		Reason:     e.Reason,
		By:         EndedBy(e.By),
		Waiting:    e.Left.Bytes,
		OldestWait: e.Left.Oldest,
		Since:      time.UnixMilli(e.Conn.Since()),
		At:         e.At,
	}
}

const (
	endingsPerSecond = 10
	omittedMessage   = "connections ended by the server: lines were omitted"
)

// endingLines limits the log lines about connections that the Server ends to endingsPerSecond. What
// exceeds them is counted, and the number is logged when the second is over.
type endingLines struct {
	mu      sync.Mutex
	began   time.Time // of the present second
	lines   int
	omitted int
}

// take reports whether a line may be written now. If count is set, the caller must arrange that
// omittedNow is called when the second is over.
func (l *endingLines) take(now time.Time) (write, count bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.omitted == 0 && now.Sub(l.began) >= time.Second {
		l.began = now
		l.lines = 0
	}
	if l.lines < endingsPerSecond {
		l.lines++
		return true, false
	}
	l.omitted++
	return false, l.omitted == 1
}

// omittedNow returns the number of lines that were omitted, and begins anew.
func (l *endingLines) omittedNow() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	omitted := l.omitted
	l.omitted = 0
	return omitted
}

func (s *Server) logEnding(e hub.Ending) {
	lines := &s.endings.lines
	write, count := lines.take(time.Now())
	if count {
		time.AfterFunc(time.Second, s.logOmittedEndings)
	}
	if !write {
		return
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "connection ended by the server",
		slog.Int("code", e.Code),
		slog.String("reason", e.Reason),
		slog.Int64("waiting", e.Left.Bytes),
		slog.Duration("oldestWait", e.Left.Oldest),
		slog.Duration("age", e.At.Sub(time.UnixMilli(e.Conn.Since())).Round(time.Millisecond)),
		slog.String("address", e.Conn.Address()),
		slog.String("conn", e.Conn.ID()),
		slog.String("user", e.Conn.UserID()),
		slog.String("protocol", e.Conn.Transport()))
}

func (s *Server) logOmittedEndings() {
	if omitted := s.endings.lines.omittedNow(); omitted > 0 {
		s.log.LogAttrs(context.Background(), slog.LevelInfo, omittedMessage, slog.Int("omitted", omitted))
	}
}

const maxAgent = 256

// agentOf returns the User-Agent header of a request. Many clients have the same one, so it is
// stored once.
func agentOf(r *http.Request) unique.Handle[string] {
	agent := r.UserAgent()
	if len(agent) > maxAgent {
		end := maxAgent
		for end > maxAgent-utf8.UTFMax && !utf8.RuneStart(agent[end]) {
			end--
		}
		agent = agent[:end]
	}
	return unique.Make(strings.ToValidUTF8(agent, "\uFFFD"))
}

// shownAddress returns the address of a client as Ending has it.
func shownAddress(r *http.Request, client counted) string {
	if client.address != "" {
		return client.address
	}
	return httperror.Shown(r.RemoteAddr)
}
