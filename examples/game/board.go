package main

import (
	"fmt"
	"time"
)

// The rules: who stands where a gem lies has it, and ten gems win the round.
const (
	size  = 10 // squares a side
	goal  = 10 // gems to win
	spare = 6  // gems that lie about
	// pace is how soon after a move the next may come. It keeps the game fair to
	// those who do not write a program to play it.
	pace = 80 * time.Millisecond
)

// spot is a square.
type spot struct {
	X int `json:"x"`
	Y int `json:"y"`
}

// direction is what a move may be; anything else does not get past decoding.
type direction struct{ dx, dy int }

var directions = map[string]direction{"up": {0, -1}, "down": {0, 1}, "left": {-1, 0}, "right": {1, 0}}

func (d *direction) UnmarshalText(text []byte) error {
	known, ok := directions[string(text)]
	if !ok {
		return fmt.Errorf("no direction: %q", text)
	}
	*d = known
	return nil
}

// player is somebody in the arena, or somebody who may be back any moment.
type player struct {
	ID    string `json:"id"`
	Name  string `json:"-"` // presence tells the names
	Hue   int    `json:"-"`
	Score int    `json:"score"`
	spot

	tabs  int // connections that are in the arena
	moved time.Time
	seen  time.Time // when the last of them left
}

// board is the state of a round. It knows nothing of pushy, and its caller sees to
// it that one goroutine at a time uses it.
type board struct {
	random  func(n int) int
	turn    uint64 // counts what happens, so that pages show the newest
	players []*player
	gems    []spot
}

// view is what all players get to see.
type view struct {
	Turn    uint64   `json:"turn"`
	Players []player `json:"players"`
	Gems    []spot   `json:"gems"`
	Winner  string   `json:"winner,omitempty"` // of the round that has just ended
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

// leave takes a player off the board.
func (b *board) leave(p *player) {
	for i, other := range b.players {
		if other == p {
			b.players = append(b.players[:i], b.players[i+1:]...)
			b.turn++
			return
		}
	}
}

// move moves a player by one square, if that is free. It returns what is to be
// shown, and false if nothing has changed.
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
			b.again()
		}
		break
	}
	b.scatter()
	v := b.view()
	v.Winner = winner
	return v, true
}

// again begins a new round where everybody stands.
func (b *board) again() {
	b.gems = nil
	for _, p := range b.players {
		p.Score = 0
	}
}

// scatter makes up for the gems that are gone.
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
