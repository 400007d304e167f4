package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"time"
)

// newID returns a UUIDv7 (RFC 9562 §5.7) in its text form: 48 bits of milliseconds since the epoch, 12 bits of
// the fraction of that millisecond (§6.2, method 3), 62 random bits. Ids of one process sort by time to about a
// quarter of a microsecond; nothing in Millrace relies on that.
func newID() string {
	now := time.Now()
	ms := uint64(now.UnixMilli())
	fraction := uint64(now.Nanosecond()%1_000_000) << 12 / 1_000_000
	var u [16]byte
	binary.BigEndian.PutUint64(u[:8], ms<<16|0x7000|fraction)
	binary.BigEndian.PutUint64(u[8:], rand.Uint64()&^(3<<62)|2<<62) //nolint:gosec // an id must be unique, not secret
	return formatUUID(&u)
}

// DeriveID returns a UUIDv8 (RFC 9562 §5.8) made of the SHA-256 of parts: the same parts give the same id,
// in any process and any version. Parts are length-prefixed, so ("a","bc") and ("ab","c") differ.
func DeriveID(parts ...string) string {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	u := [16]byte(sum[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return formatUUID(&u)
}

func formatUUID(u *[16]byte) string {
	var b [36]byte
	hex.Encode(b[:8], u[:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:], u[10:])
	return string(b[:])
}
