// Package unmarked marks nothing.
package unmarked

type Events struct{}

type Face struct {
	Name string `json:"name"`
}
