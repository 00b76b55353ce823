//go:build !386 && !s390x

package websocket

import (
	"syscall"
	"unsafe"
)

// sendNow writes to a non-blocking socket. It uses send(2), which does less work than
// write(2), and a raw system call: the call is short, so the scheduler need not be notified.
func sendNow(fd uintptr, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall6(
		syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
