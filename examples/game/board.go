package main

import (
	"fmt"
	"time"
)

// The rules: a player who moves to a gem collects it, and ten gems win the round.
const (
	size  = 10 // squares a side
	goal  = 10 // gems to win
	spare = 6  // gems on the board
	// pace is the minimum time between two moves of a player. It keeps the game fair for
	// players who do not write a program to play it.
	pace = 80 * time.Millisecond
)

// spot is a square.
type spot struct {
	X int `json:"x"`
	Y int `json:"y"`
}

// direction is the direction of a move. Decoding fails for anything else.
type direction struct{ dx, dy int }

var directions = map[string]direction{"up": {0, -1}, "down": {0, 1}, "left": {-1, 0}, "right": {1, 0}}

func (d *direction) UnmarshalText(text []byte) error {
	known, ok := directions[string(text)]
	if !ok {
		return fmt.Errorf("not a direction: %q", text)
	}
	*d = known
	return nil
}

// player is a player in the arena, or one who has left and may return.
type player struct {
	ID    string `json:"id"`
	Name  string `json:"-"` // pages know the names from presence
	Hue   int    `json:"-"`
	Score int    `json:"score"`
	spot

	tabs  int // connections that are in the arena
	moved time.Time
	seen  time.Time // when the last connection left
}

// board is the state of a round. It does not depend on pushy. It is not safe for concurrent
// use.
type board struct {
	random  func(n int) int
	turn    uint64 // increases with each change, so that pages show the newest board
	players []*player
	gems    []spot
}

// view is the board as all players see it.
type view struct {
	Turn    uint64   `json:"turn"`
	Players []player `json:"players" pushy:"nonnil"`
	Gems    []spot   `json:"gems" pushy:"nonnil"`
	Winner  string   `json:"winner,omitempty"` // the id of the winner, if this move ended the round
}

func (b *board) view() view {
	v := view{Turn: b.turn, Players: make([]player, 0, len(b.players)), Gems: append([]spot{}, b.gems...)}
	for _, p := range b.players {
		v.Players = append(v.Players, *p)
	}
	return v
}

// enter puts a player on a free square.
func (b *board) enter(p *player) {
	p.spot = b.free()
	b.players = append(b.players, p)
	b.scatter()
	b.turn++
}

// leave removes a player from the board.
func (b *board) leave(p *player) {
	for i, other := range b.players {
		if other == p {
			b.players = append(b.players[:i], b.players[i+1:]...)
			b.turn++
			return
		}
	}
}

// move moves a player by one square, if that is free. It returns the new board, and false
// if nothing has changed.
func (b *board) move(p *player, to direction) (view, bool) {
	next := spot{p.X + to.dx, p.Y + to.dy}
	if next.X < 0 || next.Y < 0 || next.X >= size || next.Y >= size || b.playerAt(next) {
		return view{}, false
	}
	p.spot = next
	b.turn++
	winner := ""
	for i, gem := range b.gems {
		if gem != next {
			continue
		}
		b.gems = append(b.gems[:i], b.gems[i+1:]...)
		if p.Score++; p.Score == goal {
			winner = p.ID
			b.newRound()
		}
		break
	}
	b.scatter()
	v := b.view()
	v.Winner = winner
	return v, true
}

// newRound begins a new round. The players remain where they are.
func (b *board) newRound() {
	b.gems = nil
	for _, p := range b.players {
		p.Score = 0
	}
}

// scatter replaces the gems that were collected.
func (b *board) scatter() {
	for len(b.gems) < spare && len(b.gems)+len(b.players) < size*size {
		b.gems = append(b.gems, b.free())
	}
}

// free returns a square with nothing on it. There must be one.
func (b *board) free() spot {
	at := b.random(size * size)
	for {
		s := spot{at % size, at / size}
		if !b.playerAt(s) && !b.gemAt(s) {
			return s
		}
		at = (at + 1) % (size * size)
	}
}

func (b *board) playerAt(s spot) bool {
	for _, p := range b.players {
		if p.spot == s {
			return true
		}
	}
	return false
}

func (b *board) gemAt(s spot) bool {
	for _, gem := range b.gems {
		if gem == s {
			return true
		}
	}
	return false
}
