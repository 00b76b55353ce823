package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/broker/brokertest"
	"github.com/gopushy/pushy/broker/memory"
)

// maxBytes is the limit of limited.
const maxBytes = 16 << 10

// limited is a memory broker with all abilities that the rules need.
type limited struct{ *memory.Broker }

func (l limited) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if len(e.Data) > maxBytes {
		return broker.Appended{}, broker.ErrTooLarge
	}
	return l.Broker.Append(ctx, channel, e)
}

// flawed is limited with one deliberate flaw: each func that is set replaces a
// method, and may call the method of next.
type flawed struct {
	limited
	next limited
	node string

	open     func(f *flawed, o *broker.OpenOptions)
	sink     func(f *flawed, next broker.Sink) broker.Sink
	follow   func(ctx context.Context, f *flawed, channel string) (broker.State, error)
	unfollow func(ctx context.Context, f *flawed, channel string) error
	append   func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error)
	close    func(ctx context.Context, f *flawed) error
	read     func(ctx context.Context, f *flawed, channel string, r broker.Range) (broker.Page, error)
	tops     func(ctx context.Context, f *flawed, channels []string) ([]broker.Position, error)
	forget   func(ctx context.Context, f *flawed, channel string) error
	cut      func(f *flawed) func()
	nodes    func(ctx context.Context, f *flawed) ([]string, error)
	extend   func(ctx context.Context, f *flawed, lease time.Duration) error
	claim    func(ctx context.Context, f *flawed, key, digest string, ttl time.Duration) (broker.Claim, error)
	finish   func(ctx context.Context, f *flawed, key, digest string, answer []byte) error
	ids      func(ctx context.Context, f *flawed, ids []broker.EntryID) error
	list     func(ctx context.Context, f *flawed, prefix string) ([]broker.Record, error)
}

func (f *flawed) Open(ctx context.Context, o broker.OpenOptions, sink broker.Sink) error {
	f.node = o.Node
	if f.open != nil {
		f.open(f, &o)
	}
	if f.sink != nil {
		sink = f.sink(f, sink)
	}
	return f.next.Open(ctx, o, sink)
}

func (f *flawed) Follow(ctx context.Context, channel string) (broker.State, error) {
	if f.follow != nil {
		return f.follow(ctx, f, channel)
	}
	return f.next.Follow(ctx, channel)
}

func (f *flawed) Unfollow(ctx context.Context, channel string) error {
	if f.unfollow != nil {
		return f.unfollow(ctx, f, channel)
	}
	return f.next.Unfollow(ctx, channel)
}

func (f *flawed) Append(ctx context.Context, channel string, e broker.Entry) (broker.Appended, error) {
	if f.append != nil {
		return f.append(ctx, f, channel, e)
	}
	return f.next.Append(ctx, channel, e)
}

func (f *flawed) Close(ctx context.Context) error {
	if f.close != nil {
		return f.close(ctx, f)
	}
	return f.next.Close(ctx)
}

func (f *flawed) Read(ctx context.Context, channel string, r broker.Range) (broker.Page, error) {
	if f.read != nil {
		return f.read(ctx, f, channel, r)
	}
	return f.next.Read(ctx, channel, r)
}

func (f *flawed) Tops(ctx context.Context, channels []string) ([]broker.Position, error) {
	if f.tops != nil {
		return f.tops(ctx, f, channels)
	}
	return f.next.Tops(ctx, channels)
}

func (f *flawed) Forget(ctx context.Context, channel string) error {
	if f.forget != nil {
		return f.forget(ctx, f, channel)
	}
	return f.next.Forget(ctx, channel)
}

func (f *flawed) Cut() func() {
	if f.cut != nil {
		return f.cut(f)
	}
	return f.next.Cut()
}

func (f *flawed) Nodes(ctx context.Context) ([]string, error) {
	if f.nodes != nil {
		return f.nodes(ctx, f)
	}
	return f.next.Nodes(ctx)
}

func (f *flawed) Extend(ctx context.Context, lease time.Duration) error {
	if f.extend != nil {
		return f.extend(ctx, f, lease)
	}
	return f.next.Extend(ctx, lease)
}

func (f *flawed) Claim(ctx context.Context, key, digest string, ttl time.Duration) (broker.Claim, error) {
	if f.claim != nil {
		return f.claim(ctx, f, key, digest, ttl)
	}
	return f.next.Claim(ctx, key, digest, ttl)
}

func (f *flawed) Finish(ctx context.Context, key, digest string, answer []byte) error {
	if f.finish != nil {
		return f.finish(ctx, f, key, digest, answer)
	}
	return f.next.Finish(ctx, key, digest, answer)
}

func (f *flawed) ForgetIDs(ctx context.Context, ids []broker.EntryID) error {
	if f.ids != nil {
		return f.ids(ctx, f, ids)
	}
	return f.next.ForgetIDs(ctx, ids)
}

func (f *flawed) List(ctx context.Context, prefix string) ([]broker.Record, error) {
	if f.list != nil {
		return f.list(ctx, f, prefix)
	}
	return f.next.List(ctx, prefix)
}

// sinkFunc is a Sink whose Deliver is changed.
type sinkFunc struct {
	broker.Sink
	deliver func(next broker.Sink, channel string, e broker.Entry)
}

func (s sinkFunc) Deliver(channel string, e broker.Entry) { s.deliver(s.Sink, channel, e) }

// delivering returns a flaw that changes deliveries.
func delivering(deliver func(next broker.Sink, channel string, e broker.Entry)) func(f *flawed) {
	return func(f *flawed) {
		f.sink = func(_ *flawed, next broker.Sink) broker.Sink { return sinkFunc{next, deliver} }
	}
}

// changing returns a flaw that changes every entry of a kind on delivery.
func changing(kind broker.Kind, change func(e *broker.Entry)) func(f *flawed) {
	return delivering(func(next broker.Sink, channel string, e broker.Entry) {
		if e.Kind == kind {
			change(&e)
		}
		next.Deliver(channel, e)
	})
}

// swapping returns a flaw that swaps some of the entries that match with the next one.
func swapping(matches func(e broker.Entry) bool) func(f *flawed) {
	return func(f *flawed) {
		var mu sync.Mutex
		var held *broker.Entry
		count := 0
		f.sink = func(_ *flawed, next broker.Sink) broker.Sink {
			return sinkFunc{next, func(next broker.Sink, channel string, e broker.Entry) {
				mu.Lock()
				defer mu.Unlock()
				if !matches(e) {
					next.Deliver(channel, e)
					return
				}
				count++
				if held == nil && count%10 == 5 {
					held = &e
					return
				}
				next.Deliver(channel, e)
				if held != nil {
					next.Deliver(channel, *held)
					held = nil
				}
			}}
		}
	}
}

// state returns a flaw that changes the State that Follow returns.
func state(change func(s *broker.State)) func(f *flawed) {
	return func(f *flawed) {
		f.follow = func(ctx context.Context, f *flawed, channel string) (broker.State, error) {
			s, err := f.next.Follow(ctx, channel)
			change(&s)
			return s, err
		}
	}
}

// page returns a flaw that changes the Page that Read returns.
func page(change func(p *broker.Page)) func(f *flawed) {
	return func(f *flawed) {
		f.read = func(ctx context.Context, f *flawed, channel string, r broker.Range) (broker.Page, error) {
			p, err := f.next.Read(ctx, channel, r)
			change(&p)
			return p, err
		}
	}
}

// entry returns a flaw that changes the entry that is appended.
func entry(change func(e *broker.Entry)) func(f *flawed) {
	return func(f *flawed) {
		f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
			change(&e)
			return f.next.Append(ctx, channel, e)
		}
	}
}

// result returns a flaw that changes what Append returns.
func result(change func(e broker.Entry, a *broker.Appended, err *error)) func(f *flawed) {
	return func(f *flawed) {
		f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
			a, err := f.next.Append(ctx, channel, e)
			change(e, &a, &err)
			return a, err
		}
	}
}

// flaw is a defect and the rules that must find it. Other rules may find it, too.
type flaw struct {
	name  string
	rules []string
	make  func(f *flawed)
}

func isEvent(e broker.Entry) bool  { return e.Kind == broker.Event }
func isMember(e broker.Entry) bool { return e.Kind != broker.Event }

func eventFlaws() []flaw {
	return []flaw{
		{"loses Except", []string{"everyone"}, changing(broker.Event, func(e *broker.Entry) { e.Except = nil })},
		{"loses From", []string{"everyone"}, changing(broker.Event, func(e *broker.Entry) { e.From = "" })},
		{"delivers twice", []string{"everyone", "order", "once"}, delivering(func(next broker.Sink, channel string, e broker.Entry) {
			next.Deliver(channel, e)
			next.Deliver(channel, e)
		})},
		{"drops an event", []string{"everyone"}, func(f *flawed) {
			var n atomic.Int64
			delivering(func(next broker.Sink, channel string, e broker.Entry) {
				if n.Add(1)%3 != 0 {
					next.Deliver(channel, e)
				}
			})(f)
		}},
		{"reorders events", []string{"order", "keptOrder"}, swapping(isEvent)},
		{"folds names", []string{"names"}, func(f *flawed) {
			fold := strings.ToLower
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				return f.next.Append(ctx, fold(channel), e)
			}
			f.follow = func(ctx context.Context, f *flawed, channel string) (broker.State, error) {
				return f.next.Follow(ctx, fold(channel))
			}
		}},
		{"does not unfollow", []string{"unfollow", "followTwice"}, func(f *flawed) {
			f.unfollow = func(_ context.Context, f *flawed, _ string) error { return nil }
		}},
		{"says None", []string{"receivers"}, result(func(_ broker.Entry, a *broker.Appended, _ *error) { a.Receivers = broker.None })},
		{"says Some", []string{"receivers"}, result(func(_ broker.Entry, a *broker.Appended, _ *error) { a.Receivers = broker.Some })},
		{"reuses the bytes", []string{"bytes"}, func(f *flawed) {
			buffer := make([]byte, 256)
			delivering(func(next broker.Sink, channel string, e broker.Entry) {
				e.Data = buffer[:copy(buffer, e.Data)]
				next.Deliver(channel, e)
			})(f)
		}},
		{"changes the caller's bytes", []string{"bytes"}, entry(func(e *broker.Entry) {
			own := slices.Clone(e.Data)
			if len(e.Data) > 0 {
				e.Data[0] = '['
			}
			e.Data = own
		})},
		{"calls concurrently", []string{"serial"}, delivering(func(next broker.Sink, channel string, e broker.Entry) {
			go next.Deliver(channel, e)
		})},
		{"ignores contexts", []string{"context"}, func(f *flawed) {
			f.append = func(_ context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				return f.next.Append(context.Background(), channel, e)
			}
			f.follow = func(_ context.Context, f *flawed, channel string) (broker.State, error) {
				return f.next.Follow(context.Background(), channel)
			}
		}},
		{"stays open", []string{"close"}, func(f *flawed) {
			f.close = func(context.Context, *flawed) error { return nil }
		}},
		{"hangs once closed", []string{"close"}, func(f *flawed) {
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				a, err := f.next.Append(ctx, channel, e)
				if errors.Is(err, broker.ErrClosed) {
					<-ctx.Done()
				}
				return a, err
			}
		}},
		{"counts follows", []string{"followTwice"}, func(f *flawed) {
			follows := map[string]int{}
			f.follow = func(ctx context.Context, f *flawed, channel string) (broker.State, error) {
				follows[channel]++
				return f.next.Follow(ctx, channel)
			}
			f.unfollow = func(ctx context.Context, f *flawed, channel string) error {
				follows[channel]--
				if follows[channel] > 0 {
					return nil
				}
				return f.next.Unfollow(ctx, channel)
			}
		}},
		{"follows late", []string{"churn"}, func(f *flawed) {
			f.follow = func(ctx context.Context, f *flawed, channel string) (broker.State, error) {
				time.AfterFunc(time.Millisecond, func() { _, _ = f.next.Follow(context.WithoutCancel(ctx), channel) })
				return broker.State{}, nil
			}
		}},
		{"drops what is too large", []string{"tooLarge"}, result(func(_ broker.Entry, _ *broker.Appended, err *error) {
			if errors.Is(*err, broker.ErrTooLarge) {
				*err = nil
			}
		})},
		{"ignores IDs", []string{"once"}, entry(func(e *broker.Entry) { e.ID = "" })},
		{"never forgets IDs", []string{"forgetIDs"}, func(f *flawed) {
			f.ids = func(context.Context, *flawed, []broker.EntryID) error { return nil }
		}},
		{"forgets an ID in all channels", []string{"forgetIDs"}, func(f *flawed) {
			f.ids = func(ctx context.Context, f *flawed, ids []broker.EntryID) error {
				for _, id := range ids {
					id.Channel = "chat"
					ids = append(ids, id)
				}
				return f.next.ForgetIDs(ctx, ids)
			}
		}},
		{"does not say that it repeats", []string{"once"}, result(func(_ broker.Entry, a *broker.Appended, _ *error) { a.Duplicate = false })},
		{"has one window for all channels", []string{"once"}, func(f *flawed) {
			var mu sync.Mutex
			seen := map[string]bool{}
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				mu.Lock()
				defer mu.Unlock()
				if e.ID != "" && seen[e.ID] {
					return broker.Appended{Duplicate: true}, nil
				}
				seen[e.ID] = true
				return f.next.Append(ctx, channel, e)
			}
		}},
	}
}

func historyFlaws() []flaw {
	return []flaw{
		{"loses Prev", []string{"keptOrder"}, changing(broker.Event, func(e *broker.Entry) { e.Prev = 0 })},
		{"loses the time", []string{"keptOrder"}, changing(broker.Event, func(e *broker.Entry) { e.Time = time.Time{} })},
		{"an empty epoch", []string{"empty"}, state(func(s *broker.State) { s.At.Epoch = "" })},
		{"begins at 1", []string{"empty"}, state(func(s *broker.State) { s.At.Offset++ })},
		{"keeps one more", []string{"size"}, entry(func(e *broker.Entry) { e.Keep.Size++ })},
		{"keeps for ever", []string{"ttl"}, entry(func(e *broker.Entry) { e.Keep.TTL *= 1000 })},
		{"keeps all bytes", []string{"keepBytes"}, entry(func(e *broker.Entry) { e.Keep.Bytes = 0 })},
		{"never says More", []string{"read"}, page(func(p *broker.Page) { p.More = false })},
		{"newest first", []string{"read", "keptOrder"}, page(func(p *broker.Page) { slices.Reverse(p.Entries) })},
		{"First is 1", []string{"size", "read"}, page(func(p *broker.Page) { p.First = 1 })},
		{"After is inclusive", []string{"read"}, func(f *flawed) {
			f.read = func(ctx context.Context, f *flawed, channel string, r broker.Range) (broker.Page, error) {
				if r.After > 0 {
					r.After--
				}
				return f.next.Read(ctx, channel, r)
			}
		}},
		{"ignores Bytes", []string{"read"}, func(f *flawed) {
			f.read = func(ctx context.Context, f *flawed, channel string, r broker.Range) (broker.Page, error) {
				r.Bytes = 0
				return f.next.Read(ctx, channel, r)
			}
		}},
		{"reads any epoch", []string{"readEpoch"}, func(f *flawed) {
			f.read = func(ctx context.Context, f *flawed, channel string, r broker.Range) (broker.Page, error) {
				r.Epoch = ""
				return f.next.Read(ctx, channel, r)
			}
		}},
		{"sorts Tops", []string{"tops"}, func(f *flawed) {
			f.tops = func(ctx context.Context, f *flawed, channels []string) ([]broker.Position, error) {
				return f.next.Tops(ctx, slices.Sorted(slices.Values(channels)))
			}
		}},
		{"keeps all", []string{"notKept"}, entry(func(e *broker.Entry) {
			if e.Kind == broker.Event {
				e.Keep = broker.Keep{Size: 1000, TTL: time.Hour}
			}
		})},
		{"has an old State", []string{"noHole"}, state(func(s *broker.State) {
			s.At.Offset -= min(s.At.Offset, 1)
		})},
		{"forgets in silence", []string{"forget"}, func(f *flawed) {
			f.sink = func(_ *flawed, next broker.Sink) broker.Sink { return noReset{next} }
		}},
		{"does not forget", []string{"forget"}, func(f *flawed) {
			f.forget = func(context.Context, *flawed, string) error { return nil }
		}},
		{"writes on Follow", []string{"readsWriteNothing", "empty"}, func(f *flawed) {
			f.follow = func(ctx context.Context, f *flawed, channel string) (broker.State, error) {
				_, _ = f.next.Append(ctx, channel, broker.Entry{Kind: broker.Event, Event: "x", Keep: broker.Keep{Size: 10, TTL: time.Hour}})
				return f.next.Follow(ctx, channel)
			}
		}},
	}
}

type noReset struct{ broker.Sink }

func (noReset) Reset(string, broker.State, string) {}

func memberFlaws() []flaw {
	return []flaw{
		{"loses members' data", []string{"members", "adopt"}, state(func(s *broker.State) {
			for i := range s.Members {
				s.Members[i].Data = nil
			}
		})},
		{"loses members' states", []string{"members"}, state(func(s *broker.State) {
			for i := range s.Members {
				s.Members[i].State = nil
			}
		})},
		{"does not deliver states", []string{"members"}, changing(broker.Update, func(e *broker.Entry) { e.State = nil })},
		{"loses members' users", []string{"members"}, state(func(s *broker.State) {
			for i := range s.Members {
				s.Members[i].User = ""
			}
		})},
		{"loses when members joined", []string{"members"}, state(func(s *broker.State) {
			for i := range s.Members {
				s.Members[i].Joined = time.Time{}
			}
		})},
		{"disorders members", []string{"members", "adopt"}, state(func(s *broker.State) { slices.Reverse(s.Members) })},
		{"loses an update", []string{"members"}, delivering(func(next broker.Sink, channel string, e broker.Entry) {
			if e.Kind != broker.Update {
				next.Deliver(channel, e)
			}
		})},
		{"reorders members", []string{"oneOrder"}, swapping(isMember)},
		{"hides ErrNotOwner", []string{"ownership", "adoptedStays", "stopped"}, result(func(_ broker.Entry, _ *broker.Appended, err *error) {
			if errors.Is(*err, broker.ErrNotOwner) {
				*err = nil
			}
		})},
		{"lets anybody leave", []string{"ownership", "adoptedStays"}, func(f *flawed) {
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				a, err := f.next.Append(ctx, channel, e)
				if e.Kind != broker.Leave || !errors.Is(err, broker.ErrNotOwner) {
					return a, err
				}
				for _, owner := range []string{"o1", "o2", "o3"} {
					e.Owner = owner
					if a, err = f.next.Append(ctx, channel, e); err == nil {
						break
					}
				}
				return a, err
			}
		}},
		{"joins twice", []string{"joinTwice"}, result(func(_ broker.Entry, a *broker.Appended, _ *error) { a.Duplicate = false })},
		{"replaces a member", []string{"joinTwice"}, result(func(_ broker.Entry, _ *broker.Appended, err *error) {
			if errors.Is(*err, broker.ErrMemberExists) {
				*err = nil
			}
		})},
		{"adopts by leaving", []string{"adopt", "adoptedStays"}, func(f *flawed) {
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				if e.Kind != broker.Adopt {
					return f.next.Append(ctx, channel, e)
				}
				_, err := f.next.Append(ctx, channel, broker.Entry{Kind: broker.Leave, Member: e.Member, Owner: e.OldOwner})
				if err != nil {
					return broker.Appended{}, err
				}
				return f.next.Append(ctx, channel, broker.Entry{Kind: broker.Join, Member: e.Member, Owner: e.Owner})
			}
		}},
		{"is never on", []string{"on"}, state(func(s *broker.State) { s.On = false })},
		{"is always on", []string{"on"}, state(func(s *broker.State) { s.On = true })},
		{"is on by who is in", []string{"on"}, state(func(s *broker.State) {
			s.On = slices.ContainsFunc(s.Members, func(m broker.Member) bool { return m.Data != nil })
		})},
		{"tears the State", []string{"snapshot"}, state(func(s *broker.State) {
			if len(s.Members) > 0 {
				s.Members = s.Members[1:]
			} else {
				s.Revision.Offset++
			}
		})},
		{"leaves every channel", []string{"channels"}, func(f *flawed) {
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				if e.Kind == broker.Leave {
					other := e
					other.Owner = "o2"
					_, _ = f.next.Append(ctx, "b", other)
				}
				return f.next.Append(ctx, channel, e)
			}
		}},
		{"wants a follow", []string{"unfollowed"}, func(f *flawed) {
			followed := sync.Map{}
			f.follow = func(ctx context.Context, f *flawed, channel string) (broker.State, error) {
				followed.Store(channel, true)
				return f.next.Follow(ctx, channel)
			}
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				if _, ok := followed.Load(channel); !ok {
					return broker.Appended{}, nil
				}
				return f.next.Append(ctx, channel, e)
			}
		}},
	}
}

func faultFlaws() []flaw {
	const never = time.Hour
	return []flaw{
		{"has no lease", []string{"lease", "goodbye", "nodes"}, func(f *flawed) {
			f.open = func(_ *flawed, o *broker.OpenOptions) { o.Lease = never }
		}},
		{"has a short lease", []string{"lease", "goodbye", "blip"}, func(f *flawed) {
			f.open = func(_ *flawed, o *broker.OpenOptions) { o.Lease /= 10 }
		}},
		{"leaves twice", []string{"lease"}, delivering(func(next broker.Sink, channel string, e broker.Entry) {
			next.Deliver(channel, e)
			if e.Kind == broker.Leave {
				next.Deliver(channel, e)
			}
		})},
		{"leaves on Close", []string{"goodbye", "closedNode"}, func(f *flawed) {
			mine := sync.Map{}
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				if e.Kind == broker.Join {
					mine.Store(e.Member, broker.Entry{Kind: broker.Leave, Member: e.Member, Owner: e.Owner})
				}
				return f.next.Append(ctx, channel, e)
			}
			f.close = func(ctx context.Context, f *flawed) error {
				mine.Range(func(_, e any) bool {
					_, _ = f.next.Append(ctx, "room", e.(broker.Entry))
					return true
				})
				return f.next.Close(ctx)
			}
		}},
		{"does not move the lease", []string{"adoptedOutlives"}, func(f *flawed) {
			f.sink = func(f *flawed, next broker.Sink) broker.Sink {
				return sinkFunc{next, func(next broker.Sink, channel string, e broker.Entry) {
					next.Deliver(channel, e)
					if e.Kind == broker.Adopt {
						time.AfterFunc(time.Second, func() {
							_, _ = f.next.Append(context.Background(), channel, broker.Entry{Kind: broker.Leave, Member: e.Member, Owner: e.Owner})
						})
					}
				}}
			}
		}},
		{"comes back in silence", []string{"cut", "followAway", "blip", "stopped"}, func(f *flawed) {
			f.sink = func(_ *flawed, next broker.Sink) broker.Sink { return noReset{next} }
		}},
		{"does not say Away", []string{"cut"}, result(func(_ broker.Entry, _ *broker.Appended, err *error) {
			if errors.Is(*err, broker.ErrAway) {
				*err = errors.New("some error")
			}
		})},
		{"appends and is away", []string{"uncertain"}, result(func(_ broker.Entry, _ *broker.Appended, err *error) {
			if *err == nil {
				*err = fmt.Errorf("lost: %w", broker.ErrAway)
			}
		})},
		{"waits for the end of the outage", []string{"cut"}, func(f *flawed) {
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				a, err := f.next.Append(ctx, channel, e)
				if errors.Is(err, broker.ErrAway) {
					<-ctx.Done()
				}
				return a, err
			}
		}},
		{"forgets what was followed while away", []string{"followAway"}, func(f *flawed) {
			f.follow = func(ctx context.Context, f *flawed, channel string) (broker.State, error) {
				if err := f.next.Away(); err != nil {
					return broker.State{}, err
				}
				return f.next.Follow(ctx, channel)
			}
		}},
		{"follows what was given up", []string{"followAway"}, func(f *flawed) {
			f.unfollow = func(ctx context.Context, f *flawed, channel string) error {
				if f.next.Away() != nil {
					return nil
				}
				return f.next.Unfollow(ctx, channel)
			}
		}},
		{"lists the dead", []string{"nodes"}, func(f *flawed) {
			seen := map[string]bool{}
			f.nodes = func(ctx context.Context, f *flawed) ([]string, error) {
				list, err := f.next.Nodes(ctx)
				for _, id := range list {
					seen[id] = true
				}
				for id := range seen {
					if !slices.Contains(list, id) {
						list = append(list, id)
					}
				}
				slices.Sort(list)
				return list, err
			}
		}},
		{"lists closed nodes until their lease expires", []string{"closedNode"}, func(f *flawed) {
			f.close = func(ctx context.Context, f *flawed) error {
				f.next.Kill()
				return f.next.Close(ctx)
			}
		}},
		{"does not list itself", []string{"nodes", "closedNode"}, func(f *flawed) {
			f.nodes = func(ctx context.Context, f *flawed) ([]string, error) {
				list, err := f.next.Nodes(ctx)
				return slices.DeleteFunc(list, func(id string) bool { return id == f.node }), err
			}
		}},
		{"does not extend", []string{"extend", "extendedCut"}, func(f *flawed) {
			f.extend = func(context.Context, *flawed, time.Duration) error { return nil }
		}},
		{"extends too much", []string{"extend"}, func(f *flawed) {
			f.extend = func(ctx context.Context, f *flawed, lease time.Duration) error { return f.next.Extend(ctx, 3*lease) }
		}},
		{"extends the lease of an open node only", []string{"extend"}, func(f *flawed) {
			var long time.Duration
			f.extend = func(_ context.Context, _ *flawed, lease time.Duration) error {
				long = max(long, lease)
				return nil
			}
			f.cut = func(f *flawed) func() {
				_ = f.next.Extend(context.Background(), long)
				return f.next.Cut()
			}
		}},
		{"extends when it is away", []string{"extendedCut"}, func(f *flawed) {
			f.extend = func(ctx context.Context, f *flawed, lease time.Duration) error {
				_ = f.next.Extend(ctx, lease)
				return nil
			}
		}},
		{"forgets adoptions after two of its own leases", []string{"extend"}, func(f *flawed) {
			var mu sync.Mutex
			adopted := map[string]time.Time{}
			f.append = func(ctx context.Context, f *flawed, channel string, e broker.Entry) (broker.Appended, error) {
				mu.Lock()
				defer mu.Unlock()
				a, err := f.next.Append(ctx, channel, e)
				if e.Kind == broker.Adopt {
					adopted[e.Member] = time.Now()
				}
				if errors.Is(err, broker.ErrNotOwner) && e.Kind == broker.Join && time.Since(adopted[e.Member]) > 2*suite.Lease {
					err = nil
				}
				return a, err
			}
		}},
	}
}

func ledgerFlaws() []flaw {
	return []flaw{
		{"ignores digests", []string{"claims"}, func(f *flawed) {
			f.claim = func(ctx context.Context, f *flawed, key, _ string, ttl time.Duration) (broker.Claim, error) {
				return f.next.Claim(ctx, key, "d", ttl)
			}
		}},
		{"answers anybody's claim", []string{"claims"}, func(f *flawed) {
			f.finish = func(ctx context.Context, f *flawed, key, _ string, answer []byte) error {
				return f.next.Finish(ctx, key, "d", answer)
			}
		}},
		{"grants twice", []string{"claims", "claimRace"}, func(f *flawed) {
			f.claim = func(ctx context.Context, f *flawed, key, digest string, ttl time.Duration) (broker.Claim, error) {
				c, err := f.next.Claim(ctx, key, digest, ttl)
				if c.State == broker.Pending {
					c.State = broker.Claimed
				}
				return c, err
			}
		}},
		{"claims for ever", []string{"claimExpiry"}, func(f *flawed) {
			f.claim = func(ctx context.Context, f *flawed, key, digest string, ttl time.Duration) (broker.Claim, error) {
				return f.next.Claim(ctx, key, digest, ttl*1000)
			}
		}},
		{"forgets keys in use", []string{"claimUse"}, func(f *flawed) {
			f.claim = func(ctx context.Context, f *flawed, key, digest string, ttl time.Duration) (broker.Claim, error) {
				list, _ := f.next.List(ctx, key)
				for _, r := range list {
					if r.Key == key && r.Digest == digest && r.Answer != nil {
						return broker.Claim{State: broker.Finished, Answer: r.Answer}, nil
					}
				}
				return f.next.Claim(ctx, key, digest, ttl)
			}
		}},
		{"does not say that a claim replaces another one", []string{"claimAgain"}, func(f *flawed) {
			f.claim = func(ctx context.Context, f *flawed, key, digest string, ttl time.Duration) (broker.Claim, error) {
				c, err := f.next.Claim(ctx, key, digest, ttl)
				c.Again = false
				return c, err
			}
		}},
		{"says that all claims replace others", []string{"claimAgain"}, func(f *flawed) {
			f.claim = func(ctx context.Context, f *flawed, key, digest string, ttl time.Duration) (broker.Claim, error) {
				c, err := f.next.Claim(ctx, key, digest, ttl)
				c.Again = c.State == broker.Claimed
				return c, err
			}
		}},
		{"lists everything", []string{"list"}, func(f *flawed) {
			f.list = func(ctx context.Context, f *flawed, _ string) ([]broker.Record, error) {
				return f.next.List(ctx, "")
			}
		}},
		{"lists in disorder", []string{"list"}, func(f *flawed) {
			f.list = func(ctx context.Context, f *flawed, prefix string) ([]broker.Record, error) {
				list, err := f.next.List(ctx, prefix)
				slices.Reverse(list)
				return list, err
			}
		}},
	}
}

var suite = brokertest.Options{
	Lease:    time.Second,
	FakeTime: true, // of the bubbles of this test
	MaxBytes: maxBytes,
}

// check runs one rule against brokers of one cluster and returns its failures.
func check(t *testing.T, rule string, o brokertest.Options, change func(f *flawed)) (failures []string) {
	synctest.Test(t, func(t *testing.T) {
		cluster := memory.NewCluster(memory.Options{})
		r := &recorder{TB: t}
		failures = r.run(func(t testing.TB) {
			brokertest.Check(t, rule, o, func() broker.Broker {
				b := limited{cluster.Broker()}
				f := &flawed{limited: b, next: b}
				if change != nil {
					change(f)
				}
				return f
			})
		})
	})
	return failures
}

// Each rule passes for a broker without flaws, and finds its flaws.
func TestRules(t *testing.T) {
	t.Parallel()
	flaws := slices.Concat(eventFlaws(), historyFlaws(), memberFlaws(), faultFlaws(), ledgerFlaws())
	found := map[string]bool{}
	for _, w := range flaws {
		for _, rule := range w.rules {
			found[rule] = true
			t.Run(fmt.Sprintf("%s/%s", w.name, rule), func(t *testing.T) {
				t.Parallel()
				assert.NotEmpty(t, check(t, rule, suite, w.make), "the rule does not find the flaw")
			})
		}
	}
	for _, rule := range brokertest.Names() {
		assert.True(t, found[rule], "no flaw is made for %s", rule)
		t.Run("none/"+rule, func(t *testing.T) {
			t.Parallel()
			assert.Empty(t, check(t, rule, suite, nil))
		})
	}
}

// bare has none of the optional interfaces.
type bare struct{ broker.Broker }

// A rule that cannot run fails with a message.
func TestMissingAbilities(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{"read", "claims", "lease", "cut", "nodes"} {
		r := &recorder{TB: t}
		failures := r.run(func(t testing.TB) {
			brokertest.Check(t, rule, suite, func() broker.Broker { return bare{memory.New()} })
		})
		if assert.Len(t, failures, 1, rule) {
			assert.Contains(t, failures[0], "Options.NotHeld")
		}
	}
}
