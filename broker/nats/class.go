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

// class is a stream for the logs of channels that keep about as much. Each node has a
// list of all: it is in the members' stream.
type class struct {
	name   string
	stream jetstream.Stream
}

// maxClasses is how many there may be.
const maxClasses = 8

type classes struct {
	mu     sync.Mutex
	opened map[string]*class
}

const (
	leastSize = 16
	leastLife = 48 * time.Hour
	maxTTL    = 1000 * 24 * time.Hour
)

// classOf names the class of a Keep: the size is rounded up to a power of two, and the
// life of a log, ten times its TTL and at least two days, to two days times one.
func classOf(k broker.Keep) string {
	size, life := leastSize, leastLife
	for size < min(k.Size, 1<<30) {
		size *= 2
	}
	for life/10 < min(k.TTL, maxTTL) {
		life *= 2
	}
	return fmt.Sprintf("k%dh%d", size, life/time.Hour)
}

// parseClass is the inverse of classOf.
func parseClass(name string) (size int64, life time.Duration, ok bool) {
	var hours int64
	if _, err := fmt.Sscanf(name, "k%dh%d", &size, &hours); err != nil || size > 1<<30 || hours > 1<<20 {
		return 0, 0, false
	}
	life = time.Duration(hours) * time.Hour
	again := classOf(broker.Keep{Size: int(size), TTL: life / 10})
	return size, life, again == name
}

// class returns the class of a Keep, and makes it at its first use.
func (b *Broker) class(ctx context.Context, k broker.Keep) (*class, error) {
	name := classOf(k)
	known := b.classNames()
	if slices.Contains(known, name) {
		return b.openClass(ctx, name)
	}
	if len(known) >= maxClasses {
		return nil, fmt.Errorf("nats: there are %d classes of Keep, %v, and no more: use fewer sizes and TTLs",
			maxClasses, known)
	}
	c, err := b.openClass(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, subject := range []string{b.subjects.generation(name), b.subjects.class(name)} {
		_, err := b.put(ctx, subject, 0, []byte{formMark})
		if err != nil && !errors.Is(err, errConflict) {
			return nil, err
		}
	}
	return c, nil
}

// openClass returns a class, and makes its stream if it is not there.
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

// forget closes all classes: their streams may be others after NATS was away.
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

// checkGeneration fails if the stream of a class has lost its messages. It has, if the
// message is gone that was stored when it was made: then numbers that were used in the
// current epoch may be forgotten, and another begins.
func (b *Broker) checkGeneration(ctx context.Context, c *class) error {
	subject := b.subjects.generation(c.name)
	msg, err := b.last(ctx, c.stream, subject)
	if errors.Is(err, errNone) {
		if err := b.beginEpoch(ctx); err != nil {
			return err
		}
		_, err = b.put(ctx, subject, 0, []byte{formMark})
		if err == nil || errors.Is(err, errConflict) {
			err = fmt.Errorf("%w: %w", broker.ErrAway, errEpoch)
		}
		return err
	}
	if err == nil && time.Since(msg.Time) > leastLife/4 {
		// Or its age would end it. If that fails, another node has done it.
		_, err = b.put(ctx, subject, msg.Sequence, []byte{formMark})
		if errors.Is(err, errConflict) {
			err = nil
		}
	}
	return err
}

// keepGenerations keeps the messages that checkGeneration looks for.
func (b *Broker) keepGenerations(ctx context.Context) {
	for _, name := range b.classNames() {
		c, err := b.openClass(ctx, name)
		if err == nil {
			_ = b.checkGeneration(ctx, c) // what it fails for is seen by whoever appends
		}
	}
}

var errEpoch = errors.New("nats: another epoch begins, because messages were lost")
