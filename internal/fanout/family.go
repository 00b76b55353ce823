package fanout

// familySize is the number of forms of one protocol.
const familySize = 16

// families has the encoders of the protocols other than pushy's. The forms of the first one begin
// with familySize.
var families []func(text []byte) Encoding

// Encoding is one message in the forms of another protocol. Its methods are safe for concurrent use.
type Encoding interface {
	// Bytes returns the message in one form, which is encoded at first use. It is empty if the
	// clients do not receive the message.
	Bytes(form Form) []byte
	// Has reports whether the message has that form already.
	Has(form Form) bool
	// Size returns the number of bytes of the forms that it has.
	Size() int
}

// NewFamily returns the first of 16 forms of a protocol. encode returns the Encoding of a message,
// whose text is as for NewFrame. It is called when an Outbox first needs one of these forms, so
// that a Frame costs nothing more while no client uses the protocol. Packages call NewFamily when
// they are initialized, and not later.
func NewFamily(encode func(text []byte) Encoding) Form {
	families = append(families, encode)
	return Form(len(families) * familySize)
}

// encoded is one of the Encodings of a Frame.
type encoded struct {
	Encoding
	family Form
	next   *encoded
}

// Encoding returns the Encoding of the Frame to which a form belongs. It is not for raw frames.
func (f *Frame) Encoding(form Form) Encoding {
	for {
		first := f.more.Load()
		if e := f.encoding(form); e != nil {
			return e
		}
		family := form / familySize
		e := &encoded{
			Encoding: families[family-1](f.text),
			family:   family,
			next:     first,
		}
		if f.more.CompareAndSwap(first, e) {
			return e.Encoding
		}
	}
}

// SetEncoding gives the Frame, which no Outbox has yet, an Encoding other than the one that is made
// from its text, for the protocol to which a form belongs.
func (f *Frame) SetEncoding(form Form, e Encoding) {
	f.more.Store(&encoded{
		Encoding: e,
		family:   form / familySize,
		next:     f.more.Load(),
	})
}

// encoding returns nil if the Frame does not have the Encoding yet.
func (f *Frame) encoding(form Form) Encoding {
	for e := f.more.Load(); e != nil; e = e.next {
		if e.family == form/familySize {
			return e.Encoding
		}
	}
	return nil
}

// bytesOf returns the Frame in a form that is neither Framed nor Bare.
func (f *Frame) bytesOf(form Form) []byte {
	if form >= familySize {
		return f.Encoding(form).Bytes(form)
	}
	if e := f.encoding(form); e != nil && e.Has(form) {
		return e.Bytes(form)
	}
	return f.Bytes(form.Plain())
}

// IsForeign reports whether it is a form of another protocol.
func (form Form) IsForeign() bool { return form >= familySize }

// Joins reports whether consecutive messages in this form can be one Frame, see NewRun.
func (form Form) Joins() bool { return form == Framed || form == Bare }
