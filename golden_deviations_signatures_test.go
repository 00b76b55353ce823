package pushy_test

import "strings"

func rawSigned(data string) vectorDeviation {
	return vectorDeviation{number: "D19", reply: triggered(201), data: data}
}

var wrongEmptyObjectKey = refused(403, "403", "Invalid credentials ("+emptyObjectKey+")")

var triggerVectorDeviations = map[string]vectorDeviation{
	"dup-keys":        {number: "D15", data: `{"a":1,"b":2,"a":3}`},
	"int-keys":        {number: "D15", data: `{"b":1,"2":1,"1":1}`},
	"int-keys-nested": {number: "D15", data: `[{"b":1,"2":1,"1":{"y":1,"3":1}}]`},

	"empty-json-ct": {number: "D20", reply: refused(403, "403", "Invalid credentials ("+sha256Hex("vec-chan:test:1700000000::secret")+")"),
		signed: `{}`, data: `{}`},

	"json-ct-uppercase": {number: "D13", reply: wrongEmptyObjectKey, signed: `{"a":1}`, data: `{"a":1}`},
	"json-ct-space":     {number: "D13", reply: wrongEmptyObjectKey, signed: `{"a":1}`, data: `{"a":1}`},
	"json-ct-plusjson":  {number: "D13", reply: wrongEmptyObjectKey, signed: `{"a":1}`, data: `{"a":1}`},

	"text-json":             {number: "D13", reply: badType},
	"text-plain":            {number: "D13", reply: badType},
	"no-ct-with-body":       {number: "D13", reply: badType},
	"octet":                 {number: "D13", reply: badType},
	"xml":                   {number: "D13", reply: badType},
	"multipart-fields":      {number: "D13", reply: badType},
	"multipart-no-boundary": {number: "D13", reply: badType},

	"gzip-json":              {number: "D24", reply: badEncoding},
	"gzip-header-plain-body": {number: "D24", reply: badEncoding},

	"form-proto": {number: "D3", reply: refused(403, "403", "Invalid credentials ("+sha256Hex(`vec-chan:test:1700000000:{"a":"2"}:secret`)+")"),
		signed: `{"__proto__":"1","a":"2"}`, data: `{"__proto__":"1","a":"2"}`},
	"form-hasOwnProperty": {number: "D3",
		reply:  refused(403, "403", "Invalid credentials ("+sha256Hex(`vec-chan:test:1700000000:{"hasOwnProperty":[null,"1"],"toString":[null,"2"],"a":"3"}:secret`)+")"),
		signed: `{"hasOwnProperty":"1","toString":"2","a":"3"}`, data: `{"hasOwnProperty":"1","toString":"2","a":"3"}`},

	"foreign-php-unicode-escape":    rawSigned(`{"a":"é"}`),
	"foreign-raw-body-with-space":   rawSigned(`{"a":1}`),
	"foreign-float-1.0":             rawSigned(`{"n":1.0}`),
	"foreign-source-order-int-keys": rawSigned(`{"b":1,"1":2}`),
	"foreign-big-int-exact":         rawSigned(`{"n":12345678901234567890}`),
	"foreign-go-exp-1e21":           rawSigned(`{"n":1e21}`),
	"foreign-minus-zero":            rawSigned(`{"n":-0}`),
	"foreign-empty-as-array":        {number: "D10", reply: triggered(201), data: `{}`},

	"spelling x e 1700000000abc":      {number: "D12", reply: badTimestamp},
	"spelling x e abc":                {number: "D12", reply: badTimestamp},
	"spelling x e 0x6553f100":         {number: "D12", reply: badTimestamp},
	"spelling x a&event=b 1700000000": {number: "D12", reply: refused(400, "400", "Parameter event …")},
	"spelling A:B c:d 1700000000":     {number: "D4", reply: badName},

	"php-default-empty": {number: "D10", reply: triggered(201), data: `{}`},
	"php-unicode":       {number: "D16", reply: triggered(201), data: `{"u":"é"}`},
}

// subscribeVectorDeviations are replies, to the tokens recorded.
var subscribeVectorDeviations = map[string]struct{ number, reply string }{
	"str-2028":           {"D5", badVector},
	"str-empty":          {"D5", badVector},
	"str-lone-surrogate": {"D5", badVector},
	"number":             {"D5", badVector},
	"true":               {"D5", badVector},
	"false":              {"D5", badVector},
	"array":              {"D5", badVector},
	"html":               {"D5", badVector},
	"str-array":          {"D5", vectorMember(``)},
	"object":             {"D7", vectorMember(`"username":"ann",`)},
	"object-int-keys":    {"D7", vectorMember(`"1":1,"2":1,"b":1,`)},
	"object-nested":      {"D7", vectorMember(`"a":{"b":[1,2,{"c":null}]},"d":1.5,`)},

	"refused-slash-escaped":   {"D16", vectorMember(`"a":"/",`)},
	"refused-unicode-escaped": {"D16", badVector},

	"php-empty-private-php": {"D5", strings.Replace(vectorMember(``), "private-vec", "private-php", 1)},
	"php-list-private-php":  {"D5", strings.Replace(badVector, "private-vec", "private-php", 1)},
}

func vectorMember(fields string) string {
	return `{"event":"pushy:subscription-success","data":{"channel":"private-vec","memberId":"<memberId>",` +
		`"presence":[{` + fields + `"subscribed":<ms>,"memberId":"<memberId>","idle":false}]}}`
}
