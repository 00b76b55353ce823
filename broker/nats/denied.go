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

// denials are the permissions that this node's user lacks, as far as NATS has reported them.
// NATS does not answer a message or subscription that it does not permit. Instead, it sends
// an error that contains the subject, before the answer to anything that is sent later.
// nats.go passes the error to a callback asynchronously.
type denials struct {
	o settings

	mu       sync.Mutex
	count    uint64 // the number of errors
	recent   [64]error
	denied   map[action]denial
	requests map[*request]struct{}
	changed  chan struct{} // closed and replaced at each error
}

// action is an operation that needs a permission: to publish on a subject, or to subscribe.
type action struct {
	publishes bool
	subject   string
}

type denial struct {
	at  uint64 // the count when it was reported
	err *SettingError
}

// request ends the context of an operation that NATS denies.
type request struct {
	subjects []string // or their prefixes
	cancel   context.CancelCauseFunc
}

// maxDenied is the maximum number of denials that are stored. There can be many, because
// subjects contain channel names.
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

// note records an error of nats.go's callback if it is a denial, and logs it at most once a
// minute for each subject.
func (d *denials) note(err error) (action, bool) {
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
	explained := d.explain(a)
	d.mu.Lock()
	if len(d.denied) >= maxDenied {
		d.forgetLocked()
	}
	d.count++
	d.recent[d.count%uint64(len(d.recent))] = err
	d.denied[a] = denial{at: d.count, err: explained}
	for r := range d.requests {
		if r.needs(a) || a == d.inbox() {
			r.cancel(explained)
		}
	}
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	d.o.notices.Warn("NATS does not permit what this node needs", a.subject,
		slog.String("subject", a.subject), slog.Any("error", explained))
	return a, true
}

// withoutConsumer returns the subject of a request about a consumer without the consumer's
// name, which differs each time.
func withoutConsumer(subject, streams string) string {
	kind, rest, found := strings.Cut(subject, "."+streams)
	stream, _, named := strings.Cut(rest, ".")
	if !found || !named || !strings.HasPrefix(kind, api("CONSUMER.")) {
		return subject
	}
	return kind + "." + streams + stream + ".>"
}

// explain returns the error for an action that is not permitted.
func (d *denials) explain(a action) *SettingError {
	do := "subscribe to"
	if a.publishes {
		do = "publish on"
	}
	err := fmt.Errorf("%s does not permit this user to %s %q (the package documentation lists the permissions): %w",
		shown(d.o.servers), do, a.subject, natsgo.ErrPermissionViolation)
	return &SettingError{d.o.identity(), err}
}

// forgetLocked removes the older half of the denials.
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

// waitNoted returns when all denials that nc has read are recorded, or after timeout.
func (d *denials) waitNoted(nc *natsgo.Conn, timeout time.Duration) {
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

// guard returns a context that ends when NATS denies a request on one of the subjects, or the
// subscription to answers. The caller must call the returned func at the end, with the error
// of the operation, which it replaces with the denial.
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

// isDenied reports whether err means that NATS does not permit something.
func isDenied(err error) bool { return errors.Is(err, natsgo.ErrPermissionViolation) }
