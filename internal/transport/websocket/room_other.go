//go:build !linux || 386 || s390x

package websocket

import "syscall"

// Here it is not known whether a write of a TLS connection would wait, so that each is made by a
// goroutine of its own.
const canAskForRoom = false

func freeRoom(syscall.RawConn) (int, error) { return 0, nil }

func writable(syscall.RawConn) bool { return false }
