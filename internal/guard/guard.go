// Package guard converts panics into errors. Data from a broker is untrusted, and a panic in a
// goroutine of the library would end the host's process.
package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// PanicError is a panic that Call recovered.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Call runs f and returns its error, or a *PanicError if f panics.
func Call(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f()
}

// Run is Call for a func that returns no error.
func Run(f func()) error {
	return Call(func() error {
		f()
		return nil
	})
}

// Stack returns the attribute "stack" for a *PanicError, or an empty attribute, which handlers
// ignore, for any other error.
func Stack(err error) slog.Attr {
	var p *PanicError
	if !errors.As(err, &p) {
		return slog.Attr{}
	}
	return slog.String("stack", string(p.Stack))
}
