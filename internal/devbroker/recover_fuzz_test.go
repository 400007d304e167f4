package devbroker_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/internal/devbroker"
)

// FuzzRecover gives a pass any bytes as a segment and as the producers' log. It refuses them or makes them whole, and
// then finds nothing more to do; it never keeps anything but a beginning of what was there.
func FuzzRecover(f *testing.F) {
	one := join(encode(0, 9, 0, 0, 0, "", "a"), encode(1, 7, 3, 0, withTxn, "", "b"))
	f.Add(one, logEntry(producer))
	f.Add(one[:len(one)-5], logEntry(producer)[:9])
	f.Add(append(bytes.Clone(one), make([]byte, 80)...), make([]byte, 20))
	f.Add(end(0, 3, true), []byte("\xff\xff\xff\xff"))
	f.Add([]byte("no batch at all, and not short either: it is longer than a header is"), []byte{})
	f.Fuzz(func(t *testing.T, segment, pids []byte) {
		dir := planted{parts: []map[string][]byte{{"0.dat": segment}}}.write(t)
		data := filepath.Join(dir, "data")
		if err := os.WriteFile(filepath.Join(data, "pids.log"), pids, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := devbroker.Recover(data, filepath.Join(dir, "damaged"), true); err != nil {
			if !errors.Is(err, devbroker.ErrUnreadable) {
				t.Fatal(err)
			}
			return
		}
		kept := tree(t, dir)["/data/partitions/t-0/0.dat"]
		if !bytes.HasPrefix(segment, []byte(kept)) {
			t.Errorf("kept %x of %x", kept, segment)
		}
		recovered(t, dir, false)
	})
}
