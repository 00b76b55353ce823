package roster

import (
	"context"
	"errors"
	"sync"
)

// Entry is one change of a Log.
type Entry[T any] struct {
	Revision uint64
	Left     bool
	ID       string
	Value    T
}

// Logs is one log for each name, in memory, of which only the outcome is kept.
// It is safe for concurrent use.
type Logs[T any] struct {
	mu      sync.Mutex
	logs    map[string]*log[T]
	closed  bool
	watches sync.WaitGroup
}

// log's lock is held while watchers are told, so all see one order.
type log[T any] struct {
	users int // calls under way and watches; under Logs.mu

	mu       sync.Mutex
	state    Roster[T]
	revision uint64
	watchers map[*func(Entry[T])]struct{}
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("presence log closed")

// use returns the log of a name; done lets go of it.
func (l *Logs[T]) use(name string, watch bool) (*log[T], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	g := l.logs[name]
	if g == nil {
		if l.logs == nil {
			l.logs = map[string]*log[T]{}
		}
		g = &log[T]{watchers: map[*func(Entry[T])]struct{}{}}
		l.logs[name] = g
	}
	g.users++
	if watch {
		l.watches.Add(1)
	}
	return g, nil
}

func (l *Logs[T]) done(name string, g *log[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g.users--
	if g.users == 0 && g.state.Len() == 0 { // nobody else can be at it
		delete(l.logs, name)
	}
}

// Join logs that a value came in, unless id is in already.
func (l *Logs[T]) Join(name, id string, value T, on bool) error {
	g, err := l.use(name, false)
	if err != nil {
		return err
	}
	defer l.done(name, g)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.Add(id, value, on) {
		g.tell(Entry[T]{ID: id, Value: value})
	}
	return nil
}

// Leave logs that a value went, if it was in.
func (l *Logs[T]) Leave(name, id string) error {
	g, err := l.use(name, false)
	if err != nil {
		return err
	}
	defer l.done(name, g)
	g.mu.Lock()
	defer g.mu.Unlock()
	if value, ok := g.state.Remove(id); ok {
		g.tell(Entry[T]{Left: true, ID: id, Value: value})
	}
	return nil
}

// tell needs g.mu.
func (g *log[T]) tell(e Entry[T]) {
	g.revision++
	e.Revision = g.revision
	for apply := range g.watchers {
		(*apply)(e)
	}
}

// Watch returns the values in order, whether the Roster is on, and the revision
// they stand at; apply gets every later entry until ctx ends.
func (l *Logs[T]) Watch(
	ctx context.Context, name string, apply func(Entry[T]),
) (values []T, on bool, revision uint64, err error) {
	g, err := l.use(name, true)
	if err != nil {
		return nil, false, 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers[&apply] = struct{}{}
	context.AfterFunc(ctx, func() {
		defer l.watches.Done()
		g.mu.Lock()
		delete(g.watchers, &apply)
		g.mu.Unlock()
		l.done(name, g)
	})
	return g.state.Values(), g.state.On(), g.revision, nil
}

// Close refuses everything from now on and waits for the watches, whose
// contexts must have ended.
func (l *Logs[T]) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.watches.Wait()
	return nil
}
