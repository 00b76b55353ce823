package load

import (
	"fmt"
	"math/rand/v2"
)

// jsonPayload is payload with a list of objects instead of the repeated letter, as an application
// publishes it. It has about half of its bytes when it is compressed. All events of a size have the
// same list: nothing is kept between two messages that are compressed.
func (p *publisher) jsonPayload(dst []byte, seq uint32, size int) []byte {
	dst = append(dst, payloadHead+tokenMark...)
	dst = fmt.Appendf(dst, "%08d", seq)
	if n := size - len(payloadHead) - tokenLen - len(jsonTail); len(p.pad) != n {
		p.pad = jsonPad(n)
	}
	dst = append(dst, p.pad...)
	return append(dst, jsonTail...)
}

// What is before and after the list.
const (
	jsonPadHead = `","p":[`
	jsonTail    = `]}`
)

var (
	jsonNames = []string{"Anna Berger", "Tom Okafor", "Mei Lin", "José Álvarez", "Priya Raman", "Lars Holm", "Zoë Martin", "Omar Haddad"}
	jsonItems = []string{"desk lamp", "paper, A4", "green tea", "bicycle bell", "notebook", "wool scarf", "camera strap", "tent peg"}
	jsonNotes = []string{"new", "paid by card", "waiting for stock", "leave it at the door", "gift", "call first", "urgent", ""}
)

// jsonPad returns the list without its end, in n bytes.
func jsonPad(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := []byte(jsonPadHead)
	for {
		one := fmt.Sprintf(`{"id":%d,"name":%q,"item":%q,"price":%d.%02d,"stock":%d,"note":%q,"sold":%t},`,
			100_000+r.IntN(900_000), jsonNames[r.IntN(len(jsonNames))], jsonItems[r.IntN(len(jsonItems))],
			r.IntN(500), r.IntN(100), r.IntN(1000), jsonNotes[r.IntN(len(jsonNotes))], r.IntN(2) == 0)
		if len(b)+len(one)+len(`""`) > n {
			break
		}
		b = append(b, one...)
	}
	b = append(b, '"')
	for len(b) < n-1 {
		b = append(b, 'a'+byte(r.IntN(26)))
	}
	return append(b, '"')
}
