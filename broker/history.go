package broker

import "context"

// History is an optional interface of a Broker. One without it keeps nothing:
// its nodes treat Keep as zero.
type History interface {
	// Read returns kept events of a channel, oldest first. It fails with
	// ErrEpoch, and a Page that has only First and Top, if r.Epoch is not the
	// log's.
	Read(ctx context.Context, channel string, r Range) (Page, error)
	// Tops returns the position of the last kept event of each channel.
	Tops(ctx context.Context, channels []string) ([]Position, error)
	// Forget removes all kept events of a channel and lets it begin a new epoch.
	Forget(ctx context.Context, channel string) error
}

// Range selects kept events.
type Range struct {
	// Epoch is that of After or Before. "" fits any log.
	Epoch string
	// After selects events with a higher offset, from the lowest on.
	After uint64
	// Before, if not 0, selects events with a lower offset instead, from the
	// highest down; they are returned oldest first all the same.
	Before uint64
	// Limit is how many events are returned at most. It is positive.
	Limit int
	// Bytes bounds the data of the returned events; 0 is unlimited. The first
	// event is returned whatever its size.
	Bytes int
}

// Page is what Read returns.
type Page struct {
	Entries []Entry
	// First is the lowest offset that is still kept. If nothing is kept it is
	// Top.Offset + 1.
	First uint64
	// Top is the position of the last event that was appended, kept or not any
	// more.
	Top Position
	// More reports whether further events were selected and left out because
	// of Limit or Bytes.
	More bool
}
