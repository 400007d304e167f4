package signature_test

import (
	"bytes"
	"testing"

	"github.com/millrace/millrace/signature"
)

func BenchmarkVerify(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 64) // 1 KiB
	for _, name := range []string{"standard", "stripe", "github"} {
		b.Run(name, func(b *testing.B) {
			s := lookup(b, name)
			keys := []signature.Key{parseKey(b, s, sample(b, s, 0))}
			req, err := s.Sign(&signature.Request{Method: "POST", Body: body}, keys, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", noon)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Verify(req, keys, noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
