//go:build unix && !linux

package transport

import "syscall"

func sendNow(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
