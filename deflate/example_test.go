package deflate_test

import (
	"fmt"

	"github.com/gopushy/pushy"
	"github.com/gopushy/pushy/deflate"
)

func ExampleFrom() {
	srv, err := pushy.New(pushy.Options{
		SecretKey: "of sixteen bytes or more",
		Compress:  deflate.From(512),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	fmt.Println(srv.Stats().Compressed.Events)
	// Output: 0
}
