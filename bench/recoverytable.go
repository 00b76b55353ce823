package main

import (
	"fmt"
	"io"
)

// recoveryChecks are the figures of issue 13.
func recoveryChecks() []check {
	returning := func(what string) query {
		return query{section: "return", kind: "pushy/kept", what: what, clients: crowd(false)}
	}
	// worst is for what must not happen in any round.
	worst := func(figure string, q query, value string) check {
		c := single(figure, value, q, "", 0)
		c.worst = true
		return c
	}
	var list []check
	for _, c := range []struct {
		what  string
		limit float64
	}{{"missed 0", 5}, {"missed 20", 8}, {"missed 100", 20}} {
		q := returning(c.what)
		figure := "server CPU of a return over connecting and subscribing, " + c.what
		over := single(figure, overAsk, q, " µs a client", c.limit)
		over.detail = func(all []Record) string {
			return fmt.Sprintf("all at once %s µs, which is %s over; the last after %s ms; peak %s MiB",
				q.text(all, clientCPU), q.text(all, overCPU), q.text(all, lastMillis), q.text(all, peakMiB))
		}
		list = append(list, over,
			worst("clients that the server disconnected, "+c.what, q, cutOff),
			worst("clients without everything, "+c.what, q, lacking))
	}
	hold := query{section: "hold", kind: "pushy", what: "held", clients: crowd(false)}
	list = append(list,
		worst("messages to members because of 10,000 that return", hold, disturbing),
		worst("of these, not the same member as before, or with a diff that is not empty", hold, lacking),
		worst("of these, disconnected", hold, cutOff),
	)
	for _, window := range []string{"8", "1"} {
		on := query{
			section: "kept",
			kind:    "pushy/kept",
			what:    "w" + window,
			clients: 1000,
		}
		off := on
		off.kind = "pushy"
		figure := "server CPU a delivery of kept events, window " + window
		list = append(list, ratio(figure, cpu, on, off, 1.05).than("events that are not kept"))
	}
	// Without a broker, the heap has the log, too.
	ring := query{
		section:  "ring",
		kind:     "pushy/redis/kept",
		what:     "kept",
		channels: memoryChannels,
	}
	message := len(`{"event":"m","channel":"kept-0001","data":,"offset":123}`) + eventSize
	bound := 2.2*float64(message) + 190
	list = append(list,
		single("heap for a kept event of 200 bytes in the ring", heapBytes, ring, " bytes", bound),
		single("the same after a replay", heapFramed, ring, " bytes", bound))
	list = append(list, shakeChecks()...)
	return append(list, stormChecks()...)
}

// printRecovery prints the medians of the sections of recovery, and the figures that have limits.
func printRecovery(w io.Writer, records []Record) {
	type key struct{ section, kind, what string }
	seen := map[key]bool{}
	fmt.Fprintln(w, "\nMedians:")
	for _, r := range records {
		k := key{r.Section, r.Kind, r.What}
		if seen[k] {
			continue
		}
		seen[k] = true
		q := query{
			section:  r.Section,
			kind:     r.Kind,
			what:     r.What,
			clients:  r.Clients,
			channels: r.Channels,
			size:     r.Size,
		}
		middle := r
		middle.Bins = nil
		middle.Value = map[string]float64{}
		for name := range r.Value {
			middle.Value[name], _ = q.median(records, name)
		}
		fmt.Fprintln(w, middle)
	}
	printStorms(w, records)
	fmt.Fprintln(w)
	printChecks(w, recoveryChecks(), records)
}
