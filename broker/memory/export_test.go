package memory

// Logs returns how many channels' logs the cluster has.
func (c *Cluster) Logs() int {
	n := 0
	for i := range c.shards {
		n += len(c.shards[i].all())
	}
	return n
}
