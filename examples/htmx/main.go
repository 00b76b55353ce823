// Command htmx is an order board without JavaScript of its own: the server renders rows of a table,
// and publishes a row when it changes. htmx puts it in place on every page that is open.
//
//	go run ./examples/htmx
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/broker"
	"github.com/gopushy/pushy/sse"
)

//go:embed page
var files embed.FS

var pages = template.Must(template.ParseFS(files, "page/*.html"))

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on; port 0 picks a free one")
	data := flag.String("data", filepath.Join(os.TempDir(), "pushy-orders.json"), "file in which the orders are saved")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process immediately
	if err := run(ctx, *addr, *data, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "htmx:", err)
		os.Exit(1)
	}
}

// run serves the board until ctx ends.
func run(ctx context.Context, addr, data string, out io.Writer) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -addr, or port 0 for a free one", err)
	}
	defer listener.Close()
	b, err := newBoard(data)
	if err != nil {
		return err
	}
	web := &http.Server{
		Handler:           http.NewCrossOriginProtection().Handler(b.routes()),
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	fmt.Fprintf(out, "open http://%s/\n", listener.Addr())

	select {
	case err = <-served:
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// pushy first: it tells the pages when to return, and http.Server.Shutdown waits for their streams.
	return errors.Join(err, b.rt.Shutdown(deadline), web.Shutdown(deadline))
}

// channel is that of the board. A page that was away gets its last events.
const channel = "orders"

var steps = []string{"new", "packed", "shipped"}

// Order is a row of the board.
type Order struct {
	ID       int    `json:"id"`
	Item     string `json:"item"`
	Customer string `json:"customer"`
	Step     int    `json:"step"`
}

// Status is the order's step in words.
func (o Order) Status() string { return steps[o.Step] }

// Next is what the button does, or "".
func (o Order) Next() string { return []string{"Pack", "Ship", ""}[o.Step] }

// row is an order as a template shows it.
type row struct {
	Order
	Changed bool // it is published, so it replaces the row of that id
}

// board has the orders. They are saved to a file, so the board is the same after a deploy.
type board struct {
	rt   *pushy.Server
	file string

	mu     sync.Mutex
	orders []Order
}

func newBoard(file string) (*board, error) {
	b := &board{file: file}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		b.orders = []Order{
			{ID: 1, Item: "Two teapots", Customer: "Ann", Step: 2},
			{ID: 2, Item: "A box of tea", Customer: "Bob", Step: 1},
			{ID: 3, Item: "Six cups", Customer: "Chen"},
		}
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(text, &b.orders); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	b.rt, err = pushy.New(pushy.Options{
		SecretKey: rand.Text(),
		Channel: func(name string) pushy.ChannelOptions {
			if name != channel {
				return pushy.ChannelOptions{}
			}
			return pushy.ChannelOptions{Keep: broker.Keep{Size: 200, TTL: time.Hour}}
		},
	})
	return b, err
}

func (b *board) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/pushy/events", sse.New(b.rt, sse.Options{}))
	mux.HandleFunc("GET /{$}", b.page)
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) { show(w, "rows", b.rows()) })
	mux.HandleFunc("POST /orders", b.add)
	mux.HandleFunc("POST /orders/{id}/next", b.next)
	for _, name := range []string{"htmx.min.js", "hx-sse.min.js", "style.css"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, files, "page/"+name)
		})
	}
	return mux
}

// page takes the position first and then the orders, so the stream begins with what the page may lack.
func (b *board) page(w http.ResponseWriter, r *http.Request) {
	position, err := b.rt.Position(r.Context(), channel)
	if err != nil {
		http.Error(w, "the board is not available now", http.StatusServiceUnavailable)
		return
	}
	show(w, "index.html", struct {
		Since string
		Rows  []row
	}{position.String(), b.rows()})
}

func (b *board) add(w http.ResponseWriter, r *http.Request) {
	item, customer := field(r, "item"), field(r, "customer")
	if item == "" || customer == "" {
		http.Error(w, "item and customer are needed", http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	id := 1
	if n := len(b.orders); n > 0 {
		id = b.orders[n-1].ID + 1
	}
	b.orders = append(b.orders, Order{ID: id, Item: item, Customer: customer})
	// All rows: an event can arrive at a page that has the new row already, and must not add it again.
	b.changed(w, r, "rows", b.rowsLocked())
}

func (b *board) next(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.Atoi(r.PathValue("id"))
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.orders {
		o := &b.orders[i]
		if o.ID == id && o.Step < len(steps)-1 {
			o.Step++
			b.changed(w, r, "row", row{*o, true})
			return
		}
	}
	http.Error(w, "no such order, or it is shipped", http.StatusNotFound)
}

// field returns a value of the form, of at most 60 bytes.
func field(r *http.Request, name string) string {
	value := strings.TrimSpace(r.FormValue(name))
	return strings.ToValidUTF8(value[:min(len(value), 60)], "")
}

// changed saves the orders, and publishes what a template shows. The caller has locked b.mu, so events
// come in the order of the changes.
func (b *board) changed(w http.ResponseWriter, r *http.Request, name string, data any) {
	text, err := json.Marshal(b.orders)
	if err == nil {
		err = os.WriteFile(b.file, text, 0o600)
	}
	if err == nil {
		var html bytes.Buffer
		err = pages.ExecuteTemplate(&html, name, data)
		if err == nil {
			err = b.rt.Publish(r.Context(), channel, "changed", html.String())
		}
	}
	if err != nil {
		log.Print("orders: ", err)
		http.Error(w, "the change may be lost", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent) // the page receives the row as all others do
}

func (b *board) rows() []row {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rowsLocked()
}

func (b *board) rowsLocked() []row {
	rows := make([]row, len(b.orders))
	for i, o := range b.orders {
		rows[len(rows)-1-i] = row{Order: o} // the newest first
	}
	return rows
}

func show(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		log.Print("orders: ", err)
	}
}
