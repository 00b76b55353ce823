// Package streams tests package sse with the clients of other projects: go-sse, r3labs/sse, and the lines
// that Datastar's package for Go writes. It is a module of its own, so that these are no dependencies of
// pushy, and go-sse needs a newer Go than pushy. It is not released.
package streams
