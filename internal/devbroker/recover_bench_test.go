package devbroker_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/internal/devbroker"
)

// A pass reads everything: the target is 2 GB in a second.
func BenchmarkRecover(b *testing.B) {
	var segment []byte
	value := string(bytes.Repeat([]byte("v"), 16<<10))
	for i := range 1024 {
		segment = append(segment, encode(int64(i), 9, 0, int32(i), 0, "", value)...)
	}
	var p planted
	for range 16 {
		p.parts = append(p.parts, map[string][]byte{"0.dat": segment})
	}
	dir := p.write(b)
	b.SetBytes(int64(16 * len(segment)))
	for b.Loop() {
		if _, err := devbroker.Recover(filepath.Join(dir, "data"), filepath.Join(dir, "damaged"), false); err != nil {
			b.Fatal(err)
		}
	}
}
