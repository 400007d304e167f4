package cursor_test

import (
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cursor"
)

// randomCursor returns a valid cursor with at most n open entries and n runs, with times to the second.
func randomCursor(r *rand.Rand, n int) cursor.Cursor {
	c := cursor.Cursor{Position: r.Int64N(1 << 40), Epoch: -1}
	c.Floor = c.Position
	at := c.Position - int64(n)*1000
	for range r.IntN(n + 1) {
		at += 1 + r.Int64N(999)
		if at < 0 || at >= c.Position {
			continue
		}
		first := time.Unix(1_700_000_000+r.Int64N(1_000_000), 0).UTC()
		c.Open = append(c.Open, cursor.Open{
			Offset: at, Lane: r.Uint32(), Held: r.IntN(10) == 0, Attempt: uint16(r.IntN(1 << 16)),
			First: first, Due: first.Add(time.Duration(r.Int64N(300_000)) * time.Second),
		})
	}
	if len(c.Open) > 0 {
		c.Floor = c.Open[0].Offset
	}
	if r.IntN(2) == 0 {
		from := r.Int64N(1 << 40)
		c.Mark = &cursor.Mark{From: from, To: from + r.Int64N(1<<20)}
	}
	end := c.Position
	for range r.IntN(n + 1) {
		from := end + 1 + r.Int64N(100)
		end = from + 1 + r.Int64N(100)
		c.Done = append(c.Done, cursor.Run{From: from, To: end})
	}
	return c
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		c := randomCursor(r, 20)
		meta, spill, err := cursor.Encode(c, cursor.MaxRoom)
		if err != nil || len(spill) > 0 {
			t.Fatalf("encode %+v: spill %v, error %v", c, spill, err)
		}
		got, err := cursor.Decode(c.Position, meta)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("got %+v, error %v, want %+v", got, err, c)
		}
	}
}

func TestTimesAreKeptToTheSecond(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 12, 0, 0, 500, time.UTC)
	c := cursor.Cursor{Position: 10, Open: []cursor.Open{{Offset: 3, First: at, Due: at.Add(time.Minute)}, {Offset: 4}}}
	meta, _, err := cursor.Encode(c, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cursor.Decode(10, meta)
	if err != nil {
		t.Fatal(err)
	}
	want := cursor.Open{Offset: 3, First: at.Truncate(time.Second), Due: at.Truncate(time.Second).Add(61 * time.Second)}
	if got.Open[0] != want || !got.Open[1].First.IsZero() || !got.Open[1].Due.IsZero() {
		t.Errorf("got %+v, want %+v and an entry without times", got.Open, want)
	}
}

// Some 380 entries fit into a commit of 4,096 bytes; what is due last is spilled, held lanes never are.
func TestWhatDoesNotFitIsSpilledByDueTime(t *testing.T) {
	t.Parallel()
	c := cursor.Cursor{Position: 1_000_000, Floor: 5}
	for i := range 1000 {
		first := time.Unix(1_700_000_000+int64(i), 0).UTC()
		c.Open = append(c.Open, cursor.Open{
			Offset: int64(i * 20), Lane: rand.Uint32(), Held: i%100 == 99, Attempt: 1, First: first, Due: first.Add(time.Minute),
		})
	}
	c.Done = []cursor.Run{{From: 1_000_001, To: 1_000_002}}
	meta, spill, err := cursor.Encode(c, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	if len(meta) > cursor.MaxRoom {
		t.Fatalf("%d bytes of metadata, at most %d are allowed", len(meta), cursor.MaxRoom)
	}
	got, err := cursor.Decode(c.Position, meta)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Open) < 300 || got.Floor != 5 {
		t.Errorf("%d entries fit, want 300 or more; floor %d, want 5", len(got.Open), got.Floor)
	}
	var last time.Time
	held := 0
	for _, o := range got.Open {
		if o.Held {
			held++
		} else if o.Due.After(last) {
			last = o.Due
		}
	}
	if held != 10 {
		t.Errorf("%d held lanes kept, want all 10", held)
	}
	for _, o := range spill {
		if o.Held || o.Due.Before(last) {
			t.Errorf("spilled %+v while an entry due at %v was kept", o, last)
		}
	}
	all := slices.Concat(got.Open, spill)
	slices.SortFunc(all, func(a, b cursor.Open) int { return int(a.Offset - b.Offset) })
	if !reflect.DeepEqual(all, c.Open) {
		t.Error("kept and spilled entries together are not those that were open")
	}
}

func TestFarRunsAreDroppedFirst(t *testing.T) {
	t.Parallel()
	c := cursor.Cursor{Position: 100}
	for i := range int64(5000) {
		c.Done = append(c.Done, cursor.Run{From: 101 + 300*i, To: 102 + 300*i})
	}
	meta, _, err := cursor.Encode(c, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cursor.Decode(100, meta)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.Done); n < 500 || n > 1024 || !slices.Equal(got.Done, c.Done[:n]) {
		t.Errorf("%d runs kept, want the first 500 to 1,024", n)
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	held := make([]cursor.Open, 1000)
	for i := range held {
		held[i] = cursor.Open{Offset: int64(i), Held: true}
	}
	tests := []struct {
		name string
		c    cursor.Cursor
		room int
		is   error
	}{
		{"held lanes that do not fit", cursor.Cursor{Position: 5000, Open: held}, 4096, cursor.ErrRoom},
		{"no room at all", cursor.Cursor{}, 100, cursor.ErrRoom},
		{"a negative position", cursor.Cursor{Position: -1}, 4096, nil},
		{"a floor above the position", cursor.Cursor{Position: 1, Floor: 2}, 4096, nil},
		{"an open offset at the position", cursor.Cursor{Position: 1, Open: []cursor.Open{{Offset: 1}}}, 4096, nil},
		{"open offsets out of order", cursor.Cursor{Position: 9, Open: []cursor.Open{{Offset: 2}, {Offset: 1}}}, 4096, nil},
		{"a run at the position", cursor.Cursor{Position: 1, Done: []cursor.Run{{From: 1, To: 2}}}, 4096, nil},
		{"an empty run", cursor.Cursor{Position: 1, Done: []cursor.Run{{From: 2, To: 2}}}, 4096, nil},
		{"a mark that ends before it starts", cursor.Cursor{Mark: &cursor.Mark{From: 2, To: 1}}, 4096, nil},
		{"a time before 1970", cursor.Cursor{Position: 9, Open: []cursor.Open{{Due: time.Unix(-5, 0)}}}, 4096, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			meta, _, err := cursor.Encode(tt.c, tt.room)
			if err == nil || meta != "" || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %q and error %v, want %v", meta, err, tt.is)
			}
		})
	}
}

func TestStrangeMetadataLeavesThePosition(t *testing.T) {
	t.Parallel()
	good, _, err := cursor.Encode(cursor.Cursor{Position: 7, Floor: 3, Open: []cursor.Open{{Offset: 3}}}, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	newer := []byte{2, 0, 0, 0, 0}
	tests := []struct {
		name, meta string
		position   int64
		want       error
	}{
		{"absent", "", 7, cursor.ErrForeign},
		{"a kgo member id", "kgo-4a1ef5d0-7c61-4c8d-9d26-0d0c4a9a2b8e", 7, cursor.ErrForeign},
		{"the member id of a client named millrace", "millrace-4a1ef5d0-7c61-4c8d-9d26-0d0c4a9a2b8e", 7, cursor.ErrForeign},
		{"longer than Kafka allows", good + strings.Repeat("A", 5000), 7, cursor.ErrForeign},
		{"a later version", "mill:" + base64.RawStdEncoding.EncodeToString(newer), 7, cursor.ErrForeign},
		{"cut", good[:len(good)-3], 7, cursor.ErrDamaged},
		{"only the prefix", "mill:", 7, cursor.ErrDamaged},
		{"not base64", "mill:!!!!", 7, cursor.ErrDamaged},
		{"at another offset", good, 8, cursor.ErrDamaged},
		{"one bit off", good[:10] + string(good[10]^1) + good[11:], 7, cursor.ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := cursor.Decode(tt.position, tt.meta)
			if !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			want := cursor.Cursor{Position: tt.position, Epoch: -1, Floor: tt.position}
			if !reflect.DeepEqual(c, want) {
				t.Errorf("got %+v, want the bare position %+v", c, want)
			}
		})
	}
}

// FuzzDecode feeds what strangers may have committed. What decodes is a cursor that encodes and decodes to itself.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 5, 40} {
		c := randomCursor(r, n)
		meta, _, err := cursor.Encode(c, cursor.MaxRoom)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.Position, meta, true)
		f.Add(c.Position, meta[:len(meta)/2], true)
		f.Add(c.Position, meta, false)
	}
	f.Add(int64(5), "", true)
	f.Add(int64(-5), "kgo-4a1ef5d0", false)
	f.Add(int64(0), "mill:\xff\xff", true)
	f.Fuzz(func(t *testing.T, position int64, meta string, seal bool) {
		if seal { // with a good checksum the fuzzer gets to the body
			meta = cursor.Seal(position, meta)
		}
		c, err := cursor.Decode(position, meta)
		if err != nil {
			if c.Position != position || len(c.Open)+len(c.Done) > 0 || c.Mark != nil {
				t.Fatalf("a bare position was expected with error %v: %+v", err, c)
			}
			return
		}
		again, spill, err := cursor.Encode(c, cursor.MaxRoom)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		c2, err := cursor.Decode(position, again)
		if err != nil {
			t.Fatalf("decode it again: %v", err)
		}
		if len(spill) == 0 && len(c2.Done) == len(c.Done) && !reflect.DeepEqual(c, c2) {
			t.Fatalf("got %+v, want %+v", c2, c)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	c := randomCursor(rand.New(rand.NewPCG(5, 6)), 20)
	for b.Loop() {
		if _, _, err := cursor.Encode(c, cursor.MaxRoom); err != nil {
			b.Fatal(err)
		}
	}
}
