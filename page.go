package pushy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gopushy/pushy/internal/names"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// maxPageBytes limits the bytes of a page, because brokers limit the size of a message.
	maxPageBytes = 256 << 10
)

// Page selects a part of a list.
type Page struct {
	// After is the Next of the page before, or "" for the first page.
	After string
	// Limit is the number of items, at most 1,000. Default 100. A page can be shorter although
	// others follow, because its size is limited to about 256 KiB for each node.
	Limit int
}

func (p Page) check() (Page, string, error) {
	switch {
	case p.Limit < 0 || p.Limit > maxPage:
		return p, "limit", fmt.Errorf("must be 1 to %d", maxPage)
	case len(p.After) > names.MaxBytes:
		return p, "after", fmt.Errorf("must not be longer than %d bytes", names.MaxBytes)
	case p.Limit == 0:
		p.Limit = defaultPage
	}
	return p, "", nil
}

// nodePage is the answer of a node to a question for a page. More means that the node has items
// that follow the last one.
type nodePage[T any] struct {
	Items []T  `json:"items"`
	More  bool `json:"more,omitempty"`
}

// merging says how the pages of nodes become one.
type merging[T any] struct {
	key   func(*T) string
	valid func(*T) error
	join  func(into *T, other T) // for items with equal keys, or nil
	after string
	limit int
}

type mergedPage[T any] struct {
	items []T
	next  string
	Coverage
}

// askPages asks all nodes for the items after a key, and returns the first ones of all. Each node
// sends its first ones. So the result is exact up to the lowest of the last keys of those nodes
// that have more.
func askPages[T any](
	ctx context.Context, s *Server, question string, data any, m merging[T],
) (mergedPage[T], error) {
	merged := mergedPage[T]{}
	index := map[string]int{}
	var items []T
	bound, cut := "", false
	var err error
	merged.Coverage, err = gather(ctx, s, question, data, func(page nodePage[T]) bool {
		if !m.fits(page) {
			return false
		}
		for _, item := range page.Items {
			key := m.key(&item)
			if i, known := index[key]; known {
				if m.join != nil {
					m.join(&items[i], item)
				}
				continue
			}
			index[key] = len(items)
			items = append(items, item)
		}
		if page.More {
			if last := m.key(&page.Items[len(page.Items)-1]); !cut || last < bound {
				bound, cut = last, true
			}
		}
		return true
	})
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(m.key(&a), m.key(&b)) })
	if cut {
		items = slices.DeleteFunc(items, func(item T) bool { return m.key(&item) > bound })
	}
	if len(items) > m.limit {
		items = items[:m.limit]
		cut = true
	}
	if cut {
		merged.next = m.key(&items[len(items)-1])
	}
	merged.items = items
	return merged, err
}

// fits reports whether a node can have answered with the page. Other programs can answer in the
// name of a node, so pages are validated.
func (m *merging[T]) fits(page nodePage[T]) bool {
	if len(page.Items) > m.limit || page.More && len(page.Items) == 0 {
		return false
	}
	last := m.after
	for i := range page.Items {
		key := m.key(&page.Items[i])
		if key <= last || m.valid(&page.Items[i]) != nil {
			return false
		}
		last = key
	}
	return true
}
