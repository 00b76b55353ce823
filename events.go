package pushy

// Events marks a struct that has the types of a channel's events: one field for each event, whose json name is the
// name of the event, and whose type is that of its data. It has no methods, and a program that uses it pays nothing
// for it. Command pushy-types finds these marks, and writes TypeScript declarations of the structs, so that the
// page's use of the events is checked:
//
//	type ChatEvents struct {
//		Said Line     `json:"said"`
//		Left struct{} `json:"left"`
//	}
//
//	var _ pushy.Events[ChatEvents]
//
//	//go:generate go run github.com/gopushy/pushy/cmd/pushy-types .
type Events[T any] struct{}
