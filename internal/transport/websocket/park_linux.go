package websocket

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gopushy/pushy/internal/session"
)

// parking has all sockets of this process that are parked, that is, whose reader waits without a
// goroutine.
var parking parkingLot

// parkingLot waits for bytes of parked sockets, with one goroutine for all of them. It has an epoll
// instance of its own, because that of Go's runtime wakes only goroutines. The goroutine waits for
// the instance as for any file, so it blocks no thread. It ends when no socket is parked.
type parkingLot struct {
	opened sync.Once
	epoll  int             // the epoll instance, or -1 if there is none
	file   *os.File        // of the same
	raw    syscall.RawConn // of file

	mu      sync.Mutex
	places  []place // by file descriptor
	parked  int
	running bool
}

// place is a place of the parkingLot. It is free if its socket is nil.
type place struct {
	socket *socket
	raw    syscall.RawConn
	reader session.Reader
}

// sweepInterval is the time in which a socket is found that the host has closed: for this there is no
// event.
const sweepInterval = 2 * time.Second

// open opens the epoll instance, and reports whether there is one.
func (p *parkingLot) open() bool {
	p.opened.Do(func() {
		p.epoll = -1
		fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
		if err != nil {
			return
		}
		_ = syscall.SetNonblock(fd, true) // so that the runtime waits for file
		p.file = os.NewFile(uintptr(fd), "epoll")
		if p.raw, err = p.file.SyscallConn(); err == nil {
			err = p.file.SetReadDeadline(time.Time{}) // it fails if the runtime does not wait for file
		}
		if err != nil {
			_ = p.file.Close()
			return
		}
		p.epoll = fd
	})
	return p.epoll >= 0
}

// parkLocked parks s, whose raw connection is raw, and reports whether it did. The caller has locked
// s.mu.
func (p *parkingLot) parkLocked(s *socket, raw syscall.RawConn, r session.Reader) (parked bool) {
	if !p.open() {
		return false
	}
	err := raw.Control(func(fd uintptr) {
		s.fd = int(fd)
		p.add(place{
			socket: s,
			raw:    raw,
			reader: r,
		}, s.fd)
		if parked = p.arm(s.fd, s.armed); parked {
			s.armed = true
			return
		}
		_, was := p.take(s)
		parked = !was // otherwise its reader has been resumed, after an event of an earlier socket
	})
	return parked && err == nil
}

func (p *parkingLot) add(s place, fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.places) <= fd {
		p.places = append(p.places, place{})
	}
	if p.places[fd].socket != nil { // it was closed by the host, and its descriptor is used again
		go p.leaveLocked(fd).Resume()
	}
	p.places[fd] = s
	p.parked++
	if !p.running {
		p.running = true
		go p.run()
	}
}

// arm makes the next bytes, or the end, of a file descriptor one event. again means that it was armed
// before.
func (p *parkingLot) arm(fd int, again bool) bool {
	op := syscall.EPOLL_CTL_ADD
	if again {
		op = syscall.EPOLL_CTL_MOD
	}
	e := syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT,
		Fd:     int32(fd),
	}
	return syscall.EpollCtl(p.epoll, op, fd, &e) == nil
}

// resumeLocked resumes the reader of s if s is parked. The caller has locked s.mu.
func (p *parkingLot) resumeLocked(s *socket) {
	if r, was := p.take(s); was {
		go r.Resume()
	}
}

// take ends the parking of s, and reports whether it was parked. The caller has locked s.mu.
func (p *parkingLot) take(s *socket) (r session.Reader, was bool) {
	p.mu.Lock()
	if s.fd < len(p.places) && p.places[s.fd].socket == s {
		was = true
		r = p.leaveLocked(s.fd)
	}
	last := was && p.parked == 0
	p.mu.Unlock()
	if last {
		_ = p.file.SetReadDeadline(pastDeadline) // so that run ends
	}
	return r, was
}

func (p *parkingLot) leaveLocked(fd int) session.Reader {
	r := p.places[fd].reader
	p.places[fd] = place{}
	p.parked--
	return r
}

// run resumes the readers of parked sockets for which there is an event, or that were closed, until
// no socket is parked.
func (p *parkingLot) run() {
	events := make([]syscall.EpollEvent, 128)
	var n int
	wait := func(uintptr) bool {
		n, _ = syscall.EpollWait(p.epoll, events, 0) // it fails only if it was interrupted
		return n > 0
	}
	var sweepAt time.Time
	for timeout := true; ; { // timeout means that the read deadline has to be set
		if now := time.Now(); !now.Before(sweepAt) {
			p.sweep()
			sweepAt = now.Add(sweepInterval)
			timeout = true
		}
		if timeout {
			_ = p.file.SetReadDeadline(sweepAt)
			if !p.happened(nil) { // take can have set a deadline before
				return
			}
		}
		n = 0
		timeout = p.raw.Read(wait) != nil
		if !p.happened(events[:max(n, 0)]) {
			return
		}
	}
}

// sweep resumes the readers of sockets that were closed while they were parked.
func (p *parkingLot) sweep() {
	const most = 1000 // at a time, so that nothing waits long for mu
	for from, more := 0, true; more; from += most {
		more = p.sweepPart(from, from+most)
	}
}

func (p *parkingLot) sweepPart(from, to int) (more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for fd := from; fd < min(to, len(p.places)); fd++ {
		if at := &p.places[fd]; at.socket != nil && at.raw.Control(nothing) != nil {
			go p.leaveLocked(fd).Resume()
		}
	}
	return to < len(p.places)
}

func nothing(uintptr) {}

// happened handles events. It returns false if run has to end, because no socket is parked.
func (p *parkingLot) happened(events []syscall.EpollEvent) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		// A place is free if its reader was resumed before. An event can also be that of an earlier
		// socket with the same descriptor; then the reader waits again.
		if fd := int(e.Fd); p.places[fd].socket != nil {
			go p.leaveLocked(fd).Resume()
		}
	}
	p.running = p.parked > 0
	return p.running
}
