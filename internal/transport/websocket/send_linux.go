//go:build !386 && !s390x

package websocket

import (
	"syscall"
	"unsafe"
)

// sendNow is write(2) on a socket that does not wait: send(2) has less to do,
// and since it is short the scheduler need not hear of it.
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
