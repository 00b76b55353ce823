package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gopushy/pushy/broker"
)

// class is a stream for the logs of all channels with a similar Keep. The list of all classes
// is in the members' stream, so every node has it.
type class struct {
	name   string
	stream jetstream.Stream
}

// maxClasses is the maximum number of classes.
const maxClasses = 8

type classes struct {
	mu     sync.Mutex
	opened map[string]*class
}

const (
	minSize = 16
	minLife = 48 * time.Hour
	maxTTL  = 1000 * 24 * time.Hour
)

// classOf returns the name of the class of a Keep. The size is rounded up to a power of two.
// The lifetime of a log, which is ten times its TTL and at least two days, is rounded up to
// two days times a power of two.
func classOf(k broker.Keep) string {
	size, life := minSize, minLife
	for size < min(k.Size, 1<<30) {
		size *= 2
	}
	for life/10 < min(k.TTL, maxTTL) {
		life *= 2
	}
	return fmt.Sprintf("k%dh%d", size, life/time.Hour)
}

// parseClass is the inverse of classOf. ok is false for names that classOf does not return.
func parseClass(name string) (size int64, life time.Duration, ok bool) {
	var hours int64
	if _, err := fmt.Sscanf(name, "k%dh%d", &size, &hours); err != nil || size > 1<<30 || hours > 1<<20 {
		return 0, 0, false
	}
	life = time.Duration(hours) * time.Hour
	again := classOf(broker.Keep{Size: int(size), TTL: life / 10})
	return size, life, again == name
}

// class returns the class of a Keep, and creates it at its first use.
func (b *Broker) class(ctx context.Context, k broker.Keep) (*class, error) {
	name := classOf(k)
	known := b.classNames()
	if slices.Contains(known, name) {
		return b.openClass(ctx, name)
	}
	if len(known) >= maxClasses {
		return nil, fmt.Errorf("nats: all %d classes of Keep are in use: %v; use fewer different sizes and TTLs",
			maxClasses, known)
	}
	c, err := b.openClass(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, subject := range []string{b.subjects.generation(name), b.subjects.class(name)} {
		_, err := b.compareAndStore(ctx, subject, 0, []byte{formMark})
		if err != nil && !errors.Is(err, errConflict) {
			return nil, err
		}
	}
	return c, nil
}

// openClass returns a class, and creates its stream if it does not exist.
func (b *Broker) openClass(ctx context.Context, name string) (*class, error) {
	l := &b.classes
	l.mu.Lock()
	c := l.opened[name]
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	size, life, _ := parseClass(name)
	s, err := b.stream(ctx, jetstream.StreamConfig{
		Name:              b.subjects.stream + name,
		Subjects:          []string{b.subjects.logs(name)},
		Description:       "pushy: kept events",
		Storage:           b.storage(),
		MaxMsgsPerSubject: size,
		MaxAge:            life,
		RePublish: &jetstream.RePublish{
			Source:      b.subjects.logs(name),
			Destination: b.subjects.base + ".c.{{wildcard(1)}}",
		},
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened == nil {
		l.opened = map[string]*class{}
	}
	c = &class{name: name, stream: s}
	l.opened[name] = c
	return c, nil
}

// forget discards all classes, because their streams can be others after NATS was away.
func (l *classes) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = nil
}

// classNames returns the classes that are known, sorted.
func (b *Broker) classNames() []string {
	names := b.replica.Load().classNames()
	b.classes.mu.Lock()
	defer b.classes.mu.Unlock()
	for name := range b.classes.opened {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkGeneration returns an error if the stream of a class has lost messages. That is the
// case if the message is missing that was stored when the class was created. Then offsets
// that were used in the current epoch can be lost, so a new epoch begins.
func (b *Broker) checkGeneration(ctx context.Context, c *class) error {
	subject := b.subjects.generation(c.name)
	msg, err := b.last(ctx, c.stream, subject)
	if errors.Is(err, errNone) {
		if err := b.beginEpoch(ctx); err != nil {
			return err
		}
		_, err = b.compareAndStore(ctx, subject, 0, []byte{formMark})
		if err == nil || errors.Is(err, errConflict) {
			err = fmt.Errorf("%w: %w", broker.ErrAway, errEpoch)
		}
		return err
	}
	if err == nil && time.Since(msg.Time) > minLife/4 {
		// It is stored again before it reaches its maximum age. On a conflict, another node
		// has done that.
		_, err = b.compareAndStore(ctx, subject, msg.Sequence, []byte{formMark})
		if errors.Is(err, errConflict) {
			err = nil
		}
	}
	return err
}

// keepGenerations renews the messages that checkGeneration looks for.
func (b *Broker) keepGenerations(ctx context.Context) {
	for _, name := range b.classNames() {
		c, err := b.openClass(ctx, name)
		if err == nil {
			_ = b.checkGeneration(ctx, c) // an append returns the error
		}
	}
}

var errEpoch = errors.New("nats: a new epoch begins, because messages were lost")
