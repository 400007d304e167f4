package dial_test

import (
	"errors"
	"fmt"

	"github.com/millrace/millrace/internal/dial"
)

func ExampleCheck() {
	for _, u := range []string{"https://example.com/hook", "https://169.254.169.254/latest/meta-data", "https://2130706433/", "https://user:secret@example.com/"} {
		fmt.Println(errors.Is(dial.Check(u), dial.ErrBlocked))
	}
	// Output:
	// false
	// true
	// true
	// true
}
