package cursor

import (
	"encoding/binary"
	"strings"
)

// Seal gives meta, where it is base64 at all, the checksum of its body at position.
func Seal(position int64, meta string) string {
	b, err := encoding.DecodeString(strings.TrimPrefix(meta, prefix))
	if err != nil || len(b) < head {
		return meta
	}
	b[0] = version
	binary.BigEndian.PutUint32(b[1:], checksum(position, b[head:]))
	return prefix + encoding.EncodeToString(b)
}
