package nats

// trouble notes why presence cannot be reached.
func (p *presence) trouble(err error) {
	if was := p.away.Swap(&err); was == nil && !p.isDone() && p.begun.Load() {
		p.logAway(err)
	}
}

func (p *presence) logAway(err error) {
	p.o.Logger.Warn("presence cannot be shared through NATS; this node serves alone", "error", err)
}

// unreached notes why a channel's log cannot be reached.
func (p *presence) unreached(c *channel, err error) {
	if isDenied(err) && p.isShared() {
		p.refuse(c, err)
	} else {
		p.trouble(err)
	}
}

// refuse notes that a channel's presence is not permitted, or with nil that it is.
func (p *presence) refuse(c *channel, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.refused[c] = err
	} else {
		delete(p.refused, c)
	}
}

// isAway returns why presence, or that of a channel, is not shared, or nil.
func (p *presence) isAway() error {
	if err := p.away.Load(); err != nil {
		return *err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, err := range p.refused {
		return err
	}
	return nil
}

// fine notes that presence can be reached again.
func (p *presence) fine() {
	if was := p.away.Swap(nil); was != nil {
		p.o.Logger.Info("presence is shared through NATS again")
	}
}
