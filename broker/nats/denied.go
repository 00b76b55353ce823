package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// denials are the permissions that this node's user was found to lack. NATS does
// not answer a message or subscription that it does not permit. It sends an error
// that names the subject instead, before the answer to whatever was sent later,
// and nats.go passes that to a callback, in its own time.
type denials struct {
	o settings

	mu       sync.Mutex
	count    uint64 // of the errors so far
	recent   [64]error
	denied   map[action]denial
	requests map[*request]struct{}
	changed  chan struct{} // closed, and another made, at each error
}

// action is what needs a permission: to publish on a subject, or to subscribe.
type action struct {
	publishes bool
	subject   string
}

type denial struct {
	at  uint64 // the count of errors with it
	err *SettingError
}

// request ends a context when NATS denies what is done under it.
type request struct {
	subjects []string // or how they begin
	cancel   context.CancelCauseFunc
}

// maxDenied is how many denials are remembered: subjects have channel names.
const maxDenied = 1024

func newDenials(o settings) *denials {
	return &denials{
		o:        o,
		denied:   map[action]denial{},
		requests: map[*request]struct{}{},
		changed:  make(chan struct{}),
	}
}

var violation = regexp.MustCompile(`(?i)violation for (publish|subscription)(?: to)? "([^"]*)"`)

// inbox is the action that all inboxes of this node need.
func (d *denials) inbox() action { return action{subject: d.o.InboxPrefix + ".>"} }

// heard notes an error of nats.go's callback, if it is a denial, and logs it once
// in a while.
func (d *denials) heard(err error) (action, bool) {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		return action{}, false
	}
	var a action
	if match := violation.FindStringSubmatch(err.Error()); match != nil {
		a = action{publishes: strings.EqualFold(match[1], "publish"), subject: match[2]}
	}
	if !a.publishes && strings.HasPrefix(a.subject, d.o.InboxPrefix+".") {
		a = d.inbox()
	}
	if a.publishes {
		a.subject = withoutConsumer(a.subject, newSubjects(d.o.Prefix).stream)
	}
	said := d.explain(a)
	d.mu.Lock()
	if len(d.denied) >= maxDenied {
		d.forgetLocked()
	}
	d.count++
	d.recent[d.count%uint64(len(d.recent))] = err
	d.denied[a] = denial{at: d.count, err: said}
	for r := range d.requests {
		if r.needs(a) || a == d.inbox() {
			r.cancel(said)
		}
	}
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	d.o.notices.Warn("NATS does not permit what this node needs", a.subject,
		slog.String("subject", a.subject), slog.Any("error", said))
	return a, true
}

// withoutConsumer returns the subject of a request about a consumer without the
// consumer's name, which is another one each time.
func withoutConsumer(subject, streams string) string {
	kind, rest, found := strings.Cut(subject, "."+streams)
	stream, _, named := strings.Cut(rest, ".")
	if !found || !named || !strings.HasPrefix(kind, api("CONSUMER.")) {
		return subject
	}
	return kind + "." + streams + stream + ".>"
}

// explain is the error of what is not permitted.
func (d *denials) explain(a action) *SettingError {
	do := "subscribe to"
	if a.publishes {
		do = "publish on"
	}
	err := fmt.Errorf("%s does not permit this user to %s %q (the package documentation lists the permissions): %w",
		shown(d.o.servers), do, a.subject, natsgo.ErrPermissionViolation)
	return &SettingError{d.o.identity(), err}
}

// forgetLocked drops the older half.
func (d *denials) forgetLocked() {
	for a, denied := range d.denied {
		if denied.at+maxDenied/2 < d.count {
			delete(d.denied, a)
		}
	}
}

// mark is a point in time for since.
func (d *denials) mark() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// since returns the denial of a that came after mark, or nil.
func (d *denials) since(a action, mark uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if denied, is := d.denied[a]; is && denied.at > mark {
		return denied.err
	}
	return nil
}

// settle returns when the denials that nc has read are known.
func (d *denials) settle(nc *natsgo.Conn, timeout time.Duration) {
	var late <-chan time.Time
	for {
		last := nc.LastError()
		if !errors.Is(last, natsgo.ErrPermissionViolation) {
			return
		}
		d.mu.Lock()
		known, changed := slices.Contains(d.recent[:], last), d.changed
		d.mu.Unlock()
		if known {
			return
		}
		if late == nil {
			late = time.After(timeout)
		}
		select {
		case <-changed:
		case <-late:
			return
		}
	}
}

func (r *request) needs(a action) bool {
	return a.publishes && slices.ContainsFunc(r.subjects, func(s string) bool { return strings.HasPrefix(a.subject, s) })
}

// guard returns a context that ends when NATS denies a request on one of the
// subjects, or any answer, and what is to be called at the end, with the error.
func (d *denials) guard(ctx context.Context, subjects ...string) (context.Context, func(err *error)) {
	r := &request{subjects: subjects}
	ctx, r.cancel = context.WithCancelCause(ctx)
	d.mu.Lock()
	d.requests[r] = struct{}{}
	d.mu.Unlock()
	return ctx, func(err *error) {
		d.mu.Lock()
		delete(d.requests, r)
		d.mu.Unlock()
		var denied *SettingError
		if *err != nil && errors.As(context.Cause(ctx), &denied) {
			*err = denied
		}
		r.cancel(nil)
	}
}

// isDenied reports whether err says that NATS does not permit something.
func isDenied(err error) bool { return errors.Is(err, natsgo.ErrPermissionViolation) }
