package hub

import (
	"weak"

	"github.com/gopushy/pushy/internal/fanout"
)

// rosterTexts has the texts of the members of a roster, so that the lists of clients that come one
// after another are not rendered anew for each of them. A roster refers to it weakly: when no client
// has come for some time, the garbage collector frees it.
type rosterTexts struct {
	blocks  []*block // each for the next blockPlaces places
	between fanout.Part
}

// block has the texts of the members of some places. A change of one member affects only one block.
type block struct {
	fanout.Part
	places int // the number of its places that it has, from the first one on
}

const blockPlaces = 32

// parts returns the texts of all members, with a separator between two of them. They are valid until
// the roster is changed, or parts is called again. show sets the Text of a member.
func (r *roster) parts(separator []byte, show func(m *Member)) []*fanout.Part {
	texts := r.texts.Value()
	if texts == nil {
		texts = &rosterTexts{}
		texts.between.Add(separator)
		r.texts = weak.Make(texts)
	}
	for len(texts.blocks)*blockPlaces < len(r.places) {
		texts.blocks = append(texts.blocks, &block{})
	}
	parts := make([]*fanout.Part, 0, 2*len(texts.blocks))
	for i, b := range texts.blocks {
		first := i * blockPlaces
		places := r.places[first:min(first+blockPlaces, len(r.places))]
		for _, p := range places[b.places:] {
			if p.member == nil {
				continue
			}
			show(p.member)
			if b.Len() > 0 {
				b.Add(separator)
			}
			b.Add(p.member.Text)
		}
		b.places = len(places)
		if b.Len() == 0 {
			continue
		}
		if len(parts) > 0 {
			parts = append(parts, &texts.between)
		}
		parts = append(parts, &b.Part)
	}
	return parts
}

// forget is called when the text of a place has changed.
func (r *roster) forget(place int) {
	texts := r.texts.Value()
	if texts != nil && place/blockPlaces < len(texts.blocks) {
		texts.blocks[place/blockPlaces].reset()
	}
}

// moved is called when the members from a place on have other places.
func (r *roster) moved(from int) {
	texts := r.texts.Value()
	if texts == nil {
		return
	}
	for i := from / blockPlaces; i < len(texts.blocks); i++ {
		texts.blocks[i].reset()
	}
	texts.blocks = texts.blocks[:min(len(texts.blocks), (len(r.places)+blockPlaces-1)/blockPlaces)]
}

func (b *block) reset() {
	b.Reset()
	b.places = 0
}

// subscribedFrameLocked returns a Subscribed event, with the members that clients see at e.ListAt.
func (ch *Channel) subscribedFrameLocked(e *Event) *fanout.Frame {
	if e.Conn.foreign != 0 {
		return e.Conn.listFrame(e)
	}
	text := texts.Get().(*[]byte)
	defer putText(text)
	p := ch.hub.cfg.Protocol
	*text = p.Append((*text)[:0], *e)
	head := *text
	var parts []*fanout.Part
	var tail []byte
	if e.ListAt != nil {
		head = (*text)[:*e.ListAt]
		tail = (*text)[*e.ListAt:]
		parts = ch.replica.shown().parts(p.Separator(), ch.showLocked)
	}
	return fanout.NewListOf(head, parts, tail, e.Conn.out.Form())
}
