//go:build unix && (!linux || 386 || s390x)

package websocket

import "syscall"

// sendNow is write(2): Linux on 386 and s390x has no system call of its own for
// send(2), and other systems offer none to a Go program without a library.
func sendNow(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
