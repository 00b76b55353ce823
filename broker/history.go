package broker

import "context"

// History is an optional interface of a Broker that keeps events. The nodes of a Broker
// without it treat every Keep as zero.
type History interface {
	// Read returns kept events of a channel, oldest first. If r.Epoch is not the epoch of
	// the log, it returns ErrEpoch and a Page that has only First and Top.
	Read(ctx context.Context, channel string, r Range) (Page, error)
	// Tops returns the position of the last kept event of each channel.
	Tops(ctx context.Context, channels []string) ([]Position, error)
	// Forget removes all kept events of a channel and begins a new epoch.
	Forget(ctx context.Context, channel string) error
}

// Range selects kept events.
type Range struct {
	// Epoch is the epoch of After or Before. "" matches any log.
	Epoch string
	// After selects events with a higher offset, beginning with the lowest.
	After uint64
	// Before, if it is not 0, selects events with a lower offset instead, beginning with
	// the highest. They are returned oldest first, too.
	Before uint64
	// Limit is the maximum number of events that are returned. It is positive.
	Limit int
	// Bytes limits the data of the returned events; 0 is unlimited. The first event is
	// returned even if it is larger.
	Bytes int
}

// Page is the result of Read.
type Page struct {
	Entries []Entry
	// First is the lowest offset that is still kept. If no event is kept, it is Top.Offset
	// + 1.
	First uint64
	// Top is the position of the last event that was appended, even if that event is no
	// longer kept.
	Top Position
	// More reports whether Limit or Bytes left out further events.
	More bool
}
