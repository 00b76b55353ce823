// Package embedded has structs whose fields hide each other. A test compares them with what encoding/json writes.
package embedded

import "github.com/gopushy/pushy"

type Events struct {
	All All `json:"all"`
}

var _ pushy.Events[Events]

type (
	All struct {
		First  int
		Shadow string // hides the ones of Left and Right
		Left
		*Right
		Twice
		Again
		Named `json:"named"`
		lower `json:"lower"`
		quiet
		Word
		word
		*Loop
		Plain
		Last int
		Tagged
	}

	Left struct {
		Shadow string
		Both   int // neither this one nor that of Right is written
		Deep
	}

	Right struct {
		Both   int
		Only   int `json:"only"`
		Shadow string
	}

	// Twice and Again embed the same struct on one level, so that its fields are not written.
	Twice struct{ Common }
	Again struct{ Common }

	Common struct{ Common int }

	Named struct{ Inside int }
	lower struct{ Within int }
	quiet struct{ Quiet int }

	Word string
	word string

	// Loop embeds itself.
	Loop struct {
		Round int
		*Loop
	}

	// A tag counts more than a name.
	Tagged struct {
		Other int `json:"Title"`
	}
	Plain struct {
		Title int
	}

	Deep struct {
		Bottom int
		Only   int `json:"only"` // hidden by the one of Right
		Shadow string
		More
	}

	More struct {
		Bottom int
		Floor  int `json:"-,"` // its name is a hyphen
		Gone   int `json:"-"`
	}
)

// Sample has a value in each field.
func Sample() All {
	return All{
		Right: &Right{},
		Loop:  &Loop{},
		Word:  "w",
		word:  "",
	}
}
