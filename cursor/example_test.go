package cursor_test

import (
	"errors"
	"fmt"

	"github.com/millrace/millrace/cursor"
)

// A cursor rides in the metadata of an ordinary offset commit; what a stranger wrote there leaves the offset.
func ExampleDecode() {
	meta, _, err := cursor.Encode(cursor.Cursor{
		Position: 1000,
		Floor:    990,
		Open:     []cursor.Open{{Offset: 990, Lane: 0xfeed, Attempt: 1}},
		Done:     []cursor.Run{{From: 1004, To: 1010}},
	}, cursor.MaxRoom)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := cursor.Decode(1000, meta)
	fmt.Println(c.Position, c.Floor, c.Open[0].Offset, c.Done, err)

	c, err = cursor.Decode(1000, "kgo-4a1ef5d0-7c61-4c8d-9d26-0d0c4a9a2b8e")
	fmt.Println(c.Position, c.Floor, errors.Is(err, cursor.ErrForeign))
	// Output:
	// 1000 990 990 [{1004 1010}] <nil>
	// 1000 1000 true
}
