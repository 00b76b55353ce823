package main

import (
	"fmt"

	"github.com/gopushy/pushy/bench/internal/load"
)

// compressionSizes are the bytes of an event's data.
var compressionSizes = []int{1000, 4000}

// planCompression measures permessage-deflate: the server compresses, and no client, half of them, or
// all have negotiated it, beside a server that does not compress.
func planCompression(quick bool) []batch {
	b := batch{rounds: times(quick, 3)}
	for _, size := range compressionSizes {
		b.sittings = append(b.sittings, sitting{
			clients: 1000,
			loads:   ofJSON(closed(quick, size, 8, 1)),
		}.each("pushy", "pushy/deflate-none", "pushy/deflate-half", "pushy/deflate")...)
	}
	return []batch{b}
}

// ofJSON makes the data of events lists of objects, which compress as those of applications.
func ofJSON(loads []load.Load) []load.Load {
	for i := range loads {
		loads[i].JSON = true
	}
	return loads
}

// compressionChecks are the figures of the section "compression".
func compressionChecks() []check {
	of := func(kind, what string, size int) query {
		q := at("compression", kind, what, 1000)
		q.size = size
		return q
	}
	var list []check
	for _, size := range compressionSizes {
		for _, what := range []string{"w8", "w1"} {
			for _, kind := range []string{"pushy/deflate", "pushy/deflate-half", "pushy/deflate-none"} {
				figure := fmt.Sprintf("%s%s, %s bytes, %s", cpuFigure, loadNames[what], thousands(size), labelOf(kind))
				list = append(list, ratio(figure, cpu, of(kind, what, size), of("pushy", what, size), 1.1).than("pushy without compression"))
			}
		}
		figure := fmt.Sprintf("bytes a delivery, %s bytes, %s", thousands(size), labelOf("pushy/deflate"))
		list = append(list, ratio(figure, readBytes, of("pushy/deflate", "w8", size), of("pushy", "w8", size), .6).than("pushy without compression"))
	}
	return list
}
