package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gopushy/pushy"
)

const (
	room       = "private-arena" // a presence channel: its members are the players
	maxPlayers = 24
	// absence is how long a player without a connection keeps the name and score.
	absence = time.Minute
)

// arenaEvents are the events of the arena. The page has their types from here.
type arenaEvents struct {
	Board view `json:"board"`
}

var _ pushy.Events[arenaEvents]

//go:generate go run ../../cmd/pushy-types -type face,moveReply -o web/events.d.ts .

// face is the presence data of a player: what the others see.
type face struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Hue  int    `json:"hue"`
}

// arena is the board behind a pushy.Server.
type arena struct {
	srv *pushy.Server

	mu      sync.Mutex
	board   board
	players map[string]*player // by the key that each tab chooses
	hues    int
}

func newArena(secret string) (*arena, error) {
	a := &arena{board: board{random: rand.IntN}, players: map[string]*player{}}
	srv, err := pushy.New(pushy.Options{
		SecretKey: secret,
		Accept:    func(r *http.Request) (any, error) { return a.player(r) },
		Limits:    pushy.Limits{Members: maxPlayers},
		Hooks:     pushy.Hooks{Subscribe: a.enter, Unsubscribe: a.leave},
	})
	if err != nil {
		return nil, err
	}
	a.srv = srv
	pushy.Handle(srv, "move", a.move)
	pushy.Handle(srv, "look", a.look)
	return a, nil
}

// The data of the command move, and its reply.
type (
	moveRequest struct {
		To *direction `json:"to"`
	}
	moveReply struct {
		spot
		Score int `json:"score"`
	}
)

var (
	errOutside = &pushy.Error{Code: "outside", Message: "You are not in the arena"}
	errNoWay   = &pushy.Error{Code: "no-way", Message: "The way is blocked"}
	errTooFast = &pushy.Error{Code: "too-fast", Message: "One step at a time"}
	errNoMove  = &pushy.Error{Code: "no-move", Message: "The direction is missing: up, down, left or right"}
)

// move is the command by which a player moves.
func (a *arena) move(ctx context.Context, conn *pushy.Conn, req moveRequest) (moveReply, error) {
	if req.To == nil {
		return moveReply{}, errNoMove
	}
	p := conn.User().(*player)
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.tabs == 0 {
		return moveReply{}, errOutside
	}
	if time.Since(p.moved) < pace {
		return moveReply{}, errTooFast
	}
	v, moved := a.board.move(p, *req.To)
	if !moved {
		return moveReply{}, errNoWay
	}
	p.moved = time.Now()
	return moveReply{p.spot, p.Score}, a.show(ctx, v)
}

// look is the command that returns the whole board. Pages use it after each subscription.
func (a *arena) look(context.Context, *pushy.Conn, struct{}) (view, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.board.view(), nil
}

// show publishes the board. It is called with the lock held, so that boards are sent in
// order. Publish does not wait for clients.
func (a *arena) show(ctx context.Context, v view) error {
	return a.srv.Publish(ctx, room, "board", v)
}

// enter is the Subscribe hook: a player's first connection puts it on the board.
func (a *arena) enter(conn *pushy.Conn, ch *pushy.Channel) {
	if ch.Name() != room {
		return
	}
	p := conn.User().(*player)
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.tabs++; p.tabs == 1 {
		a.board.enter(p)
		_ = a.show(conn.Context(), a.board.view()) // the new player's page also sends look
	}
}

// leave is the Unsubscribe hook: a player's last connection removes it from the board.
func (a *arena) leave(conn *pushy.Conn, ch *pushy.Channel) {
	if ch.Name() != room {
		return
	}
	p := conn.User().(*player)
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.tabs--; p.tabs == 0 {
		p.seen = time.Now()
		a.board.leave(p)
		_ = a.show(context.Background(), a.board.view()) // conn's own context has ended
	}
}

// allow allows players to enter the arena, and returns their presence data.
func (a *arena) allow(r *http.Request, _, channel string) (any, error) {
	if channel != room {
		return nil, pushy.ErrDenied
	}
	p, err := a.player(r)
	if err != nil {
		return nil, err
	}
	return face{ID: p.ID, Name: p.Name, Hue: p.Hue}, nil
}

var keyRule = regexp.MustCompile(`^[0-9A-Za-z-]{16,64}$`)

var errNobody = errors.New("a key of 16 to 64 letters and a name of 1 to 16 characters are needed")

// player returns the player from whom a request comes. There is no login: each tab chooses
// a key, which it keeps secret and which identifies its player.
func (a *arena) player(r *http.Request) (*player, error) {
	key, name := r.URL.Query().Get("key"), strings.TrimSpace(r.URL.Query().Get("name"))
	n := utf8.RuneCountInString(name)
	if !keyRule.MatchString(key) || n < 1 || n > 16 || !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable) {
		return nil, errNobody
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, p := range a.players {
		if p.tabs == 0 && time.Since(p.seen) > absence {
			delete(a.players, k)
		}
	}
	p := a.players[key]
	if p == nil {
		p = &player{ID: crand.Text()[:8], Name: name, Hue: a.hues * 137 % 360, seen: time.Now()}
		a.hues++ // in steps of the golden angle, so that successive players look different
		a.players[key] = p
	}
	return p, nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
