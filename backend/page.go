package backend

import (
	"errors"
	"iter"

	"github.com/gopushy/pushy/internal/calls"
)

// Page selects a part of a list.
type Page struct {
	// After is the Next of the page before, or "" for the first page.
	After string
	// Limit is the number of items, at most 1,000. Default 100. A page can be shorter although
	// others follow, because its size is limited to about 256 KiB for each node.
	Limit int
}

// pages calls list for each page.
func pages[L any](first string, list func(after string) (page L, next string, err error)) iter.Seq2[L, error] {
	return func(yield func(L, error) bool) {
		for after := first; ; {
			page, next, err := list(after)
			if err == nil && next != "" && next <= after {
				err = errors.New("backend: a page does not follow the one before, so the list has no end")
			}
			if !yield(page, err) || err != nil || next == "" {
				return
			}
			after = next
		}
	}
}

func (p Page) body() calls.Page {
	return calls.Page{
		After: p.After,
		Limit: calls.Optional(p.Limit),
	}
}
