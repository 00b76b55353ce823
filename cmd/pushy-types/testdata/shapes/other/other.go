// Package other has types whose names are those of others.
package other

type Line struct {
	Length float64 `json:"length"`
}

type Base struct {
	Made  string `json:"made"`
	Title string `json:"title"` // hidden by the one of Shapes
}
