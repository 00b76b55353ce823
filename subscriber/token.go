package subscriber

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/gopushy/pushy/internal/sign"
	"github.com/gopushy/pushy/internal/token"
)

const (
	tokenTimeout = 10 * time.Second
	maxTokens    = 100 // channels of one call of Token
)

// TokenFunc returns the tokens of channels, by their names in TokenRequest.Channels. It is called
// without a lock, also concurrently, and has 10 s: what it returns later does not count. A channel
// without a Token is denied. If the error, or Token.Err, is ErrDenied, the channel's Subscription ends;
// after another error, or a panic, the TokenFunc is called again after a pause that grows.
//
// Tokens of version 2 are renewed between 75 and 90 % of their life, and the subscription goes on. If
// that is refused, it goes on until the server ends it.
type TokenFunc func(ctx context.Context, r TokenRequest) (map[string]Token, error)

// TokenRequest says for what tokens are needed.
type TokenRequest struct {
	ConnID   string                     // the socketId of the connection
	Channels []string                   // at most 100, in lower case
	Data     map[string]json.RawMessage // of SubscribeOptions.Data, for channels that have it
}

// Token is the token of a channel (PROTOCOL.md, section 6).
type Token struct {
	Auth string
	Data json.RawMessage // the presence data that it covers; nil: that of SubscribeOptions.Data
	Err  error           // instead of a token

	asked  time.Time
	public bool // the channel needs none
}

// life returns how long a token of version 2 is valid, or 0 if it does not expire.
func (t Token) life() time.Duration {
	parts := strings.Split(t.Auth, ".")
	if len(parts) != 4 {
		return 0
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[2])
	var times struct{ Iat, Exp int64 }
	if err != nil || json.Unmarshal(claims, &times) != nil || times.Exp <= times.Iat {
		return 0
	}
	return time.Duration(times.Exp-times.Iat) * time.Second
}

// SignWith returns a TokenFunc for trusted processes that have the secret key of the server. It signs
// tokens that are valid as long as the connection.
func SignWith(secretKey string) TokenFunc {
	return func(_ context.Context, r TokenRequest) (map[string]Token, error) {
		tokens := map[string]Token{}
		for _, channel := range r.Channels {
			spec := token.Spec{
				Channels: []string{channel},
				Conn:     r.ConnID,
			}
			data := r.Data[channel]
			if data != nil {
				spec.Data = data
			}
			auth, err := spec.Sign(secretKey, time.Now())
			if err != nil { // data that a token of version 2 cannot have, such as 8 KiB
				auth, err = sign.Token(secretKey, r.ConnID, channel, data)
			}
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrDenied, err)
			}
			tokens[channel] = Token{
				Auth: auth,
				Err:  err,
			}
		}
		return tokens, nil
	}
}

// askAllLocked subscribes to all channels, after a connect.
func (c *Client) askAllLocked() {
	var all []*Subscription
	for _, channel := range slices.Sorted(maps.Keys(c.subs)) {
		all = append(all, c.subs[channel])
	}
	c.askLocked(all...)
}

// askLocked subscribes to channels, of those that are idle, if there is a connection.
func (c *Client) askLocked(subs ...*Subscription) {
	k := c.conn
	if k == nil || c.err != nil {
		return
	}
	var without []*Subscription
	for _, s := range subs {
		if s.status != idle {
			continue
		}
		s.setLocked(asking)
		if s.private && c.o.Token != nil {
			without = append(without, s)
		} else {
			s.subscribeLocked(k)
		}
	}
	c.tokensLocked(k, without, func(s *Subscription, t Token) {
		switch {
		case errors.Is(t.Err, ErrDenied):
			s.endLocked(t.Err)
		case t.Err != nil:
			s.failures++
		default:
			s.token = t
			s.subscribeLocked(k)
		}
	}, c.retryLocked)
}

// retryLocked subscribes to channels again after a pause, in one batch.
func (c *Client) retryLocked(k *conn, subs []*Subscription) {
	turns := make([]int, 0, len(subs))
	failures := 1
	for _, s := range subs {
		turns = append(turns, s.turn)
		failures = max(failures, s.failures)
	}
	b := backoff{
		min: c.o.MinDelay,
		max: c.o.MaxDelay,
	}
	c.afterLocked(k, rand.N(b.bound(failures)), func() {
		for i, s := range subs {
			if s.turn == turns[i] {
				s.setLocked(idle)
			}
		}
		c.askLocked(subs...)
	})
}

// afterLocked calls do with the lock, unless the connection ends before.
func (c *Client) afterLocked(k *conn, pause time.Duration, do func()) {
	c.tasks.Go(func() {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-k.done:
			return
		case <-c.ctx.Done():
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.conn == k && c.err == nil {
			do()
		}
	})
}

// tokensLocked calls Token for Subscriptions, and then use with the token of each, and again with those
// whose token is to be asked for again, all with the lock. Both are not called for a Subscription that
// has changed meanwhile.
func (c *Client) tokensLocked(k *conn, subs []*Subscription, use func(s *Subscription, t Token),
	again func(k *conn, subs []*Subscription)) {
	for chunk := range slices.Chunk(subs, maxTokens) {
		turns := map[*Subscription]int{}
		r := TokenRequest{
			ConnID: k.id,
			Data:   map[string]json.RawMessage{},
		}
		for _, s := range chunk {
			turns[s] = s.turn
			r.Channels = append(r.Channels, s.channel)
			if s.data != nil {
				r.Data[s.channel] = s.data
			}
		}
		c.tasks.Go(func() {
			asked := time.Now()
			tokens, err := c.callToken(r)
			if err != nil {
				c.o.Logger.Warn("pushy: no tokens for channels", "channels", len(r.Channels), "error", err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.conn != k || c.err != nil {
				return
			}
			var failed []*Subscription
			for _, s := range chunk {
				if s.turn != turns[s] {
					continue
				}
				t, is := tokens[s.channel]
				t.asked = asked
				switch {
				case err != nil:
					t.Err = err
				case !is || t.Auth == "" && t.Err == nil && !t.public:
					t.Err = fmt.Errorf("%w: there is no token for %s", ErrDenied, s.channel)
				}
				use(s, t)
				if t.Err != nil && !errors.Is(t.Err, ErrDenied) {
					failed = append(failed, s)
				}
			}
			if len(failed) > 0 {
				again(k, failed)
			}
		})
	}
}

// callToken calls Options.Token, for at most tokenTimeout.
func (c *Client) callToken(r TokenRequest) (map[string]Token, error) {
	ctx, cancel := context.WithTimeout(c.ctx, tokenTimeout)
	defer cancel()
	type result struct {
		tokens map[string]Token
		err    error
	}
	returned := make(chan result, 1)
	go func() {
		got := result{err: errors.New("runtime.Goexit")}
		defer func() {
			if p := recover(); p != nil {
				got.err = fmt.Errorf("subscriber: Options.Token panicked: %v", p)
			}
			returned <- got
		}()
		got.tokens, got.err = c.o.Token(ctx, r)
	}()
	select {
	case got := <-returned:
		return got.tokens, got.err
	case <-ctx.Done():
		return nil, fmt.Errorf("subscriber: Options.Token: %w", ctx.Err())
	}
}

// renewal is when the token of a Subscription is renewed.
type renewal struct {
	from, at, end time.Time // between from and at; zero if the token does not expire
	timer         *time.Timer
}

func (r *renewal) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
	*r = renewal{}
}

// renewLocked plans the renewal of the token with which the channel is live. expires is that of the
// server, in Unix milliseconds, or 0.
func (s *Subscription) renewLocked(expires int64) {
	s.renewal.stop()
	if s.status != live || s.token.Auth == "" {
		return
	}
	life := s.token.life()
	if life == 0 && expires > 0 {
		life = time.UnixMilli(expires).Sub(s.token.asked)
	}
	if life <= 0 {
		return
	}
	s.renewal.from = s.token.asked.Add(life * 3 / 4)
	s.renewal.end = s.token.asked.Add(life)
	s.renewAtLocked(s.renewal.from.Add(rand.N(life*15/100 + 1)))
}

func (s *Subscription) renewAtLocked(at time.Time) {
	s.renewal.at = at
	s.renewal.timer = time.AfterFunc(time.Until(at), s.c.renew)
}

// renew renews all tokens that are old enough, if the time of one has come.
func (c *Client) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.conn
	if k == nil || c.err != nil {
		return
	}
	now := time.Now()
	var old []*Subscription
	due := false
	for _, s := range c.subs {
		if s.status == live && !s.renewal.at.IsZero() && !now.Before(s.renewal.from) {
			old = append(old, s)
			due = due || !now.Before(s.renewal.at)
		}
	}
	if !due {
		return
	}
	for _, s := range old {
		s.renewal.timer.Stop()
		s.renewal.at = time.Time{}
	}
	c.tokensLocked(k, old, func(s *Subscription, t Token) {
		if t.Err == nil {
			s.refreshLocked(k, t)
		}
	}, func(_ *conn, subs []*Subscription) {
		for _, s := range subs {
			if left := time.Until(s.renewal.end); left > 0 {
				s.renewAtLocked(time.Now().Add(max(left/10, time.Second)))
			}
		}
	})
}

// refreshLocked sends a new token. If it is refused, the subscription goes on until the server ends it.
func (s *Subscription) refreshLocked(k *conn, t Token) {
	turn := s.turn
	data := map[string]any{
		"channel": s.channel,
		"auth":    t.Auth,
	}
	if t.Data != nil {
		data["data"] = t.Data
	} else if s.data != nil {
		data["data"] = s.data
	}
	k.callLocked("pushy:refresh", data, func(m *message, err error) {
		switch {
		case s.turn != turn || err != nil:
		case m.Event == "pushy:error":
			s.c.o.Logger.Warn("pushy: a new token is refused", "channel", s.channel, "error", m.err())
		default:
			var answer struct{ Expires int64 }
			_ = json.Unmarshal(m.fields.Data, &answer)
			s.token = t
			s.renewLocked(answer.Expires)
		}
	})
}
