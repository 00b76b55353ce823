package jsvalue

// Object is a JSON object to which members are added, in that order. nil is an object without
// members.
type Object []byte

// Text adds a member whose value is a string.
func (o Object) Text(name, value string) Object {
	o = AppendQuote(o.member(name), value)
	return append(o, '}')
}

// Raw adds a member whose value is JSON.
func (o Object) Raw(name string, value []byte) Object {
	o = append(o.member(name), value...)
	return append(o, '}')
}

func (o Object) member(name string) Object {
	if len(o) == 0 {
		o = append(make(Object, 0, 96), '{')
	} else {
		o[len(o)-1] = ','
	}
	return append(AppendQuote(o, name), ':')
}
