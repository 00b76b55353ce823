//go:build !386 && !s390x

package websocket

import (
	"sync"
	"syscall"
	"unsafe"
)

// Of getsockopt(2) and the array that it returns, see linux/sock_diag.h. Linux has it since 4.12.
const (
	soMemInfo      = 0x37
	memSendBuffer  = 3
	memWriteQueued = 5
	memCount       = 9
)

// ask is a question about a socket. It is pooled with its funcs, so that a call does not allocate.
type ask struct {
	memory   [memCount]uint32
	free     int
	memInfo  func(fd uintptr)
	writable bool
	poll     func(fd uintptr)
}

var asks = sync.Pool{New: func() any {
	a := new(ask)
	a.memInfo = func(fd uintptr) {
		size := uint32(unsafe.Sizeof(a.memory))
		_, _, errno := syscall.RawSyscall6(
			syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, soMemInfo,
			uintptr(unsafe.Pointer(&a.memory)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 && size > 4*memWriteQueued {
			a.free = int(a.memory[memSendBuffer]) - int(a.memory[memWriteQueued])
		}
	}
	a.poll = func(fd uintptr) {
		const pollOut = 4
		event := struct {
			fd              int32
			events, revents int16
		}{
			fd:     int32(fd),
			events: pollOut,
		}
		var now syscall.Timespec
		n, _, errno := syscall.RawSyscall6(
			syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&event)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		a.writable = errno == 0 && n == 1
	}
	return a
}}

const canAskForRoom = true

// freeRoom returns the free bytes in the send buffer of a TCP socket, in which the kernel also has the
// headers of packets, or 0 if it does not say. The error is that of a connection that was closed.
func freeRoom(rc syscall.RawConn) (int, error) {
	a := asks.Get().(*ask)
	defer asks.Put(a)
	a.free = 0
	err := rc.Control(a.memInfo)
	return a.free, err
}

// writable reports whether a write of a TCP socket would not wait.
func writable(rc syscall.RawConn) bool {
	a := asks.Get().(*ask)
	defer asks.Put(a)
	a.writable = false
	_ = rc.Control(a.poll)
	return a.writable
}
