package pushy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	"github.com/gopushy/pushy/internal/calls"
)

// askCount is the question how many subscribers channels have on a node. Its data is a list of
// names, and its answer a list of numbers.
const askCount = "pushy:count"

// subscribers returns how many subscribers a channel has on this node.
func (s *Server) subscribers(channel string) uint64 {
	if ch := s.hub.Lookup(channel); ch != nil {
		return uint64(ch.Subscribers())
	}
	return 0
}

// answerCount answers askCount.
func (s *Server) answerCount(_ context.Context, data json.RawMessage) (any, error) {
	var channels []string
	if err := json.Unmarshal(data, &channels); err != nil || len(channels) > calls.MaxPairs {
		return nil, errors.New("the data must be a list of names")
	}
	counts := make([]uint64, 0, len(channels))
	for _, channel := range channels {
		counts = append(counts, s.subscribers(channel))
	}
	return counts, nil
}

// countSubscribers sets the subscribers of the pairs' channels on all nodes. Nodes that do not answer
// within control.DefaultTimeout are silent. If the other nodes cannot be asked, it sets nothing,
// because the number is not known.
func (s *Server) countSubscribers(ctx context.Context, a *calls.PublishAnswer, pairs []pair) {
	index := map[string]int{}
	var channels []string
	for _, p := range pairs {
		if _, known := index[p.channel]; !known {
			index[p.channel] = len(channels)
			channels = append(channels, p.channel)
		}
	}
	total := make([]uint64, len(channels))
	coverage, err := gather(ctx, s, askCount, channels, func(counts []uint64) bool {
		if len(counts) != len(channels) {
			return false
		}
		for i, n := range counts {
			total[i] += n
		}
		return true
	})
	if err != nil {
		s.notices.Warn("cannot count the subscribers on all nodes", "", slog.Any("error", err))
		return
	}
	a.Counted = true
	a.Silent = coverage.Silent
	for i, p := range pairs {
		a.Receipts[i].Subscribers = total[index[p.channel]]
	}
}
