package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Phase is what the server and the clients did while all clients joined or left.
type Phase struct {
	CPU   time.Duration // of the server
	Time  time.Duration // until the last byte
	Bytes int64         // that the clients have read
}

// memberChannel is private, and has presence.
const memberChannel = "private-room"

// quietTime is the time without a byte after which a phase is over. A server may send the changes of
// some time together.
const quietTime = 600 * time.Millisecond

// joiners are clients that join and leave one channel, and one epoll loop that reads them.
type joiners struct {
	cfg   Config
	epoll int
	all   []*client
	byFD  map[int32]int
	said  []bytes.Buffer // what each client has read in this phase
	last  time.Time      // when something was read
	buf   []byte
}

// Join lets the clients of cfg, which are connected, become members of one channel with presence, and
// leave it. mode is pushy's mode of presence; centrifuge's clients ask for the list, if it is "list".
// It fails if a client is not told that it has joined, and that it has left.
func Join(ctx context.Context, cfg Config, mode string) (joined, left Phase, err error) {
	cfg.base = int(bases.Add(3))
	cfg.Idle = true
	js := &joiners{
		cfg:  cfg,
		byFD: map[int32]int{},
		said: make([]bytes.Buffer, cfg.Clients),
		buf:  make([]byte, 64<<10),
	}
	if js.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return joined, left, fmt.Errorf("epoll: %w", err)
	}
	defer js.close()
	for i := range cfg.Clients {
		if err := js.connect(i); err != nil {
			return joined, left, fmt.Errorf("client %d: %w", i, err)
		}
	}
	j := js.pushy(mode)
	if cfg.Dialect == Centrifuge {
		j = js.centrifuge(mode)
	}
	if joined, err = js.phase(ctx, j.ask, j.success); err != nil {
		return joined, left, fmt.Errorf("joining: %w", err)
	}
	if left, err = js.phase(ctx, j.leave, j.end); err != nil {
		return joined, left, fmt.Errorf("leaving: %w", err)
	}
	return joined, left, nil
}

// joining has the commands of each client, and what their answers contain.
type joining struct {
	ask     func(i int) []string
	success string
	leave   func(i int) []string
	end     string
}

// memberData is what others see of client i.
func memberData(i int) string { return fmt.Sprintf(`{"name":"Member %04d","color":"#aabbcc"}`, i) }

// pushy returns the commands of pushy.
func (js *joiners) pushy(mode string) joining {
	ask := func(i int) []string {
		data := memberData(i)
		sum := sha256.Sum256([]byte(js.all[i].id + ":" + memberChannel + ":" + data + ":" + Secret))
		const format = `{"command":"subscribe","data":{"channel":%q,"auth":%q,"presence":%q,"data":%s}}`
		return []string{js.cfg.command(fmt.Sprintf(format, memberChannel, hex.EncodeToString(sum[:]), mode, data))}
	}
	leave := func(int) []string {
		return []string{js.cfg.command(fmt.Sprintf(`{"command":"unsubscribe","data":{"channel":%q}}`, memberChannel))}
	}
	return joining{
		ask:     ask,
		success: "pushy:subscription-success",
		leave:   leave,
		end:     "pushy:subscription-end",
	}
}

// centrifuge returns the commands of centrifuge.
func (js *joiners) centrifuge(mode string) joining {
	ask := func(i int) []string {
		list := []string{fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q,"data":%s}}`, memberChannel, memberData(i))}
		if mode == "list" {
			list = append(list, fmt.Sprintf(`{"id":3,"presence":{"channel":%q}}`, memberChannel))
		}
		return list
	}
	success := `{"id":2,"subscribe":`
	if mode == "list" {
		success = `{"id":3,"presence":`
	}
	leave := func(int) []string {
		return []string{fmt.Sprintf(`{"id":4,"unsubscribe":{"channel":%q}}`, memberChannel)}
	}
	return joining{
		ask:     ask,
		success: success,
		leave:   leave,
		end:     `{"id":4,"unsubscribe":`,
	}
}

// command returns the text of one of pushy's commands.
func (cfg *Config) command(text string) string {
	if cfg.Dialect == Framed {
		return fmt.Sprintf("[%q]", text)
	}
	return text
}

func (js *joiners) connect(i int) error {
	c, err := js.cfg.open(i, memberChannel, 0)
	if err != nil {
		return err
	}
	js.all = append(js.all, c)
	fd := int32(c.sock.fd)
	js.byFD[fd] = i
	if err := c.sock.setNonblock(); err != nil {
		return fmt.Errorf("non-blocking: %w", err)
	}
	if err := unix.EpollCtl(js.epoll, unix.EPOLL_CTL_ADD, c.sock.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func (js *joiners) close() {
	for _, c := range js.all {
		c.sock.abort()
	}
	_ = unix.Close(js.epoll)
}

// phase sends the commands of all clients, one client after another, and reads until nothing has come
// for some time. Each client must have an answer.
func (js *joiners) phase(ctx context.Context, commands func(i int) []string, answer string) (Phase, error) {
	for i := range js.said {
		js.said[i].Reset()
	}
	began, used := time.Now(), js.cfg.cpu()
	js.last = began
	for i, c := range js.all {
		var wire []byte
		for _, text := range commands(i) {
			wire = append(wire, maskedText(text)...)
		}
		if _, err := c.Write(wire); err != nil {
			return Phase{}, fmt.Errorf("client %d: %w", i, err)
		}
		if err := js.read(ctx, 0); err != nil {
			return Phase{}, err
		}
	}
	for time.Since(js.last) < quietTime {
		if err := js.read(ctx, 20); err != nil {
			return Phase{}, err
		}
	}
	p := Phase{
		CPU:  js.cfg.cpu() - used,
		Time: js.last.Sub(began),
	}
	for i := range js.said {
		said := js.said[i].Bytes()
		if n := bytes.Count(said, []byte(answer)); n != 1 {
			return p, fmt.Errorf("client %d has %d answers %q in %d bytes: %.300q", i, n, answer, len(said), said)
		}
		p.Bytes += int64(len(said))
	}
	return p, nil
}

// read reads what has come within some milliseconds.
func (js *joiners) read(ctx context.Context, wait int) error {
	var ready [256]unix.EpollEvent
	n, err := unix.EpollWait(js.epoll, ready[:], wait)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll: %w", err)
	}
	for _, event := range ready[:max(n, 0)] {
		i := js.byFD[event.Fd]
		got, err := js.all[i].Read(js.buf)
		var again errAgain
		if errors.As(err, &again) {
			continue
		}
		if err != nil {
			return fmt.Errorf("client %d lost its connection: %w", i, err)
		}
		js.said[i].Write(js.buf[:got])
		js.last = time.Now()
	}
	return ctx.Err()
}

// Pairs is the result of Churn.
type Pairs struct {
	Count   int64 // subscriptions, each with its end
	Elapsed time.Duration
	CPU     time.Duration // of the server
}

// Churn has the clients of cfg as members of a public channel without presence, and movers more
// clients that join and leave it, each one command after another.
func Churn(ctx context.Context, cfg Config, movers int, warm, d time.Duration) (Pairs, error) {
	members, err := Connect(ctx, cfg)
	if err != nil {
		return Pairs{}, err
	}
	defer members.Close()
	cfg = members.cfg
	cfg.Idle = true
	var pairs atomic.Int64
	var end atomic.Bool
	errs := make([]error, movers)
	var wg sync.WaitGroup
	for i := range movers {
		c, err := cfg.open(cfg.Clients+i, cfg.Channel, 0)
		if err != nil {
			end.Store(true)
			wg.Wait()
			return Pairs{}, fmt.Errorf("a client that joins and leaves: %w", err)
		}
		defer c.sock.abort()
		wg.Go(func() {
			for !end.Load() && errs[i] == nil {
				errs[i] = cfg.joinAndLeave(c)
				pairs.Add(1)
			}
		})
	}
	time.Sleep(warm)
	before, used, began := pairs.Load(), CPU(cfg.PID), time.Now()
	time.Sleep(d)
	p := Pairs{
		Count:   pairs.Load() - before,
		Elapsed: time.Since(began),
		CPU:     CPU(cfg.PID) - used,
	}
	end.Store(true)
	wg.Wait()
	return p, errors.Join(errs...)
}

// joinAndLeave subscribes a client and ends its subscription.
func (cfg *Config) joinAndLeave(c *client) error {
	turns := [2][2]string{
		{cfg.command(fmt.Sprintf(`{"command":"subscribe","data":{"channel":%q}}`, cfg.Channel)), "pushy:subscription-success"},
		{cfg.command(fmt.Sprintf(`{"command":"unsubscribe","data":{"channel":%q}}`, cfg.Channel)), "pushy:subscription-end"},
	}
	if cfg.Dialect == Centrifuge {
		turns = [2][2]string{
			{fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, cfg.Channel), `{"id":2,"subscribe":`},
			{fmt.Sprintf(`{"id":3,"unsubscribe":{"channel":%q}}`, cfg.Channel), `{"id":3,"unsubscribe":`},
		}
	}
	for _, turn := range turns {
		if _, err := c.Write(maskedText(turn[0])); err != nil {
			return fmt.Errorf("joining and leaving: %w", err)
		}
		w := &waiter{r: c}
		if err := w.until(turn[1]); err != nil {
			return fmt.Errorf("waiting for %q: %w", turn[1], err)
		}
	}
	return nil
}
