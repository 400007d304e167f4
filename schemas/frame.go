package schemas

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace/millrace/event"
)

// HeaderValueSchema is the record header that names the schema of the value, in the form that keeps the payload
// pure: 0x01 and the 16 bytes of the schema's GUID.
const HeaderValueSchema = "__value_schema_id"

// The first byte of a frame says what follows it.
const (
	magicID   = 0x00 // int32, big-endian
	magicGUID = 0x01 // 16 bytes
)

const (
	idFrame   = 1 + 4
	guidFrame = 1 + 16
)

// Frame is how a value says its schema.
type Frame struct {
	// ID is the schema's number in the registry; 0 where GUID says it.
	ID int32
	// GUID is the schema's name in every registry, all zero where ID says it.
	GUID [16]byte
	// Body is the value without its frame. It points into the value.
	Body []byte
}

// Framed reports whether there is a frame.
func (f Frame) Framed() bool { return f.ID != 0 || f.GUID != [16]byte{} }

// ParseFrame reads the frame of a record's value: that of the last header [HeaderValueSchema] with a value, else
// the first bytes of the value. It allocates nothing. An error wraps ErrPoison. A value whose first byte begins no
// frame is returned as it is, without one: whether that is an error depends on the topic.
func ParseFrame(value []byte, headers event.Headers) (Frame, error) {
	for i := len(headers) - 1; i >= 0; i-- {
		h := &headers[i]
		if h.Key != HeaderValueSchema {
			continue
		}
		if h.Value == nil {
			break // the last one counts, and it says nothing
		}
		f, rest, err := parseFrame(h.Value)
		if err != nil {
			return Frame{}, err
		}
		if !f.Framed() || len(rest) > 0 {
			return Frame{}, fmt.Errorf("%w: the header %s holds %d bytes that are no schema id", ErrPoison, HeaderValueSchema, len(h.Value))
		}
		f.Body = value
		return f, nil
	}
	f, rest, err := parseFrame(value)
	if err != nil {
		return Frame{}, err
	}
	f.Body = rest
	return f, nil
}

func parseFrame(b []byte) (Frame, []byte, error) {
	var f Frame
	if len(b) == 0 || b[0] > magicGUID {
		return f, b, nil
	}
	need := idFrame
	if b[0] == magicGUID {
		need = guidFrame
	}
	if len(b) < need {
		return f, nil, fmt.Errorf("%w: the frame is cut off: %d bytes of %d", ErrPoison, len(b), need)
	}
	if b[0] == magicGUID {
		f.GUID = [16]byte(b[1:])
	} else {
		f.ID = int32(binary.BigEndian.Uint32(b[1:]))
	}
	if f.ID < 0 || !f.Framed() {
		return Frame{}, nil, fmt.Errorf("%w: the frame names the schema id %d, and ids start at 1", ErrPoison, f.ID)
	}
	return f, b[need:], nil
}

// appendFrame appends the payload form, which every client reads.
func appendFrame(dst []byte, id int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, magicID), uint32(id))
}
