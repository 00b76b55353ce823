package hub

import (
	"context"
	"errors"
	"sync"
	"time"
)

// JoinAllError is the error of JoinAll: the join of one channel has failed.
type JoinAllError struct {
	Channel string
	Err     error // as Join returns it
}

func (e *JoinAllError) Error() string { return e.Channel + ": " + e.Err.Error() }

func (e *JoinAllError) Unwrap() error { return e.Err }

// JoinAll joins several channels. Their authorizations are asked for at the same time, and must all
// be decided within timeout. Only then is the first channel joined, and a refusal leaves the
// connection in none. The result has what the Subscribed event of each channel says about the past,
// or nil. If a join fails after the authorizations, the connection can be in some of the channels,
// and the caller must close it. If several joins fail, the error is that of the first one that cannot
// succeed later, or else the first one. It is a *JoinAllError.
func (c *Conn) JoinAll(requests []JoinRequest, timeout time.Duration) ([]*PastAnswer, error) {
	permits := make([]permit, len(requests))
	ctx, cancel := context.WithTimeout(&c.ctx, timeout)
	defer cancel()
	err := c.forAll(requests, ctx.Done(), func(i int, r *JoinRequest) (err error) {
		permits[i], err = c.permit(ctx, r)
		if errors.Is(err, ErrClosed) && c.ctx.Err() == nil { // the Authorizer has noticed the end of ctx
			err = &UnavailableError{}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	answers := make([]*PastAnswer, len(requests))
	err = c.forAll(requests, nil, func(i int, r *JoinRequest) (err error) {
		answers[i], err = c.joinPermitted(r, permits[i])
		return err
	})
	return answers, err
}

// forAll calls do for each of the requests at the same time. Those that have not returned when
// expired is closed are unavailable, or have the error ErrClosed if the connection has ended; what they
// write later is not used.
func (c *Conn) forAll(requests []JoinRequest, expired <-chan struct{}, do func(i int, r *JoinRequest) error) error {
	var mu sync.Mutex
	errs := make([]error, len(requests))
	returned := make([]bool, len(requests))
	var running sync.WaitGroup
	for i := range requests {
		if !c.hub.serving.Start() {
			return &JoinAllError{
				Channel: requests[i].Channel,
				Err:     ErrClosed,
			}
		}
		running.Go(func() {
			defer c.hub.serving.End()
			err := do(i, &requests[i])
			mu.Lock()
			errs[i] = err
			returned[i] = true
			mu.Unlock()
		})
	}
	all := make(chan struct{})
	go func() {
		running.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-expired:
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range errs {
		switch {
		case returned[i]:
		case c.ctx.Err() != nil:
			errs[i] = ErrClosed
		default:
			errs[i] = &UnavailableError{}
		}
	}
	return c.failure(requests, errs)
}

// failure counts the joins that have failed, and returns the error of JoinAll.
func (c *Conn) failure(requests []JoinRequest, errs []error) error {
	var first *JoinAllError
	for i, err := range errs {
		if err == nil {
			continue
		}
		c.hub.counts.joins.Add(joinOutcome(err))
		c.hub.logRefusal(requests[i].Channel, err)
		if first == nil || temporary(first.Err) && !temporary(err) {
			first = &JoinAllError{
				Channel: requests[i].Channel,
				Err:     err,
			}
		}
	}
	if first == nil {
		return nil
	}
	return first
}

// temporary reports whether a join that has failed can succeed later.
func temporary(err error) bool {
	var unavailable *UnavailableError
	return errors.As(err, &unavailable) || errors.Is(err, ErrClosed) || errors.Is(err, ErrChannelFull)
}
