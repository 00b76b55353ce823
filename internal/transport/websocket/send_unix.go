//go:build unix && (!linux || 386 || s390x)

package websocket

import "syscall"

// sendNow writes to a non-blocking socket with write(2). Linux on 386 and s390x has no
// separate system call for send(2), and on other systems package syscall has none.
func sendNow(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
