package memory

// Logs returns the number of channels' logs.
func (c *Cluster) Logs() int {
	n := 0
	for i := range c.shards {
		n += len(c.shards[i].all())
	}
	return n
}
